"""What outlives the worker, what the machine: which records wait for the disk, what another boot puts in doubt."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
import threading
from pathlib import Path

import pytest
import waiting

from hivemind_worker.worker.journal import compaction, reader, records, writer


def key(task_id: str) -> records.Key:
    return records.Key(task_id, 1)


def accepted(number: int, task: bytes = b"task") -> records.Accepted:
    return records.Accepted(f"t{number}", 1, task)


async def reopened(path: Path, boot_id: str) -> tuple[writer.Journal, reader.Recovered]:
    journal = writer.Journal(path, boot_id)
    return journal, await journal.open()


def doubt_of(found: reader.Recovered, task_id: str) -> str | None:
    """Why it is only presumed to have started; None where it is known that it has not."""
    started = found.holdings.attempts[key(task_id)].started
    return None if started is None else started.doubt


async def test_a_start_outlives_a_kill_without_a_wait_for_the_disk_and_an_end_waits(
    tmp_path: Path, syncs: list[int]
) -> None:
    """The process that writes is killed behind its last word, as by a task that takes the worker along."""
    program = f"""
import asyncio, os
from pathlib import Path
from hivemind_worker.worker.journal import records, writer
os.fdatasync = None  # to call it is to fail
async def main():
    journal = writer.Journal(Path({str(tmp_path / "journal")!r}), "boot-1")
    await journal.open()
    accepted = journal.begin(records.Accepted("t1", 1, b"task", run_id="r"), within=3600)
    await journal.append(records.Started("t1", 1, {{}}, run_id="r"))
    await accepted
    os.kill(os.getpid(), 9)
asyncio.run(main())
"""
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    assert await killed.wait() == -signal.SIGKILL
    journal, found = await reopened(tmp_path / "journal", "boot-1")
    assert doubt_of(found, "t1") == ""
    await journal.append(records.Ended("t1", 1, b"result", run_id="r"))
    assert len(syncs) == 1
    await journal.append(records.Closed("t1", 1, "accepted"))
    assert len(syncs) == 1
    await journal.close()


async def test_what_was_accepted_under_another_boot_of_the_machine_may_have_begun(tmp_path: Path) -> None:
    journal, _ = await reopened(tmp_path / "journal", "boot-1")
    for number in (1, 2, 3):
        await journal.append(records.Accepted(f"t{number}", 1, b"task", run_id=f"run-{number}"))
    await journal.append(records.Started("t2", 1, {"container": "c"}, run_id="run-2"))
    await journal.append(records.Ended("t3", 1, b"result", run_id="run-3"))
    await journal.close()
    same, found = await reopened(tmp_path / "journal", "boot-1")
    assert (doubt_of(found, "t1"), doubt_of(found, "t2"), doubt_of(found, "t3")) == (None, "", None)
    await same.close()
    for boot_id in ("boot-2", "boot-2", "", "boot-3"):  # once in doubt it stays so, whoever reads it next
        other, found = await reopened(tmp_path / "journal", boot_id)
        assert (doubt_of(found, "t1"), doubt_of(found, "t2"), doubt_of(found, "t3")) == (reader.RESTARTED, "", None)
        assert found.holdings.attempts[key("t1")].run_id == "run-1"
        assert not found.why
        await other.close()


@pytest.mark.parametrize("header", ["hivemind-journal 2", "hivemind-journal 3 -"])
async def test_a_journal_that_waited_for_the_disk_with_every_line_leaves_no_doubt(tmp_path: Path, header: str) -> None:
    line = records.encode(records.Accepted("t1", 1, b"task", run_id="r"))
    (tmp_path / "journal").write_bytes(header.encode() + b"\n" + line)
    journal, found = await reopened(tmp_path / "journal", "boot-1")
    assert (doubt_of(found, "t1"), found.why) == (None, "")
    await journal.close()
    assert (tmp_path / "journal").read_bytes() == records.header("boot-1") + line  # from here on it waits less


async def test_where_the_boot_is_not_known_every_record_is_on_the_disk(tmp_path: Path, syncs: list[int]) -> None:
    journal, _ = await reopened(tmp_path / "journal", "")
    await journal.append(accepted(1))
    await journal.append(records.Started("t1", 1, {}))
    assert len(syncs) == 2
    await journal.close()


async def test_what_waits_for_no_disk_is_on_it_soon_and_a_disk_that_refuses_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syncs: list[int]
) -> None:
    monkeypatch.setattr(writer, "SYNC_SECONDS", 0.01)
    journal, _ = await reopened(tmp_path / "journal", "boot-1")
    await journal.append(accepted(1))
    await waiting.wait_until(lambda: bool(syncs), description="it is on the disk")
    counted = os.fdatasync

    def fails(_: int) -> None:
        """The kernel forgets the line that it could not write."""
        with (tmp_path / "journal").open("r+b") as file:
            if (at := file.read().find(b'"task_id":"t2"')) >= 0:
                os.pwrite(file.fileno(), bytes(8), at)
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(os, "fdatasync", fails)
    await journal.append(accepted(2))
    await waiting.wait_until(lambda: bool(journal.broken), description="it is told")
    monkeypatch.setattr(os, "fdatasync", counted)
    assert await journal.mend() == ""
    await journal.append(accepted(3))
    await journal.close()
    found = reader.read(tmp_path / "journal", "boot-1")
    assert (set(found.holdings.attempts), found.damaged) == ({key("t1"), key("t3")}, ())


async def test_a_start_that_comes_while_an_end_waits_for_the_disk_comes_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, _ = await reopened(tmp_path / "journal", "boot-1")
    real, slow = os.fdatasync, threading.Event()

    def slowly(fd: int) -> None:
        slow.wait()
        real(fd)

    monkeypatch.setattr(os, "fdatasync", slowly)
    ended = journal.begin(records.Ended("t1", 1, b"result"))
    await asyncio.sleep(0.02)
    started = journal.begin(records.Started("t2", 1, {}))
    await asyncio.sleep(0.02)
    assert (ended.done(), started.done()) == (False, False)
    slow.set()
    await asyncio.gather(ended, started)
    await journal.close()
    lines = (tmp_path / "journal").read_bytes().split(b"\n")
    assert [b'"ended"' in lines[1], b'"started"' in lines[2]] == [True, True]


async def test_starts_alone_have_a_journal_rewritten_too(tmp_path: Path) -> None:
    journal, _ = await reopened(tmp_path / "journal", "boot-1")
    await journal.append(accepted(0, b"stays"))
    for number in range(1, 2 * compaction.LEAST_LINES):
        await journal.append(accepted(number))
        await journal.append(records.Closed(f"t{number}", 1, "done"))
    await journal.close()
    assert (tmp_path / "journal").read_bytes().count(b"\n") < compaction.LEAST_LINES + 1_000
    assert set(reader.read(tmp_path / "journal", "boot-1").holdings.attempts) == {key("t0")}
