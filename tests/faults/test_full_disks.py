"""Disks that are full: the pool hands out nothing that it could not take, nodes wait, and all goes on by itself."""

from __future__ import annotations

from pathlib import Path

import node_parts
import pool_parts
import pytest
import small_disk
import waiting

from hivemind_worker.cli import probing
from hivemind_worker.client import asynchronous
from hivemind_worker.pool import free_space
from hivemind_worker.settings import sources
from hivemind_worker.wire import calls

pb = calls.pb
MIB = 1024**2

pytestmark = pytest.mark.skipif(not small_disk.can_mount(), reason="only root may mount a disk to fill")


@pytest.mark.long
async def test_a_full_artifact_disk_costs_no_result_and_makes_nobody_spin(tmp_path: Path) -> None:
    with small_disk.mounted(tmp_path / "disk", 16) as disk:
        async with (
            pool_parts.running(tmp_path / "pool", artifact_folder=disk.path / "artifacts", lease_seconds=6) as at,
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
            (row,) = await probing.pool(sources.load({"node_pool_address": at.pool.address}, {}))
            assert not row.in_force
            assert "less than pool_min_free_bytes" in row.why
            polls = _calls(at, "GetAssignedTasks")
            await _heartbeats(at, 2)
            assert _calls(at, "GetAssignedTasks") - polls <= 12, "a node that is given nothing asks now and then"
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


def _calls(at: pool_parts.Running, method: str) -> int:
    """How many calls the pool has answered, by its own metrics."""
    text = at.pool._parts.told._meters.exposition()[0].decode()
    counted = f'hivemind_pool_call_seconds_count{{method="{method}",result="answered"}} '
    return int(float(text.split(counted)[1].split()[0]))


async def _heartbeats(at: pool_parts.Running, count: int) -> None:
    """Wait for so many: they come every two seconds here, whatever else the node does."""
    until = _calls(at, "UpdateNodeStatus") + count
    await waiting.wait_until(
        lambda: _calls(at, "UpdateNodeStatus") >= until, description=f"{count} heartbeats", seconds=60
    )


@pytest.mark.long
async def test_a_node_with_too_many_ends_undelivered_begins_nothing_more(tmp_path: Path) -> None:
    with small_disk.mounted(tmp_path / "disk", 16) as disk:
        async with (
            pool_parts.running(tmp_path / "pool", artifact_folder=disk.path / "artifacts", lease_seconds=6) as at,
            node_parts.running(at.pool.address, tmp_path / "node", undelivered_count=5) as node,
            asynchronous.AsyncClient(at.pool.address) as client,
        ):
            # Above the mark, so that the pool hands out, and not enough for any result: this is the node's own side.
            disk.fill(leave_bytes=2 * MIB)
            made = {"command": f"head -c {4 * MIB} /dev/zero > results/f"}
            ids = await client.submit([made] * 80)
            await waiting.wait_until(
                lambda: node.node._books.outbox.full, description="five ends wait for the pool", seconds=60
            )
            assert at.pool.health.ready() == (True, "")
            held = len(node.node.snapshot().attempts)
            await _heartbeats(at, 2)
            assert len(node.node.snapshot().attempts) <= max(held, 5 + 4)
            disk.clear()
            ended = await client.wait(ids, 90)
            assert {task.status for task in ended} == {"completed"}


async def test_a_disk_without_inodes_makes_the_pool_unready_and_it_recovers(tmp_path: Path) -> None:
    with small_disk.mounted(tmp_path / "disk", 16, inodes=400) as disk:
        async with pool_parts.running(tmp_path / "pool", artifact_folder=disk.path / "artifacts") as at:
            worker = await at.worker()
            files = [disk.path / f"{number}" for number in range(disk.free_inodes - 5)]  # the mark is at 20
            for file in files:
                file.touch()
            await waiting.wait_until(lambda: not at.pool.health.ready()[0], description="not ready", seconds=20)
            assert "inodes free, less than 20" in at.pool.health.ready()[1]
            await at.submit()
            assert not (await worker.poll(0.2)).tasks
            for file in files:
                file.unlink()
            await waiting.wait_until(lambda: at.pool.health.ready()[0], description="ready again", seconds=20)
            assert len((await worker.poll(10)).tasks) == 1


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
