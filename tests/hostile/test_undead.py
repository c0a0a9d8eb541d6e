"""X01: a capsule that nothing can kill ends its task as it was, keeps its room, and is let go of once it is gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import attempts
import pytest
import waiting

from hivemind_worker.concurrency import stopping
from hivemind_worker.tasks import outcome

FREEZER = Path("/sys/fs/cgroup/freezer")

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.access(FREEZER, os.W_OK), reason="freezes processes by a control group of version 1"
)


@contextlib.asynccontextmanager
async def frozen(pids: set[int]) -> AsyncIterator[None]:
    """Hold processes still in a group that no worker knows of: they die when they are thawed, and not before."""
    group = FREEZER / f"test-undead-{os.getpid()}-{time.monotonic_ns()}"
    group.mkdir()
    try:
        for pid in pids:
            (group / "cgroup.procs").write_text(str(pid))
        (group / "freezer.state").write_text("FROZEN")
        yield
    finally:
        (group / "freezer.state").write_text("THAWED")
        await waiting.wait_until(lambda: not (group / "cgroup.procs").read_text(), description="they died", seconds=30)
        group.rmdir()


def capsule_of(words: bytes) -> set[int]:
    """The task with this command line and the PID 1 of its capsule, as the host numbers them."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                if (folder / "cmdline").read_bytes() == words:
                    return {int(folder.name), int((folder / "stat").read_text().rpartition(")")[2].split()[1])}
    return set()


@pytest.mark.parametrize("cancelled", [pytest.param(False, marks=pytest.mark.long), True])
async def test_x01_what_cannot_be_killed_ends_as_it_was_and_is_known_until_it_is_gone(
    bench: attempts.Bench, *, cancelled: bool
) -> None:
    seconds = f"{os.getpid()}.{time.monotonic_ns() % 10**6}"
    plan = bench.plan(["sleep", seconds], limits={"timeout_seconds": 60.0 if cancelled else 1.0}, grace_seconds=0.5)
    stop = stopping.Stop()
    run = asyncio.create_task(bench.executor.run(plan, stop, attempts.Watcher()))
    words = b"sleep\0" + seconds.encode() + b"\0"
    pids = await waiting.wait_until(lambda: capsule_of(words), description="the task runs", seconds=30)
    async with frozen(pids):
        if cancelled:
            stop.request(stopping.StopLevel.CANCEL, "the submitter wished it")
        async with asyncio.timeout(0.5 + 7.0 + (0.0 if cancelled else 1.0)):
            ended = await asyncio.shield(run)
        assert ended.reason is (outcome.Reason.CANCELLED if cancelled else outcome.Reason.TIMEOUT), ended.error
        (known,) = bench.executor.undead
        assert known.key == (plan.task_id, plan.attempt)
        assert known.limits == plan.limits
    await waiting.wait_until(lambda: not bench.executor.undead, description="it is let go of", seconds=30)
