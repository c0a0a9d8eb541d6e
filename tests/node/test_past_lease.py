"""The pool away for longer than the lease: what runs is finished, or stopped where the owner wants that."""

from __future__ import annotations

import time
from pathlib import Path

import node_parts
import pytest
import waiting

from hivemind_worker.client import asynchronous
from hivemind_worker.concurrency import clock
from hivemind_worker.pool import server

LEASE_SECONDS = 1.0


@pytest.mark.parametrize("stop_past_lease", [True, pytest.param(False, marks=pytest.mark.long)])
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


async def test_l03_a_lease_runs_out_while_the_machine_is_suspended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, suspended = time.clock_gettime, 0.0

    def with_suspension(which: int) -> float:
        return real(which) + (suspended if which == time.CLOCK_BOOTTIME else 0.0)

    monkeypatch.setattr(time, "clock_gettime", with_suspension)
    pool = server.NodePool(tmp_path / "pool", lease_seconds=600.0)
    address = await pool.start()
    try:
        async with node_parts.running(address, tmp_path / "work", stop_past_lease=True) as node:
            async with asynchronous.AsyncClient(address) as client:
                await client.submit({"id": "t", "command": ["sleep", "60"]})
                await waiting.wait_until(lambda: node.runs.running == 1, description="the task runs")
            await pool.stop()
            suspended = 3_600.0
            await waiting.wait_until(lambda: not node.runs.running, description="the task is stopped")
    finally:
        await pool.stop()
