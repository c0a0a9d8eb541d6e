"""PID 1 of a capsule is killed from outside while a task's results are read: no fault of the task, on every driver."""

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
from hivemind_worker.tasks import outcome, state

RESULT_BYTES = 12 * 1024 * 1024
"""More than the pipes on the way hold: the capsule has not sent all of it when its task's end is heard."""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="kills a process of another user")


class Killing(attempts.Watcher):
    """Kills the capsule's PID 1 as soon as its task has ended."""

    init = 0

    def phase(self, phase: state.Phase) -> None:
        super().phase(phase)
        if phase is state.Phase.COLLECTING:
            os.kill(self.init, signal.SIGKILL)


@pytest.mark.parametrize("code", [0, 3])
async def test_what_ends_a_capsule_from_outside_while_its_results_are_read_is_no_fault_of_the_task(
    bench: attempts.Bench, code: int
) -> None:
    seconds = f"1.{os.getpid()}{time.monotonic_ns() % 10**6}"
    script = f"head -c {RESULT_BYTES} /dev/urandom > results/large; sleep {seconds}; exit {code}"
    killing = Killing()
    run = asyncio.create_task(bench.executor.run(bench.plan(["sh", "-c", script]), stopping.Stop(), killing))
    words = b"sh\0-c\0" + script.encode() + b"\0"
    killing.init = await waiting.wait_until(
        lambda: first_process.of_task(words), description="the task runs", seconds=30
    )
    ended = await run
    assert ended.reason is (outcome.Reason.NONZERO_EXIT if code else outcome.Reason.INTERNAL), ended.error
    assert "results" in ended.error
    assert not ended.results
