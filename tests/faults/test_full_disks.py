"""Disks that are full: the pool hands out nothing that it could not take, nodes wait, and all goes on by itself."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import node_parts
import pool_parts
import pytest
import small_disk
import waiting

from hivemind_worker.client import asynchronous
from hivemind_worker.nodepool import free_space
from hivemind_worker.wire import calls

pb = calls.pb
MIB = 1024**2

pytestmark = pytest.mark.skipif(not small_disk.can_mount(), reason="only root may mount a disk to fill")


async def test_a_full_artifact_disk_costs_no_result_and_makes_nobody_spin(tmp_path: Path) -> None:
    with small_disk.mounted(tmp_path / "disk", 16) as disk:
        async with (
            pool_parts.running(tmp_path / "pool", artifact_folder=disk.path / "artifacts") as at,
            node_parts.running(at.pool.address, tmp_path / "node", undelivered_count=100) as node,
            asynchronous.AsyncClient(at.pool.address) as client,
        ):
            (first,) = await client.submit({"command": "true"})
            await client.wait(first, 30)
            disk.fill()
            ids = await client.submit([{"command": f"echo {n} > results/f"} for n in range(300)])
            await waiting.wait_until(lambda: not at.pool.health.ready()[0], description="the pool is not ready")
            assert "free, less than pool_min_free_bytes" in at.pool.health.ready()[1]
            info = await client.info()
            assert info.unready_reasons
            polls = _polls(at)
            await asyncio.sleep(3)  # what is not to happen takes its time
            assert _polls(at) - polls <= 12, "a node that is given nothing asks now and then"
            # Some had been handed out before the pool saw it; a node takes no more than it has slots for.
            held = len(node.node.snapshot().attempts)
            assert held <= 64
            waits = [task async for task in client.tasks() if task.status == "queued"]
            assert "free, less than" in waits[0].waiting_because
            disk.clear()
            ended = await client.wait(ids, 60)
            assert {task.status for task in ended} == {"completed"}
            assert {task.attempt for task in ended} == {1}
            assert at.pool.health.ready() == (True, "")


def _polls(at: pool_parts.Running) -> int:
    text = b"".join(_exposed(at)).decode()
    return int(
        float(
            text.split('hivemind_pool_call_seconds_count{method="GetAssignedTasks",result="answered"} ')[1].split()[0]
        )
    )


def _exposed(at: pool_parts.Running) -> list[bytes]:
    return [at.pool._parts.told._meters.exposition()[0]]


async def test_a_node_with_too_many_ends_undelivered_begins_nothing_more(tmp_path: Path) -> None:
    with small_disk.mounted(tmp_path / "disk", 16) as disk:
        async with (
            # A pool that does not look at its disk's room: this is the node's own side.
            pool_parts.running(tmp_path / "pool", artifact_folder=disk.path / "artifacts", min_free_bytes=0) as at,
            node_parts.running(at.pool.address, tmp_path / "node", undelivered_count=5) as node,
            asynchronous.AsyncClient(at.pool.address) as client,
        ):
            at.pool._space._stat = _plenty  # type: ignore[assignment]
            at.pool._space.write_failed = lambda _error: None  # type: ignore[method-assign,assignment]
            disk.fill()
            ids = await client.submit([{"command": f"echo {n} > results/f"} for n in range(80)])
            await waiting.wait_until(
                lambda: node.node._books.outbox.full, description="five ends wait for the pool", seconds=20
            )
            held = len(node.node.snapshot().attempts)
            await asyncio.sleep(2)
            assert len(node.node.snapshot().attempts) <= max(held, 5 + 4)
            disk.clear()
            ended = await client.wait(ids, 90)
            assert {task.status for task in ended} == {"completed"}


def _plenty(path: Path) -> object:
    return os.statvfs(path.parent.parent.parent)


async def test_a_write_that_fails_makes_the_pool_unready_until_one_succeeds(tmp_path: Path) -> None:
    with small_disk.mounted(tmp_path / "disk", 16) as disk:
        async with pool_parts.running(tmp_path / "pool", artifact_folder=disk.path / "artifacts") as at:
            worker = await at.worker()
            disk.fill()
            at.pool._space.write_failed(OSError(28, "No space left on device"))
            await at.submit()
            assert not (await worker.poll(0.2)).tasks
            disk.clear()
            await waiting.wait_until(lambda: at.pool.health.ready()[0], description="ready again", seconds=20)
            assert len((await worker.poll(10)).tasks) == 1


async def test_an_input_leaves_the_room_that_results_need(tmp_path: Path) -> None:
    with small_disk.mounted(tmp_path / "disk", 16) as disk:
        async with pool_parts.running(tmp_path / "pool", artifact_folder=disk.path / "artifacts") as at:
            size = disk.free_bytes - free_space.MIN_FREE_INODES  # fits, but leaves less than the mark
            request = pb.UploadInputRequest(sha256="a" * 64, size=size)
            with pytest.raises(Exception, match="no room there now"):
                await at.tasks.UploadInput(iter([request]))
            worker = await at.worker()
            upload = pb.UploadArtifactRequest(node_id="n", session_id=worker.session_id, sha256="a" * 64, size=size)
            assert (await at.nodes.UploadArtifact(iter([upload]))).stored_bytes == 0
