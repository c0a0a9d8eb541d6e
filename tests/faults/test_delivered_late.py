"""L03: tasks end while the pool is away: results wait on the disk, and come once, in order, when it is back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import node_parts
import pool_parts
import pytest
import waiting
from scripted_pool import ScriptedPool, serving

from hivemind_worker import errors
from hivemind_worker.wire import calls
from hivemind_worker.worker.attempts import turns
from hivemind_worker.worker.journal import reader, records
from hivemind_worker.worker.machine import fitness

pb = calls.pb
TASKS = 50


async def _through(folder: Path, away_seconds: float) -> None:
    journal = folder / "node" / "worker.journal"
    async with pool_parts.running(folder / "pool") as at:
        address = at.pool.address
        async with asyncio.timeout(60):
            node = node_parts.running(address, folder / "node", max_concurrent_tasks=TASKS)
            running = await node.__aenter__()
            asked = [
                pb.Task(
                    command=f"sleep {4 + number / 50}; echo {number}; echo {number} > results/r",
                    cpu_quota=1000,
                    memory_limit="64m",
                    disk_limit="64m",
                )
                for number in range(TASKS)
            ]
            ids = await at.submit(*asked)
            await waiting.wait_until(lambda: running.runs.running == TASKS, description="all run", seconds=30)
    try:

        def ended() -> list[str]:
            lines = journal.read_bytes().split(b"\n")[1:-1]
            said = [records.decode(line) for line in lines]
            return [record.task_id for record in said if isinstance(record, records.Ended)]

        await waiting.wait_until(lambda: len(ended()) == TASKS, description="all end meanwhile", seconds=60)
        order = ended()
        if away_seconds:
            await asyncio.sleep(away_seconds)
        async with pool_parts.running(folder / "pool", listen=address) as at:
            back = time.monotonic()

            async def all_told() -> bool:
                found = [await at.info(task_id) for task_id in ids]
                return all(info.state == "completed" for info in found)

            look: Callable[[], bool | Awaitable[bool]] = all_told
            await waiting.wait_until(look, description="all delivered", seconds=30)
            assert time.monotonic() - back < 30
            infos = [await at.info(task_id) for task_id in ids]
            assert [info.result.logs for info in infos] == [f"{number}\n" for number in range(TASKS)]
            assert all(info.attempt == 1 for info in infos)
            told = sorted(ids, key=lambda task_id: infos[ids.index(task_id)].ended_at)
            late = [abs(told.index(task_id) - place) for place, task_id in enumerate(order)]
            assert max(late) < turns.AT_ONCE, late
            await waiting.wait_until(
                lambda: not reader.read(journal).holdings.attempts, description="nothing is owed", seconds=10
            )
            await node.__aexit__(None, None, None)
    except BaseException:
        await node.__aexit__(None, None, None)
        raise


@pytest.mark.long
async def test_l03_fifty_tasks_end_while_the_pool_is_away(tmp_path: Path) -> None:
    await _through(tmp_path, 0.0)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_l03_fifty_tasks_end_while_the_pool_is_away_for_ten_minutes(tmp_path: Path) -> None:
    await _through(tmp_path, 600.0)


async def test_so_much_that_waits_for_the_pool_holds_up_new_tasks_and_none_of_it_is_thrown_away(tmp_path: Path) -> None:
    pool = ScriptedPool()
    pool.fail["UploadArtifact"] = [errors.Unavailable("not now")] * 100
    quick = fitness.Limits(interval=0.05, overload_cpu_percent=100.0)
    async with (
        serving(pool) as address,
        node_parts.running(address, tmp_path, fitness=quick, undelivered=1000) as node,
    ):
        task = pb.Task(id="t", type="command", command="head -c 2000 /dev/zero > results/x", attempt=1)
        await pool.give(task)
        await waiting.wait_until(lambda: "outbox" in node.node.snapshot().holds, description="it takes nothing more")
        await waiting.wait_until(lambda: pool.polls[-1].paused, description="it asks for nothing")
        pool.fail["UploadArtifact"].clear()
        await waiting.wait_until(lambda: "t" in pool.ends(), description="it is delivered", seconds=20)
        await waiting.wait_until(lambda: not node.node.snapshot().holds, description="it takes tasks again")
