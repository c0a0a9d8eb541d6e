"""kill -9 of the pool in the middle of many tasks, again and again (L11): nothing is lost, nothing counts twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import chaos_evidence
import chaos_service
import history
import invariants
import node_process
import pytest

from hivemind_worker import errors
from hivemind_worker.client import asynchronous
from hivemind_worker.tasks import state

WORKERS = 3
SUPPORT = str(Path(node_process.__file__).parent)


@contextlib.asynccontextmanager
async def _pool(folder: Path) -> AsyncIterator[tuple[chaos_service.Service, str]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HIVEMIND_")}
    words = [
        "pool", "--listen=127.0.0.1:0", f"--state-dir={folder / 'pool'}", f"--log-dir={folder / 'log'}",
        "--log-format=json", "--pool-lease-seconds=30",
    ]  # fmt: skip
    service = chaos_service.Service("pool", folder, words, environment, '"pool_started"')
    try:
        await service.until_ready()
        address = await asyncio.to_thread(service.said, chaos_service.ADDRESS)
        words[1] = f"--listen={address}"
        yield service, address
    finally:
        assert service.process is not None
        service.signal(signal.SIGKILL)
        service.process.wait()


@contextlib.asynccontextmanager
async def _workers(address: str, folder: Path) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as stack:
        for number in range(WORKERS):
            program = [sys.executable, node_process.__file__, address, str(folder / f"w{number}"), "20", f"w{number}"]
            variables = {"PYTHONPATH": f"{SUPPORT}:{os.environ.get('PYTHONPATH', '')}", "PATH": "/usr/bin:/bin"}
            process = await asyncio.create_subprocess_exec(
                *program, env=variables, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
            )
            stack.push_async_callback(_end, process)
        yield


async def _end(process: asyncio.subprocess.Process) -> None:
    process.terminate()
    assert await process.wait() == 0


async def _submitted(client: asynchronous.AsyncClient, tasks: list[dict[str, object]]) -> None:
    """In small batches, so that submissions fall into the kills too; each id names its task for good."""
    for start in range(0, len(tasks), 20):
        while True:
            with contextlib.suppress(errors.Unavailable):
                await client.submit(tasks[start : start + 20])
                break


async def _killed(tmp_path: Path, count: int, kills: int) -> None:
    draw = random.Random(count)
    tasks: list[dict[str, object]] = [
        {"id": f"t{number:04}", "command": f"echo {number}", "cpu_quota": 50_000} for number in range(count)
    ]
    expected = {
        f"t{number:04}": history.Expected(stdout_bytes=len(f"{number}\n"), logs=f"{number}\n")
        for number in range(count)
    }
    async with (
        _pool(tmp_path) as (pool, address),
        _workers(address, tmp_path),
        asynchronous.AsyncClient(address, patience=60) as client,
    ):
        submitting = asyncio.create_task(_submitted(client, tasks), name="submitting")
        for kill in range(kills):
            # At a moment of its own: so many tasks have ended, and a moment more.
            await _until_ended(client, count * (kill + 0.5) / (kills + 1))
            await asyncio.sleep(draw.uniform(0, 0.1))
            await pool.restart(draw.uniform(0, 0.5))
        await submitting
        await _until_ended(client, count)
        found = await asyncio.to_thread(chaos_evidence.tasks, tmp_path / "pool" / "pool.sqlite")
    assert invariants.check(history.History(expected, found, 30.0, 2.0)) == []
    assert {task.state for task in found} == {state.TaskState.COMPLETED}
    # Its workers live on, and with them what they hold: a pool that starts again takes it from nobody.
    assert {task.attempt for task in found} == {1}


async def _until_ended(client: asynchronous.AsyncClient, count: float) -> None:
    ended = 0
    while ended < count:
        await asyncio.sleep(0.02)
        with contextlib.suppress(errors.Unavailable):
            found = (await client.info()).tasks_by_state
            ended = sum(found.get(word, 0) for word in state.ENDED)


@pytest.mark.timeout(120)
async def test_l11_kill_9_of_the_pool_twice_in_90_tasks(tmp_path: Path) -> None:
    await _killed(tmp_path, 90, 2)


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_l11_kill_9_of_the_pool_ten_times_in_1000_tasks(tmp_path: Path) -> None:
    await _killed(tmp_path, 1_000, 10)
