"""The pool's disk is full for longer than the lease: nobody loses a task."""

from __future__ import annotations

import asyncio
from pathlib import Path

import node_parts
import pytest
import small_disk
import waiting

from hivemind_worker import errors
from hivemind_worker.client import asynchronous
from hivemind_worker.concurrency import clock
from hivemind_worker.pool import server
from hivemind_worker.tasks import state

LEASE = 2.0


@pytest.mark.skipif(not small_disk.can_mount(), reason="needs root, to mount a small disk")
async def test_a_full_disk_refuses_loses_nothing_and_is_nobodys_fault(tmp_path: Path) -> None:
    with small_disk.mounted(tmp_path / "disk", 24) as disk:
        pool = server.NodePool(disk.path, lease_seconds=LEASE)
        address = await pool.start()
        try:
            async with (
                node_parts.running(address, tmp_path / "work") as node,
                asynchronous.AsyncClient(address, patience=0.2) as client,
            ):
                gate = tmp_path / "gate"
                script = f"while [ ! -e {gate} ]; do sleep 0.05; done; echo kept > results/out"
                await client.submit({"id": "runs", "command": script})
                await waiting.wait_until(lambda: node.runs.running == 1, description="the task runs")
                await asyncio.to_thread(disk.fill)
                full_at = clock.now()
                # What is free within SQLite's own files goes first.
                large = [{"id": f"t{number}", "command": "true " + "x" * 50_000} for number in range(60)]
                with pytest.raises(errors.Unavailable, match="disk is full"):
                    await client.submit(large)
                assert (await client.task("runs")).id == "runs", "what is there can be read"
                await waiting.wait_until(
                    lambda: clock.now() - full_at > 2 * LEASE, description="two leases have passed"
                )
                await asyncio.to_thread(disk.clear)
                await asyncio.to_thread(gate.touch)
                async with asynchronous.AsyncClient(address, patience=20) as later:
                    await later.submit({"id": "after", "command": "true"})
                    runs, after = await later.wait(["runs", "after"], 60)
                assert (runs.status, runs.attempt, after.status) == (
                    state.TaskState.COMPLETED, 1, state.TaskState.COMPLETED,
                )  # fmt: skip
                assert node.runs.ran.count(("runs", 1)) == 1
        finally:
            await pool.stop()
