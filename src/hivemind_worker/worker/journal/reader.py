"""Reads a journal back: a torn tail is nothing unusual, damage in the middle is set aside and told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hivemind_worker.worker.journal import records

OLDER_VERSION = "the journal of an older version does not say whether it had begun"
RESTARTED = "the machine was started anew, and the journal may lack what was last written to it: it may have begun"
DAMAGED = "the journal was damaged, and no longer says whether it had begun"


@dataclass(frozen=True, slots=True)
class Found:
    """What a journal said. ``damaged`` are whole lines that were no records; ``torn`` the bytes of an unfinished one.

    ``strange``: it is no journal at all, or of a version that is not known; then nothing of it was read.
    ``outdated``: it is of an older version or of another boot of the machine, and has to be written anew before
    anything is appended. ``boot_id``: of the boot that it was written under, if that is another; empty otherwise.
    """

    holdings: records.Holdings
    damaged: tuple[bytes, ...] = ()
    torn: bytes = b""
    strange: str = ""
    outdated: bool = False
    boot_id: str = ""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What an earlier process of this node left: what it held, and what of its journal could not be read.

    ``set_aside`` names the file with the part that could not; ``lost_lines`` how many records that were.
    ``boot_ids``: of the boots under which the pool may last have heard of this node, where the machine was started
    anew since and the pool has not heard of that, the first one last; empty otherwise.
    """

    holdings: records.Holdings
    lost_lines: int = 0
    set_aside: Path | None = None
    why: str = ""
    boot_ids: tuple[str, ...] = ()


def read(path: Path, boot_id: str = "") -> Found:
    """Read the journal at ``path``; one that is not there says nothing. Blocks. Raises OSError of the disk."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Found(records.Holdings())
    return parse(content, boot_id)


def parse(content: bytes, boot_id: str = "") -> Found:
    """Read the bytes of a journal under this boot of the machine. Pure.

    A start is written before the task begins, so no record of one means that it has not begun: but not where records
    are missing, were not written by an older version, or were lost with what the machine had in memory. No killed
    process leaves zeros at the end: of the same boot of the machine, a disk does that has lost what was written to it.
    """
    holdings = records.Holdings()
    first, end, body = content.partition(b"\n")
    if not end:  # torn in its first line: nothing was ever acted upon
        return Found(holdings, torn=content)
    head = records.read_header(first)
    if head is None:
        strange = first[:60].decode(errors="replace")
        return Found(holdings, strange=f"its first line is {strange!r}, not {records.HEADER!r} and a boot id")
    header, written_under = head
    *lines, torn = body.split(b"\n")
    damaged = []
    for each in lines:
        try:
            holdings.take(records.decode(each, header))
        except records.Damaged:
            damaged.append(each)
    if b"\0" in torn and written_under and written_under == boot_id:
        damaged.append(torn)
        torn = b""
    if header == records.HEADER_V1:
        holdings.presume_started(OLDER_VERSION)
        holdings.name_runs()
    former = written_under if written_under != boot_id else ""
    if former:
        holdings.presume_started(RESTARTED)
    if damaged:
        holdings.presume_started(DAMAGED)
    outdated = header != records.HEADER or written_under != boot_id
    return Found(holdings, tuple(damaged), torn, outdated=outdated, boot_id=former)
