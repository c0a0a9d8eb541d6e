"""A full disk of a worker's result files: what cannot be collected is handed back, which is no attempt."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path

import node_parts
import pool_parts
import pytest
import small_disk
import waiting

from hivemind_worker.client import asynchronous
from hivemind_worker.task import state

pytestmark = pytest.mark.skipif(not small_disk.can_mount(), reason="NO RIGHT TO MOUNT: a full disk is not tested")

MIB = 1024**2
COMMAND = {
    "command": f"head -c {2 * MIB} /dev/zero > results/file",
    "memory_limit": "64m",
    "disk_limit": "4m",
    "cpu_quota": 20_000,
    "max_attempts": 1,
}


async def _until(look: Callable[[], bool | Awaitable[bool]], description: str) -> None:
    await waiting.wait_until(look, description=description, seconds=20)


async def test_results_that_a_full_disk_does_not_take_cost_no_attempt_and_the_node_rests(tmp_path: Path) -> None:
    with small_disk.mounted(tmp_path / "work", 64) as disk:
        # No look at the node comes in between: what the attempt meets with must be enough to stop the polls.
        terms = {"books": tmp_path, "fitness": dataclasses.replace(node_parts.WHATEVER, interval=4.0)}
        async with (
            pool_parts.running(tmp_path / "pool") as at,
            asynchronous.AsyncClient(at.pool.address) as client,
            node_parts.running(at.pool.address, disk.path / "work", **terms) as node,
        ):

            async def is_idle() -> bool:
                return [known.status for known in await client.nodes()] == ["idle"]

            async def is_unhealthy() -> bool:
                return [known.status for known in await client.nodes()] == ["unhealthy"]

            await _until(is_idle, "the node is there")
            disk.fill()
            ids = await client.submit([COMMAND] * 6)
            await _until(is_unhealthy, "the pool is told")

            async def is_given_back() -> bool:
                (known,) = await client.nodes()
                return not known.attempts

            await _until(is_given_back, "all was handed back")
            assert len(node.runs.ran) <= 4, "no more than it had when it saw it"
            tasks = [await client.task(task_id) for task_id in ids]
            assert {task.status for task in tasks} == {state.TaskState.QUEUED}
            assert all(task.attempt == task.disruptions <= 1 for task in tasks)
            reasons = [event.details for task in tasks for event in task.story if event.event == "requeue"]
            assert reasons
            assert all("node_shutdown: handed back" in reason and "No space left" in reason for reason in reasons)
            disk.clear()
            ended = await client.wait(ids, 40)
            assert {task.status for task in ended} == {state.TaskState.COMPLETED}
            assert {task.attempt - task.disruptions for task in ended} == {1}
