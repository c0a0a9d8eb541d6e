"""X01: PID 1 of a capsule stands still right after START: the task ends at its time all the same, on every driver."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import attempts
import first_process
import pytest
import waiting

from hivemind_worker.concurrency import stopping
from hivemind_worker.tasks import outcome


async def test_x01_a_capsule_whose_init_is_stopped_ends_in_time(bench: attempts.Bench) -> None:
    seconds = f"{os.getpid()}.{time.monotonic_ns() % 10**6}"
    run = asyncio.create_task(
        bench.executor.run(
            bench.plan(["sleep", seconds], limits={"timeout_seconds": 1.0}, grace_seconds=0.5),
            stopping.Stop(),
            attempts.Watcher(),
        )
    )
    words = b"sleep\0" + seconds.encode() + b"\0"
    init = await waiting.wait_until(lambda: first_process.of_task(words), description="the task runs", seconds=30)
    began = time.monotonic()
    os.kill(init, signal.SIGSTOP)
    try:
        async with asyncio.timeout(1.0 + 0.5 + 7.0):
            ended = await asyncio.shield(run)
    finally:
        if not run.done():
            os.kill(init, signal.SIGKILL)
            await run
    assert ended.reason is outcome.Reason.TIMEOUT, ended.error
    assert time.monotonic() - began >= 1.0


pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="stops a process of another user")
