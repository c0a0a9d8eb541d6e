"""A plan's input files as messages for the capsule, in pieces; from the plan itself or from the store."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

from hivemind_worker.artifacts import store as stores
from hivemind_worker.runtime.capsule import messages
from hivemind_worker.tasks import plan

PIECE = 512 * 1024
"""Bytes of content per message; with the longest path it stays well below a frame's 1 MiB."""


async def pieces(files: tuple[plan.InputFile, ...], store: stores.Store) -> AsyncGenerator[messages.File, None]:
    """All files, one after the other, each in pieces that say where they belong.

    Raises `store.NoSuchArtifact` when an artifact is not in the store.
    """
    for file in files:
        offset, size = 0, len(file.content or b"") if file.artifact is None else store.size(file.artifact.sha256)
        async with contextlib.aclosing(_content(file, store)) as content:
            async for data in content:
                end = offset + len(data) >= size
                yield messages.File(file.path.encode(), data, file.mode, offset, begin=offset == 0, end=end)
                offset += len(data)


async def _content(file: plan.InputFile, store: stores.Store) -> AsyncGenerator[bytes, None]:
    """At least one piece, also of an empty file."""
    if file.artifact is None:
        content = file.content or b""
        for at in range(0, max(1, len(content)), PIECE):
            yield content[at : at + PIECE]
    elif file.artifact.size == 0:
        yield b""
    else:
        async with contextlib.aclosing(store.chunks(file.artifact.sha256, chunk=PIECE)) as chunks:
            async for piece in chunks:
                yield piece
