"""Reads a journal back: a torn tail is nothing unusual, damage in the middle is set aside and told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hivemind_worker.journal import records

OLDER_VERSION = "the journal of an older version does not say whether it had begun"
DAMAGED = "the journal was damaged, and no longer says whether it had begun"


@dataclass(frozen=True, slots=True)
class Found:
    """What a journal said. ``damaged`` are whole lines that were no records; ``torn`` the bytes of an unfinished one.

    ``strange``: it is no journal at all, or of a version that is not known; then nothing of it was read. ``older``: it
    is of an older version, and has to be written anew before anything is appended.
    """

    holdings: records.Holdings
    damaged: tuple[bytes, ...] = ()
    torn: bytes = b""
    strange: str = ""
    older: bool = False


def read(path: Path) -> Found:
    """Read the journal at ``path``; one that is not there says nothing. Blocks. Raises OSError of the disk."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Found(records.Holdings())
    return parse(content)


def parse(content: bytes) -> Found:
    """Read the bytes of a journal. Pure.

    A start is on the disk before the task begins, so no record of one means that it has not begun: but not where
    records are missing, or were not written by an older version.
    """
    holdings = records.Holdings()
    first, end, body = content.partition(b"\n")
    if not end:  # torn in its first line: nothing was ever acted upon
        return Found(holdings, torn=content)
    header = first.decode(errors="replace")
    if header not in {records.HEADER, records.HEADER_V1}:
        return Found(holdings, strange=f"its first line is {first[:60]!r}, not {records.HEADER!r}")
    *lines, torn = body.split(b"\n")
    damaged = []
    for line in lines:
        try:
            holdings.take(records.decode(line, header))
        except records.Damaged:
            damaged.append(line)
    older = header == records.HEADER_V1
    if older:
        holdings.presume_started(OLDER_VERSION)
        holdings.name_runs()
    if damaged:
        holdings.presume_started(DAMAGED)
    return Found(holdings, tuple(damaged), torn, older=older)
