"""Twenty thousand nodes that are gone: telling one task costs no more for them, and they are forgotten after a day."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pool_parts
import pytest
import store_parts

from hivemind_worker.pool.store import expiry, records, sqlite
from hivemind_worker.wire import calls

pb = calls.pb
MIB = 1024**2


def peak_mib() -> float:
    """Highest resident memory since `reset_peak`."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


async def fill(path: Path, clock: store_parts.Clock, count: int) -> None:
    """Have so many nodes register with a store, do a task's first attempt each, and fall silent."""
    store = sqlite.SqliteStore(path, store_parts.LEASE, clock)
    await store.open()
    try:
        for start in range(0, count, 500):
            names = [f"dead-{number:05}" for number in range(start, min(start + 500, count))]
            registered = await asyncio.gather(*(store.register(store_parts.node(name), ()) for name in names))
            beats = [records.Beat(name, one.session_id) for name, one in zip(names, registered, strict=True)]
            await asyncio.gather(*map(store.heartbeat, beats))
        clock.seconds += store_parts.LEASE + 1
        await store.expire()
    finally:
        await store.close()


@pytest.mark.parametrize("count", [5_000, pytest.param(20_000, marks=[pytest.mark.long, pytest.mark.timeout(600)])])
async def test_telling_one_task_costs_no_dead_nodes(tmp_path: Path, count: int) -> None:
    await fill(tmp_path / "pool.sqlite", store_parts.Clock(), count)
    async with pool_parts.running(tmp_path) as at:
        (task_id,) = await at.submit(pb.Task(command="true", docker_image="example/none:1"))
        assert (await at.info(task_id)).waiting_because
        reset_peak()
        before = peak_mib()
        # Where 20,000 nodes were read each time that took 0.8 s.
        async with asyncio.timeout(10):
            for _ in range(100):
                assert "no node is connected" in (await at.info(task_id)).waiting_because
        assert peak_mib() - before < 16
        worker = await at.worker()
        assert (await worker.take()).id == task_id


async def test_nodes_that_are_gone_are_forgotten_after_a_day(tmp_path: Path) -> None:
    count, clock = 3 * expiry.FORGET_AT_ONCE // 2, store_parts.Clock()
    await fill(tmp_path / "pool.sqlite", clock, count)
    store = sqlite.SqliteStore(tmp_path / "pool.sqlite", store_parts.LEASE, clock)
    await store.open()
    try:
        assert await store.lost_nodes() == count
        clock.seconds += expiry.FORGET_SECONDS + store_parts.LEASE
        await store.expire()
        assert await store.lost_nodes() == count - expiry.FORGET_AT_ONCE, "in slices: others wait for each"
        await store.expire()
        assert await store.nodes() == ()
    finally:
        await store.close()
