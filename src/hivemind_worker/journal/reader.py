"""Reads a journal back: a torn tail is nothing unusual, damage in the middle is set aside and told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hivemind_worker.journal import records


@dataclass(frozen=True, slots=True)
class Found:
    """What a journal said. ``damaged`` are whole lines that were no records; ``torn`` the bytes of an unfinished one.

    ``strange``: it is no journal at all, or of a version that is not known; then nothing of it was read.
    """

    holdings: records.Holdings
    damaged: tuple[bytes, ...] = ()
    torn: bytes = b""
    strange: str = ""


def read(path: Path) -> Found:
    """Read the journal at ``path``; one that is not there says nothing. Blocks. Raises OSError of the disk."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Found(records.Holdings())
    return parse(content)


def parse(content: bytes) -> Found:
    """Read the bytes of a journal. Pure."""
    holdings = records.Holdings()
    header, end, body = content.partition(b"\n")
    if not end:  # torn in its first line: nothing was ever acted upon
        return Found(holdings, torn=content)
    if header != records.HEADER.encode():
        return Found(holdings, strange=f"its first line is {header[:60]!r}, not {records.HEADER!r}")
    *lines, torn = body.split(b"\n")
    damaged = []
    for line in lines:
        try:
            holdings.take(records.decode(line))
        except records.Damaged:
            damaged.append(line)
    return Found(holdings, tuple(damaged), torn)
