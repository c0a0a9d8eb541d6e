"""A stop that comes in the very moment of a task's end: its result is whole, or it is told as stopped. Never a part."""

from __future__ import annotations

import asyncio
from pathlib import Path

import attempts
import pytest

from hivemind_worker.concurrency import stopping
from hivemind_worker.runtime import capsule_run
from hivemind_worker.runtime.capsule import messages
from hivemind_worker.tasks import outcome

pytestmark = pytest.mark.sandbox


@pytest.mark.parametrize("code", [0, 3])
async def test_l12_a_stop_between_the_last_word_of_a_capsule_and_its_results(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = stopping.Stop()
    hears = capsule_run.CapsuleRun._hear

    async def heard_in_time(run: capsule_run.CapsuleRun, message: messages.FromCapsule) -> None:
        await hears(run, message)
        if isinstance(message, messages.Done):
            stop.request(stopping.StopLevel.CANCEL, str(outcome.Reason.NODE_SHUTDOWN))
            await asyncio.sleep(0.05)  # a turn of the loop, as a busy disk may bring about here

    monkeypatch.setattr(capsule_run.CapsuleRun, "_hear", heard_in_time)
    async with attempts.process_bench(tmp_path) as bench:
        ended = await bench.run(["/bin/sh", "-c", f"echo kept > results/x; exit {code}"], stop=stop)
        assert ended.reason is (outcome.Reason.NONZERO_EXIT if code else None)
        assert bench.content(ended, "x") == b"kept\n"
