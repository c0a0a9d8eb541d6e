"""A disk that loses lines while the machine goes on: no start that was acknowledged is taken for one that was not."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from hivemind_worker.worker.journal import compaction, reader, records, writer


def started(path: Path, task_id: str) -> records.Started | None:
    """What a process that is started now reads of its start."""
    return reader.read(path, "boot-1").holdings.attempts[records.Key(task_id, 1)].started


def damage(path: Path, start: int, end: int) -> None:
    """Have zeros come back where something was written."""
    with path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(end - start))


async def begun(path: Path) -> writer.Journal:
    """A journal of one attempt that was told to start, as its last line says."""
    journal = writer.Journal(path, "boot-1")
    await journal.open()
    await journal.append(records.Accepted("t1", 1, b"task", run_id="r"))
    await journal.append(records.Started("t1", 1, {}, run_id="r"))
    return journal


@pytest.mark.parametrize("unreadable", [False, True])
async def test_a_journal_written_anew_in_doubt_says_of_a_start_that_is_lost_that_it_may_have_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, unreadable: bool
) -> None:
    path, broken = tmp_path / "journal", True
    journal = await begun(path)
    at = path.read_bytes().index(b'"started"')
    sync, pread = os.fdatasync, os.pread

    def synced(fd: int) -> None:
        if broken:
            raise OSError(errno.EIO, "input/output error")
        sync(fd)

    def read(fd: int, length: int, offset: int) -> bytes:
        if unreadable and offset <= at < offset + length:
            raise OSError(errno.EIO, "input/output error")
        return pread(fd, length, offset)

    monkeypatch.setattr(os, "fdatasync", synced)
    monkeypatch.setattr(os, "pread", read)
    with pytest.raises(writer.JournalBroken):
        await journal.append(records.Ended("t2", 1, b"result"))
    broken = False
    damage(path, at, path.stat().st_size)
    await journal.append(records.Accepted("t3", 1, b"task"))
    assert started(path, "t1") == records.Started("t1", 1, {}, run_id="r", doubt=reader.DAMAGED)
    assert started(path, "t3") is None
    await journal.close()


async def test_zeros_in_the_place_of_the_last_lines_are_damage_if_the_machine_has_gone_on(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = await begun(path)
    await journal.close()
    lines = path.read_bytes().splitlines(keepends=True)
    damage(path, len(b"".join(lines[:2])), path.stat().st_size)
    for _ in range(2):  # what is in doubt stays so, whoever reads it next
        again = writer.Journal(path, "boot-1")
        found = await again.open()
        presumed = found.holdings.attempts[records.Key("t1", 1)].started
        assert presumed is not None
        assert presumed.doubt == reader.DAMAGED
        await again.close()


async def test_a_line_that_turns_out_damaged_while_the_journal_is_rewritten_holds_up_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "LEAST_LINES", 20)
    path = tmp_path / "journal"
    journal = await begun(path)
    lines = path.read_bytes().splitlines(keepends=True)
    damage(path, len(b"".join(lines[:3])) - 9, len(b"".join(lines[:3])))
    async with asyncio.timeout(20):
        for number in range(20):
            await journal.append(records.Accepted(f"other-{number}", 1, b"task"))
            await journal.append(records.Closed(f"other-{number}", 1, "done"))
        await journal.append(records.Ended("t2", 1, b"result"))
    presumed = started(path, "t1")
    assert presumed is not None
    assert presumed.doubt == reader.DAMAGED
    await journal.close()
