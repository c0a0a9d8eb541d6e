"""A full disk of a worker's state: what it cannot begin it hands back, which is no attempt, and it asks for no more."""

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
from hivemind_worker.tasks import state

pytestmark = pytest.mark.skipif(not small_disk.can_mount(), reason="NO RIGHT TO MOUNT: a full disk is not tested")

# Too long for what may be free in the last page of the journal.
COMMAND = {"command": f"true {'x' * 8_192}", "memory_limit": "64m", "cpu_quota": 20_000, "max_attempts": 1}


async def _until(look: Callable[[], bool | Awaitable[bool]], description: str) -> None:
    await waiting.wait_until(look, description=description, seconds=20)


async def test_what_a_full_state_disk_prevents_is_handed_back_and_no_more_is_asked_for(tmp_path: Path) -> None:
    with small_disk.mounted(tmp_path / "books", 2) as disk:
        # No look at the node comes in between: what the attempt meets with must be enough to stop the polls.
        terms = {
            "books": disk.path,
            "fitness": dataclasses.replace(node_parts.WHATEVER, interval=4.0),
            "heartbeat_seconds": 0.2,
        }
        async with (
            pool_parts.running(tmp_path / "pool") as at,
            asynchronous.AsyncClient(at.pool.address) as client,
            node_parts.running(at.pool.address, tmp_path / "work", **terms),
        ):

            async def statuses() -> list[str]:
                return [known.status for known in await client.nodes()]

            async def connected() -> bool:
                return await statuses() == ["idle"]

            await _until(connected, "the node is there")
            disk.fill()
            ids = await client.submit([COMMAND] * 8)

            async def unhealthy() -> bool:
                return await statuses() == ["unhealthy"]

            await _until(unhealthy, "the pool is told")

            async def nothing_is_held() -> bool:
                (known,) = await client.nodes()
                return not known.attempts

            await _until(nothing_is_held, "all was handed back")
            tasks = [await client.task(task_id) for task_id in ids]
            assert {task.status for task in tasks} == {state.TaskState.QUEUED}
            assert all(task.attempt == task.disruptions <= 1 for task in tasks)
            assert any("cannot be written: No space left" in event.details for event in tasks[0].story)
            assert "start" not in {event.event for task in tasks for event in task.story}
            disk.clear()
            ended = await client.wait(ids, 40)
            assert {task.status for task in ended} == {state.TaskState.COMPLETED}
