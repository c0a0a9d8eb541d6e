"""The journal on a real disk: what is acknowledged is there, torn and damaged parts cost what they must and no more."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import os
import resource
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hivemind_worker.worker.journal import compaction, reader, records, writer


def key(task_id: str) -> records.Key:
    return records.Key(task_id, 1)


def accepted(number: int, task: bytes = b"task") -> records.Accepted:
    return records.Accepted(f"t{number}", 1, task)


async def reopened(path: Path) -> tuple[writer.Journal, reader.Recovered]:
    journal = writer.Journal(path)
    found = await journal.open()
    return journal, found


async def test_what_is_appended_is_there_after_a_crash(tmp_path: Path) -> None:
    journal, found = await reopened(tmp_path / "state" / "journal")
    assert not found.holdings.attempts
    await asyncio.gather(*(journal.append(accepted(number)) for number in range(50)))
    await journal.append(records.Started("t1", 1, {"container": "c"}))
    await journal.append(records.Ended("t1", 1, b"result"))
    await journal.append(records.Closed("t2", 1, "accepted"))
    # Not closed: as if the process had been killed here.
    second, again = await reopened(tmp_path / "state" / "journal")
    assert len(again.holdings.attempts) == 49
    held = again.holdings.attempts[key("t1")]
    assert held.started is not None
    assert held.started.capsule == {"container": "c"}
    assert held.ended is not None
    assert held.ended.result == b"result"
    await journal.close()
    await second.close()


async def test_a_journal_cut_anywhere_says_what_came_before(tmp_path: Path) -> None:
    journal, _ = await reopened(tmp_path / "journal")
    for number in range(4):
        await journal.append(accepted(number))
    await journal.close()
    whole = (tmp_path / "journal").read_bytes()
    for length in range(len(whole)):
        found = reader.parse(whole[:length])
        lines = whole[:length].count(b"\n")
        assert len(found.holdings.attempts) == max(lines - 1, 0)
        assert not found.damaged
        assert not found.strange
    (tmp_path / "journal").write_bytes(whole[:-3])
    again, after = await reopened(tmp_path / "journal")
    assert (len(after.holdings.attempts), after.set_aside) == (3, None)
    await again.append(accepted(9))  # a torn tail does not swallow what is written behind it
    await again.close()
    assert set(reader.read(tmp_path / "journal").holdings.attempts) == set(map(key, ("t0", "t1", "t2", "t9")))


async def test_damage_in_the_middle_is_set_aside_and_told(tmp_path: Path) -> None:
    journal, _ = await reopened(tmp_path / "journal")
    for number in range(5):
        await journal.append(accepted(number))
    await journal.close()
    lines = (tmp_path / "journal").read_bytes().split(b"\n")
    lines[3] = lines[3][:-5] + b"\0\0\0\0\0"
    bad = b"\n".join(lines)
    (tmp_path / "journal").write_bytes(bad)
    again, found = await reopened(tmp_path / "journal")
    assert found.lost_lines == 1
    assert set(found.holdings.attempts) == set(map(key, ("t0", "t1", "t3", "t4")))
    assert found.set_aside is not None
    assert found.set_aside.read_bytes() == bad
    await again.close()
    last, third = await reopened(tmp_path / "journal")
    assert third.lost_lines == 0
    await last.close()


@pytest.mark.parametrize("content", [b"hivemind-journal 9\n{}\n", b"\0" * 4096 + b"\n", b"SQLite format 3\0\n"])
async def test_a_journal_of_another_kind_is_set_aside_whole(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "journal").write_bytes(content)
    journal, found = await reopened(tmp_path / "journal")
    assert found.why
    assert found.set_aside is not None
    assert found.set_aside.read_bytes() == content
    await journal.append(accepted(1))
    await journal.close()
    assert set(reader.read(tmp_path / "journal").holdings.attempts) == {key("t1")}


async def test_a_disk_that_takes_nothing_is_told_and_leaves_no_half_line(tmp_path: Path) -> None:
    journal, _ = await reopened(tmp_path / "journal")
    await journal.append(accepted(1))
    size = (tmp_path / "journal").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, before[1]))
    try:
        with pytest.raises(writer.JournalBroken, match="cannot be written"):
            await journal.append(accepted(2, b"x" * 1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert journal.broken
    assert (tmp_path / "journal").stat().st_size == size
    await journal.append(accepted(3))
    assert journal.broken  # a small one may fit where the next does not
    assert await journal.mend() == ""
    assert not journal.broken
    await journal.close()
    found = reader.read(tmp_path / "journal")
    assert set(found.holdings.attempts) == {key("t1"), key("t3")}
    assert not found.damaged


async def test_it_does_not_grow_with_what_is_over(tmp_path: Path) -> None:
    journal, _ = await reopened(tmp_path / "journal")
    await journal.append(accepted(0, b"stays"))
    for start in range(1, 3 * compaction.LEAST_LINES, 500):
        numbers = range(start, start + 500)
        await asyncio.gather(*(journal.append(accepted(number)) for number in numbers))
        await asyncio.gather(*(journal.append(records.Closed(f"t{number}", 1, "done")) for number in numbers))
    await journal.close()
    assert (tmp_path / "journal").read_bytes().count(b"\n") < compaction.LEAST_LINES + 1_000
    assert set(reader.read(tmp_path / "journal").holdings.attempts) == {key("t0")}


async def test_it_does_not_grow_with_ends_of_megabytes(tmp_path: Path) -> None:
    journal, _ = await reopened(tmp_path / "journal")
    await journal.append(accepted(0, b"s" * 1024 * 1024))
    for number in range(1, 40):
        await journal.append(accepted(number, bytes(1024 * 1024)))
        await journal.append(records.Closed(f"t{number}", 1, "done"))
        assert (tmp_path / "journal").stat().st_size < 16 * 1024 * 1024
    await journal.close()
    assert set(reader.read(tmp_path / "journal").holdings.attempts) == {key("t0")}


async def test_what_was_left_long_is_short_when_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, _ = await reopened(tmp_path / "journal")
    monkeypatch.setattr(compaction, "LEAST_BYTES", 1 << 40)
    for number in range(12):
        await journal.append(accepted(number, bytes(1024 * 1024)))
        if number:
            await journal.append(records.Closed(f"t{number}", 1, "done"))
    await journal.close()
    monkeypatch.undo()
    journal, found = await reopened(tmp_path / "journal")
    await journal.close()
    assert set(found.holdings.attempts) == {key("t0")}
    assert (tmp_path / "journal").stat().st_size < 2 * 1024 * 1024


@pytest.mark.parametrize("failing", ["open", "replace", "sync"])
async def test_a_rewriting_that_fails_anywhere_costs_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    real_open, real_replace, broken = os.open, Path.replace, True

    def opened(path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
        if broken and failing == "open" and flags & os.O_APPEND:
            raise OSError(errno.EMFILE, "too many open files")
        if broken and failing == "sync" and flags & os.O_DIRECTORY:
            raise OSError(errno.EIO, "input/output error")
        return real_open(path, flags, mode, **more)

    def replaced(self: Path, target: Path) -> Path:
        if broken and failing == "replace":
            raise OSError(errno.EIO, "input/output error")
        return real_replace(self, target)

    journal, _ = await reopened(tmp_path / "journal")
    await journal.append(accepted(0, b"stays"))
    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(Path, "replace", replaced)
    numbers = range(1, compaction.LEAST_LINES)
    await asyncio.gather(*(journal.append(accepted(number)) for number in numbers))
    closed = [journal.append(records.Closed(f"t{number}", 1, "done")) for number in numbers]
    await asyncio.gather(*closed, return_exceptions=True)
    with contextlib.suppress(writer.JournalBroken):
        await journal.append(accepted(9_998))
    broken = False
    await journal.append(accepted(9_999))
    await journal.close()
    found = reader.read(tmp_path / "journal")
    assert {key("t0"), key("t9999")} <= set(found.holdings.attempts)
    assert (found.damaged, found.torn, found.strange) == ((), b"", "")


async def test_what_a_failed_cut_left_does_not_swallow_the_next_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, _ = await reopened(tmp_path / "journal")
    await journal.append(accepted(1))
    real_sync, real_cut = os.fdatasync, os.ftruncate

    def fails(*_: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(os, "fdatasync", fails)
    monkeypatch.setattr(os, "ftruncate", fails)
    with pytest.raises(writer.JournalBroken):
        await journal.append(accepted(2, b"never acknowledged"))
    monkeypatch.setattr(os, "fdatasync", real_sync)
    monkeypatch.setattr(os, "ftruncate", real_cut)
    await journal.append(accepted(3))
    await journal.close()
    found = reader.read(tmp_path / "journal")
    assert (set(found.holdings.attempts), found.damaged) == ({key("t1"), key("t3")}, ())


async def test_a_record_is_on_the_disk_while_every_other_thread_is_busy(tmp_path: Path) -> None:
    journal, _ = await reopened(tmp_path / "journal")
    free = threading.Event()
    others = [asyncio.create_task(asyncio.to_thread(free.wait)) for _ in range(64)]
    try:
        async with asyncio.timeout(20):
            await journal.append(accepted(1))
    finally:
        free.set()
        await asyncio.gather(*others)
        await journal.close()


async def test_who_stops_waiting_takes_nothing_from_the_others(tmp_path: Path) -> None:
    journal, _ = await reopened(tmp_path / "journal")
    first = asyncio.create_task(journal.append(accepted(1)))
    second = asyncio.create_task(journal.append(accepted(2)))
    await asyncio.sleep(0)
    first.cancel()
    await second
    await journal.close()
    assert key("t2") in reader.read(tmp_path / "journal").holdings.attempts


async def test_a_record_that_expects_another_shares_its_wait_for_the_disk(tmp_path: Path, syncs: list[int]) -> None:
    journal, _ = await reopened(tmp_path / "journal")
    first = asyncio.create_task(journal.append(accepted(1), within=3600))
    await asyncio.sleep(0)
    await journal.append(records.Started("t1", 1, {}, "", "run"))
    await first
    assert len(syncs) == 1
    async with asyncio.timeout(20):
        await journal.append(accepted(2), within=0.001)  # alone, when none comes
    late = asyncio.create_task(journal.append(accepted(3), within=3600))
    await asyncio.sleep(0)
    await journal.close()
    await late
    assert {key("t1"), key("t2"), key("t3")} == set(reader.read(tmp_path / "journal").holdings.attempts)


class _OtherLoop(asyncio.SelectorEventLoop):
    """As uvloop: what is due at once is called soon, and the handle of that has no time."""

    def call_at(  # type: ignore[override]  # fewer words than the library's type has
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> Any:
        if when <= self.time():
            return self.call_soon(callback, *args, context=context)
        return super().call_at(when, callback, *args, context=context)


def test_any_event_loop_will_do(tmp_path: Path) -> None:
    async def append_several() -> None:
        journal, _ = await reopened(tmp_path / "journal")
        # In one turn of the loop: the later ones find the first one's call still to come, and due before or after.
        withins = [0.0, 0.0, 0.05, 0.0]
        await asyncio.gather(*(journal.append(accepted(number), within) for number, within in enumerate(withins)))
        await journal.close()

    with asyncio.Runner(loop_factory=_OtherLoop) as runner:
        runner.run(append_several())
    assert set(reader.read(tmp_path / "journal").holdings.attempts) == {key(f"t{number}") for number in range(4)}
