"""A full or broken disk of a worker's result files: what cannot be collected is handed back, which is no attempt."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path

import node_parts
import pool_parts
import pytest
import small_disk
import waiting

from hivemind_worker.artifacts import outbox, store
from hivemind_worker.client import asynchronous
from hivemind_worker.tasks import attempt_id, state
from hivemind_worker.worker.attempts import keeping

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


@pytest.mark.long
async def test_results_that_a_disk_mounted_anew_does_not_take_cost_no_attempt(tmp_path: Path) -> None:
    with small_disk.mounted(tmp_path / "work", 64) as disk:
        async with (
            pool_parts.running(tmp_path / "pool") as at,
            asynchronous.AsyncClient(at.pool.address) as client,
            node_parts.running(at.pool.address, disk.path / "work", books=tmp_path),
        ):
            await client.wait(await client.submit([COMMAND]), 20)  # its folders are made
            disk.remount(read_only=True)
            (task_id,) = await client.submit([COMMAND])

            async def is_handed_back() -> bool:
                return (await client.task(task_id)).disruptions > 0

            await _until(is_handed_back, "it is handed back")
            disk.remount(read_only=False)
            (ended,) = await client.wait([task_id], 40)
            assert ended.status is state.TaskState.COMPLETED
            assert ended.attempt - ended.disruptions == 1
            assert any("Read-only file system" in event.details for event in (await client.task(task_id)).story)


async def test_what_a_disk_does_not_let_go_of_is_removed_later_and_harms_no_attempt(tmp_path: Path) -> None:
    with small_disk.mounted(tmp_path / "work", 8) as disk:
        files, unsent = store.Store(disk.path), outbox.Outbox(disk.path / "outbox")
        files.prepare()
        unsent.prepare()
        run = attempt_id.RunKey(attempt_id.AttemptId("task", 1), attempt_id.new_run_id())
        await unsent.save(run, b"checkpoint")
        stored, half = files.put(b"result"), files.writer()
        half.write(b"half")
        half.promised = True
        half.close()
        needs = keeping.Keeping(files)
        needs.begin("first")
        needs.stored("first", [stored])
        disk.remount(read_only=True)
        needs.let_go({half.path.name})
        unsent.forget(run)
        needs.end("first")
        assert files.exists(stored.sha256)
        disk.remount(read_only=False)
        needs.begin("second")
        needs.end("second")
        assert not files.exists(stored.sha256)
        files.prepare()
        unsent.prepare()
        assert not [path for path in disk.path.rglob("*") if path.is_file()]
        unsent.close()
