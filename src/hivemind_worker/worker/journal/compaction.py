"""Writes a journal anew with what still counts: whole beside the old one, on the disk, then in its place."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from hivemind_worker.filesystem import private_file
from hivemind_worker.worker.journal import reader, records

LEAST_LINES = 1_000
"""A journal shorter than this is left as it is: rewriting it costs more than reading it."""

LEAST_BYTES = 8 * 1024 * 1024
"""Nor is one of fewer bytes, however few its lines: an end can be a line of megabytes."""

DEAD_SHARE = 4
"""Rewritten once only one line in so many still counts, or one byte."""


class Extent(NamedTuple):
    """How much of a journal there is."""

    lines: int
    size: int
    """In bytes."""

    @property
    def is_long(self) -> bool:
        """Whether it may be worth it to write it anew."""
        return self.lines >= LEAST_LINES or self.size >= LEAST_BYTES


def worth_it(written: Extent, live: Extent) -> bool:
    """Say whether a journal of which ``live`` still counts is mostly about the past. Pure."""
    is_past_by_lines = written.lines >= max(LEAST_LINES, DEAD_SHARE * live.lines)
    return is_past_by_lines or written.size >= max(LEAST_BYTES, DEAD_SHARE * live.size)


def is_worth_it(path: Path, holdings: records.Holdings) -> bool:
    """Say the same of the journal at ``path``, which says what ``holdings`` are. Raises OSError."""
    written = Extent(holdings.lines, path.stat().st_size)
    if not written.is_long:
        return False
    sizes = [len(records.encode(record)) for record in holdings.records()]
    return worth_it(written, Extent(len(sizes), sum(sizes)))


def salvaged(lines: Iterable[bytes]) -> Iterable[bytes]:
    """Return what the lines of one attempt say as far as they are whole: where one is lost, it may have begun. Pure."""
    holdings = records.Holdings()
    is_damaged = False
    for line in lines:
        if records.is_whole(line):
            holdings.take(records.decode(line[:-1]))
        else:
            is_damaged = True
    if is_damaged:
        holdings.presume_started(reader.DAMAGED)
    return map(records.encode, holdings.records())


def prepare(path: Path, lines: Iterable[bytes], boot_id: str) -> Path:
    """Write a journal of these lines alone, whole and on the disk, beside ``path``; return where. Blocks.

    Raises OSError; nothing has changed then: what was written of it goes, as the journal needs the room.
    """
    prepared = _prepared(path)
    try:
        with private_file.open_binary(prepared, "wb") as file:
            file.write(records.header(boot_id))
            for line in lines:
                file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        discard(path)
        raise
    return prepared


def discard(path: Path) -> None:
    """Remove what was prepared beside ``path`` and has not taken its place; what the disk does not let go of stays."""
    with contextlib.suppress(OSError):
        _prepared(path).unlink(missing_ok=True)


def rewrite(path: Path, lines: Iterable[bytes], boot_id: str, set_aside: Path | None = None) -> None:
    """Put a journal of these lines alone at ``path``, as nobody has it open; keep what was there as ``set_aside``.

    Blocks. Raises OSError; nothing has changed then: where a disk is full, a worker may be started a thousand times.
    """
    prepared = prepare(path, lines, boot_id)
    try:
        if set_aside is not None:
            _keep(path, set_aside)
        prepared.replace(path)
    except BaseException:
        discard(path)
        if set_aside is not None:
            set_aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _keep(path: Path, set_aside: Path) -> None:
    try:
        set_aside.hardlink_to(path)  # needs no room
    except OSError:  # a file system without such links
        private_file.copy(path, set_aside)


def _prepared(path: Path) -> Path:
    return path.with_name(path.name + ".new")


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in ``folder``. Blocks."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
