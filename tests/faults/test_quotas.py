"""A quota that is used up is a full disk, which no look at the disk shows: handed back at a node, waited for at a pool.

Of the store: `test_pool_disks_fill_at_work.py`. On a Btrfs SQLite comes to no error: see `docs/why/sqlite.md`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import node_parts
import pool_parts
import pytest
import small_disk
import waiting

from hivemind_worker.client import asynchronous
from hivemind_worker.tasks import state

pytestmark = pytest.mark.skipif(
    not small_disk.can_set_quota(), reason="NO BTRFS (mkfs.btrfs), OR NO RIGHT TO MOUNT: a quota is not tested"
)

MIB = 1024**2
COMMAND = {
    "command": f"head -c {2 * MIB} /dev/urandom > results/file",
    "memory_limit": "64m",
    "disk_limit": "4m",
    "cpu_quota": 20_000,
    "max_attempts": 1,
}


async def test_results_that_a_quota_does_not_take_are_handed_back(tmp_path: Path) -> None:
    with small_disk.under_quota(tmp_path / "work", 16) as disk:
        async with (
            pool_parts.running(tmp_path / "pool") as at,
            asynchronous.AsyncClient(at.pool.address) as client,
            node_parts.running(at.pool.address, disk.path / "work", books=tmp_path),
        ):
            await client.wait(await client.submit([COMMAND]), 20)  # its folders are made
            disk.fill()
            (task_id,) = await client.submit([COMMAND])

            async def is_handed_back() -> bool:
                return (await client.task(task_id)).disruptions > 0

            look: Callable[[], bool | Awaitable[bool]] = is_handed_back
            await waiting.wait_until(look, description="it is handed back", seconds=20)
            assert any("quota exceeded" in event.details for event in (await client.task(task_id)).story)
            disk.clear()
            (ended,) = await client.wait([task_id], 40)
            assert ended.status is state.TaskState.COMPLETED
            assert ended.attempt - ended.disruptions == 1


async def test_a_pool_under_a_quota_hands_out_nothing_more_and_gets_each_result_once_there_is_room(
    tmp_path: Path,
) -> None:
    with small_disk.under_quota(tmp_path / "files", 16) as disk:
        async with (
            pool_parts.running(tmp_path / "pool", artifact_folder=disk.path / "artifacts") as at,
            asynchronous.AsyncClient(at.pool.address) as client,
            node_parts.running(at.pool.address, tmp_path / "node"),
        ):
            disk.fill()
            ids = await client.submit([COMMAND] * 4)
            cause = f"files cannot be written to {disk.path / 'artifacts' / 'staging'}: Disk quota exceeded"
            await waiting.wait_until(lambda: cause in at.pool.health.ready()[1], description="unready", seconds=20)
            disk.clear()
            ended = await client.wait(ids, 40)
            assert {task.status for task in ended} == {state.TaskState.COMPLETED}
            assert {task.attempt for task in ended} == {1}
            await waiting.wait_until(lambda: at.pool.health.ready()[0], description="ready again", seconds=20)
