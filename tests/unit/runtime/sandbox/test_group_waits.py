"""Control groups: the kernel may let each change wait, for seconds on a busy machine; the event loop never does."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from hivemind_worker.runtime.sandbox import limits
from hivemind_worker.tasks import outcome

LIMITS = outcome.Limits(memory_bytes=2**26, cpu_quota=10_000, timeout_seconds=9, disk_bytes=2**24, pids=8)
LOOP_SECONDS = 10.0


def _parents(tmp_path: Path) -> limits.Parents:
    return limits.Parents({"memory": tmp_path}, frozenset({"memory"}))


async def test_the_loop_goes_on_while_a_group_waits_to_be_changed(tmp_path: Path) -> None:
    (tmp_path / "group").mkdir()
    os.mkfifo(tmp_path / "group" / "cgroup.procs")  # opened for writing, it blocks until somebody reads
    goes_on = threading.Event()

    def read() -> tuple[bool, bytes]:
        in_time = goes_on.wait(LOOP_SECONDS)  # a loop that stands still is let go of, and fails
        pid = (tmp_path / "group" / "cgroup.procs").read_bytes()
        (tmp_path / "group" / "cgroup.procs").unlink()
        return in_time, pid

    reading = asyncio.get_running_loop().run_in_executor(None, read)
    group = limits.Group({"memory": tmp_path / "group"})
    changes = [asyncio.create_task(change) for change in (group.add(4711), group.make(LIMITS), group.remove())]
    for _ in range(3):
        await asyncio.sleep(0)
    assert not any(change.done() for change in changes), "each waits for the one before"
    goes_on.set()
    assert await reading == (True, b"4711")
    added, made, removed = await asyncio.gather(*changes, return_exceptions=True)
    assert added is removed is None
    assert isinstance(made, OSError), "it was there, or removed"


async def test_a_group_whose_making_was_given_up_is_not_made_after_it_was_removed(tmp_path: Path) -> None:
    group = limits.Group.planned(_parents(tmp_path))
    await group.remove()
    with pytest.raises(FileNotFoundError):
        await group.make(LIMITS)
    assert os.listdir(tmp_path) == []  # noqa: PTH208  (which blocks for no disk)


async def test_a_group_is_removed_whole_although_nobody_waited_for_its_making(tmp_path: Path) -> None:
    group = limits.Group.planned(_parents(tmp_path))
    making = asyncio.create_task(group.make(LIMITS))
    await asyncio.sleep(0)
    making.cancel()
    await group.remove()
    assert os.listdir(tmp_path) == []  # noqa: PTH208  (which blocks for no disk)
