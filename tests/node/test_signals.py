from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import node_process
import pytest
import pytest_asyncio
import waiting
from scripted_pool import ScriptedPool, serving

from hivemind_worker.wire import calls

pb = calls.pb
SUPPORT = str(Path(node_process.__file__).parent)


class Worker:
    def __init__(self, pool: ScriptedPool, process: asyncio.subprocess.Process) -> None:
        self.pool, self.process = pool, process

    async def runs(self, task_id: str, command: str) -> None:
        await self.pool.give(pb.Task(id=task_id, type="command", command=command, attempt=1))
        await waiting.wait_until(
            lambda: any(report.task_id == task_id for report in self.pool.reports), description=f"{task_id} runs"
        )

    async def exit_code(self, seconds: float = 10) -> int:
        async with asyncio.timeout(seconds):
            return await self.process.wait()


@pytest_asyncio.fixture
async def worker(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Worker]:
    pool = ScriptedPool()
    drain_seconds = str(request.param)
    async with serving(pool) as address:
        program = [sys.executable, node_process.__file__, address, str(tmp_path / "work"), drain_seconds]
        process = await asyncio.create_subprocess_exec(*program, env={"PYTHONPATH": SUPPORT, "PATH": "/usr/bin:/bin"})
        try:
            await waiting.wait_until(lambda: pool.beats, description="the worker's first heartbeat", seconds=20)
            yield Worker(pool, process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


@pytest.mark.parametrize("worker", [30], indirect=True)
async def test_the_first_signal_lets_tasks_finish_and_says_goodbye(worker: Worker) -> None:
    await worker.runs("t", "sleep 0.7; echo done")
    worker.process.send_signal(signal.SIGTERM)
    await waiting.wait_until(lambda: worker.pool.polls[-1].paused, description="nothing new is asked for")
    assert await worker.exit_code() == 0
    assert worker.pool.ends()["t"].status == "completed"
    assert worker.pool.beats[-1].status == "offline"
    assert not worker.pool.beats[-1].held


@pytest.mark.parametrize("worker", [0.3], indirect=True)
async def test_what_outlasts_the_drain_time_is_ended_and_handed_back(worker: Worker) -> None:
    await worker.runs("t", "sleep 60")
    worker.process.send_signal(signal.SIGTERM)
    assert await worker.exit_code() == 0
    assert (worker.pool.ends()["t"].status, worker.pool.ends()["t"].result.reason) == ("failed", "node_shutdown")
    assert worker.pool.beats[-1].status == "offline"


@pytest.mark.parametrize("worker", [30], indirect=True)
@pytest.mark.serial
async def test_a_task_that_ignores_sigterm_does_not_hold_up_a_second_signal(worker: Worker, tmp_path: Path) -> None:
    pids = tmp_path / "pid"
    await worker.runs("t", f"trap '' TERM; echo $$ > {pids}; while true; do sleep 1; done")
    worker.process.send_signal(signal.SIGTERM)
    await waiting.wait_until(lambda: worker.pool.polls[-1].paused, description="it drains")
    began = asyncio.get_running_loop().time()
    worker.process.send_signal(signal.SIGTERM)
    assert await worker.exit_code(5) == 0
    assert asyncio.get_running_loop().time() - began < 2
    await waiting.wait_until(
        lambda: not Path(f"/proc/{pids.read_text().strip()}").exists(), description="the task's process is gone"
    )


@pytest.mark.parametrize("worker", [30], indirect=True)
@pytest.mark.serial
async def test_an_idle_worker_ends_at_once(worker: Worker) -> None:
    began = asyncio.get_running_loop().time()
    worker.process.send_signal(signal.SIGINT)
    assert await worker.exit_code(5) == 0
    assert asyncio.get_running_loop().time() - began < 2
