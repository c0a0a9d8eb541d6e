"""Writes a journal anew with what still counts: whole beside the old one, on the disk, then in its place."""

from __future__ import annotations

import os
from pathlib import Path

from hivemind_worker.journal import records

LEAST_LINES = 1_000
"""A journal shorter than this is left as it is: rewriting it costs more than reading it."""

DEAD_SHARE = 4
"""Rewritten once only one line in so many still counts."""


def worth_it(holdings: records.Holdings) -> bool:
    """Say whether a journal that led to these holdings is mostly about attempts that are closed. Pure."""
    live = sum(len(held.records()) for held in holdings.attempts.values())
    return holdings.lines >= LEAST_LINES and holdings.lines >= DEAD_SHARE * live


def rewrite(path: Path, holdings: records.Holdings) -> None:
    """Put a journal with these holdings alone at ``path``. Blocks. Raises OSError; the old one then still stands."""
    beside = path.with_name(path.name + ".new")
    with beside.open("wb") as file:
        file.write(records.HEADER.encode() + b"\n")
        for record in holdings.records():
            file.write(records.encode(record))
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in ``folder``. Blocks."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
