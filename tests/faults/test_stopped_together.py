"""A whole cluster is stopped in order and started again: pool and worker, as processes; no attempt is used up."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import chaos_service
import node_process
import pytest
import waiting

from hivemind_worker.client import asynchronous, shapes

SUPPORT = str(Path(node_process.__file__).parent)
LEASE_SECONDS = 2


def _pool(folder: Path) -> chaos_service.Service:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HIVEMIND_")}
    words = [
        "pool", "--listen=127.0.0.1:0", f"--state-dir={folder / 'pool'}", f"--log-dir={folder / 'log'}",
        "--log-format=json", f"--pool-lease-seconds={LEASE_SECONDS}",
    ]  # fmt: skip
    return chaos_service.Service("pool", folder, words, environment, '"pool_started"')


async def _worker(address: str, folder: Path) -> asyncio.subprocess.Process:
    program = [sys.executable, node_process.__file__, address, str(folder / "w"), "0", "w"]
    variables = {"PYTHONPATH": f"{SUPPORT}:{os.environ.get('PYTHONPATH', '')}", "PATH": "/usr/bin:/bin"}
    return await asyncio.create_subprocess_exec(*program, env=variables)


@pytest.mark.long
async def test_l02_pool_and_worker_stopped_together_use_up_no_attempt(tmp_path: Path) -> None:
    pool = _pool(tmp_path)
    await pool.until_ready()
    worker = None
    try:
        address = await asyncio.to_thread(pool.said, chaos_service.ADDRESS)
        pool.words[1] = f"--listen={address}"
        worker = await _worker(address, tmp_path)
        async with asynchronous.AsyncClient(address, patience=60) as client:
            mark = tmp_path / "ran"
            command = f"test -e {mark} && exit 0; touch {mark}; sleep 300"
            (task_id,) = await client.submit([{"command": command, "max_attempts": 1, "cpu_quota": 50_000}])
            await waiting.wait_until(mark.exists, description="the task runs", seconds=60)
            assert await pool.end() == 0
            worker.terminate()
            assert await worker.wait() == 0
            await pool.until_ready()

            async def task() -> shapes.Task:
                return await client.task(task_id)

            async def is_queued() -> bool:
                return (await task()).status == "queued"

            queued: Callable[[], bool | Awaitable[bool]] = is_queued
            await waiting.wait_until(queued, description="the lease is lost", seconds=60)
            assert ((await task()).attempt, (await task()).disruptions) == (1, 1)
            worker = await _worker(address, tmp_path)

            async def has_ended() -> bool:
                return (await task()).status in ("completed", "failed")

            ended: Callable[[], bool | Awaitable[bool]] = has_ended
            await waiting.wait_until(ended, description="the task ends", seconds=60)
            found = await task()
            assert (found.status, found.attempt, found.disruptions) == ("completed", 2, 1)
    finally:
        if worker is not None and worker.returncode is None:
            worker.terminate()
            await worker.wait()
        await pool.end()
