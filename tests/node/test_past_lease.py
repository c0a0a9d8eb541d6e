"""The pool away for longer than the lease: what runs is finished, or stopped where the owner wants that."""

from __future__ import annotations

from pathlib import Path

import node_parts
import pytest
import waiting

from hivemind_worker.client import asynchronous
from hivemind_worker.concurrency import clock
from hivemind_worker.nodepool import server

LEASE_SECONDS = 1.0


@pytest.mark.parametrize("stop_past_lease", [True, False])
async def test_l03_a_pool_away_for_longer_than_the_lease(tmp_path: Path, stop_past_lease: bool) -> None:
    pool = server.NodePool(tmp_path / "pool", lease_seconds=LEASE_SECONDS)
    address = await pool.start()
    try:
        async with node_parts.running(address, tmp_path / "work", stop_past_lease=stop_past_lease) as node:
            async with asynchronous.AsyncClient(address) as client:
                await client.submit({"id": "t", "command": ["sleep", "60"]})
                await waiting.wait_until(
                    lambda: [held.phase for held in node.node.snapshot().attempts] == ["running"],
                    description="the task runs",
                )
            await pool.stop()
            gone_at = clock.now()
            if stop_past_lease:
                await waiting.wait_until(lambda: not node.runs.running, description="the task is stopped")
                assert clock.now() - gone_at >= LEASE_SECONDS / 2, "not before the lease is over"
                pool = server.NodePool(tmp_path / "pool", address, lease_seconds=LEASE_SECONDS)
                await pool.start()
                # Handed back, not forgotten: what runs now is another attempt.
                await waiting.wait_until(lambda: node.runs.running, description="it runs again", seconds=30)
                assert node.runs.ran == [("t", 1), ("t", 2)]
            else:
                await waiting.wait_until(
                    lambda: clock.now() - gone_at > 3 * LEASE_SECONDS, description="three leases have passed"
                )
                assert [held.phase for held in node.node.snapshot().attempts] == ["running"]
    finally:
        await pool.stop()
