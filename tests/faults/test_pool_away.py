"""The pool away, for moments and for longer than the lease; half-open; back with an empty memory (L03, P04)."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import cutting_proxy
import node_parts
import pytest
import waiting

from hivemind_worker import errors
from hivemind_worker.client import asynchronous
from hivemind_worker.concurrency import clock
from hivemind_worker.pool import server
from hivemind_worker.tasks import state
from hivemind_worker.telemetry import rationed

LEASE = 3.0
TASK = {"cpu_quota": 20_000, "memory_limit": "64m", "disk_limit": "16m"}


@contextlib.asynccontextmanager
async def _apart(
    folder: Path, **terms: object
) -> AsyncIterator[tuple[server.NodePool, cutting_proxy.Line, node_parts.Node]]:
    """A pool, a node, and a line between them that can be parted."""
    pool = server.NodePool(folder / "pool", lease_seconds=float(str(terms.pop("lease_seconds", LEASE))))
    await pool.start()
    try:
        async with (
            cutting_proxy.line(pool.address) as line,
            node_parts.running(line.address, folder / "work", max_concurrent_tasks=0, **terms) as node,
        ):
            yield pool, line, node
    finally:
        await pool.stop()


async def _away(line: cutting_proxy.Line, how: str, seconds: float) -> int:
    """Be away for so long; how many connections were tried meanwhile."""
    before = len(line.accepted)
    line.part() if how == "parted" else line.freeze()
    await asyncio.sleep(seconds)
    tried = len(line.accepted) - before
    line.join()
    return tried


async def _delivered(folder: Path, how: str, seconds: float, tasks: int, **terms: object) -> None:
    """So many tasks end while the pool is away; each is delivered, counts once, and soon after its return."""
    gate = folder / "gate"
    async with _apart(folder, **terms) as (pool, line, node), asynchronous.AsyncClient(pool.address) as client:
        script = f"while [ ! -e {gate} ]; do sleep 0.05; done; echo $0 | tee results/out"
        ids = [f"t{number:02}" for number in range(tasks)]
        await client.submit([{"id": task_id, "command": ["sh", "-c", script, task_id], **TASK} for task_id in ids])
        await waiting.wait_until(lambda: node.runs.running == tasks, description="all run", seconds=30)
        away = asyncio.create_task(_away(line, how, seconds), name="away")
        await asyncio.sleep(min(0.3, seconds / 2))
        await asyncio.to_thread(gate.touch)
        tried = await away
        back_at = clock.now()
        ended = await client.wait(ids, 60)
        took = clock.now() - back_at
        assert {task.status for task in ended} == {state.TaskState.COMPLETED}
        assert sorted(node.runs.ran) == [(task_id, 1) for task_id in ids], "nothing ran twice"
        assert took < 30, f"delivered {took:.0f} s after the return"
        # gRPC's own pauses between tries to connect, with the first few in quick succession.
        assert tried <= seconds + 3, f"{tried} tries to connect in {seconds} s"


@pytest.mark.parametrize("how", ["parted", "half-open"])
async def test_l03_away_for_a_second(tmp_path: Path, how: str) -> None:
    await _delivered(tmp_path, how, 1.0, 4)


async def test_l03_away_for_longer_than_the_lease(tmp_path: Path) -> None:
    await _delivered(tmp_path, "parted", 2 * LEASE, 4)


@pytest.mark.long
@pytest.mark.parametrize("how", ["parted", "half-open"])
async def test_l03_away_for_thirty_seconds(tmp_path: Path, how: str) -> None:
    await _delivered(tmp_path, how, 30.0, 10)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_l03_away_for_ten_minutes_while_fifty_tasks_end(tmp_path: Path) -> None:
    most = node_parts.CAPACITY
    room = type(most)(50.0, 64 * 2**30, most.disk_bytes)
    await _delivered(tmp_path, "parted", 600.0, 50, capacity=room, limits=node_parts.limits(most=room))


async def test_l03_a_pool_that_comes_back_with_an_empty_memory(tmp_path: Path) -> None:
    first = server.NodePool(tmp_path / "pool", lease_seconds=LEASE)
    address = await first.start()
    async with node_parts.running(address, tmp_path / "work") as node:
        async with asynchronous.AsyncClient(address) as client:
            await client.submit({"id": "old", "command": ["sleep", "60"]})
            await waiting.wait_until(lambda: node.runs.running == 1, description="the task runs")
        await first.stop()
        await asyncio.to_thread(shutil.rmtree, tmp_path / "pool")
        second = server.NodePool(tmp_path / "pool", address, lease_seconds=LEASE)
        await second.start()
        try:
            async with asynchronous.AsyncClient(address, patience=30) as client:
                (new,) = await client.submit({"command": "echo new"})
                (task,) = await client.wait(new, 60)
                assert task.status is state.TaskState.COMPLETED
                # What that pool never handed out is nobody's: it is ended, not run on for nothing.
                await waiting.wait_until(lambda: node.runs.running == 0, description="the old task is dropped")
                assert [each.id async for each in client.tasks()] == [new]
        finally:
            await second.stop()


async def test_p04_a_node_that_the_pool_does_not_know_registers_again_and_keeps_its_tasks(tmp_path: Path) -> None:
    async with _apart(tmp_path) as (pool, _line, node), asynchronous.AsyncClient(pool.address) as client:
        await client.submit({"id": "t", "command": "sleep 1; echo kept"})
        await waiting.wait_until(lambda: node.runs.running == 1, description="the task runs")
        session_id = node.node.snapshot().session_id
        await pool.store._write.do(lambda on: on.sql.execute("DELETE FROM nodes").fetchall())
        await pool.store._write.do(lambda on: on.sql.execute("DELETE FROM sessions").fetchall())
        (task,) = await client.wait("t", 30)
        assert (task.status, task.attempt) == (state.TaskState.COMPLETED, 1)
        assert node.runs.ran == [("t", 1)]
        assert node.node.snapshot().session_id not in {"", session_id}


@pytest.mark.long
async def test_p03_a_flapping_pool_fills_no_log_and_work_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        _apart(tmp_path, lease_seconds=30.0) as (pool, line, node),
        asynchronous.AsyncClient(pool.address) as client,
    ):
        await waiting.wait_until(lambda: node.node.snapshot().connected, description="the node is there")
        (long,) = await client.submit({"command": "sleep 4; echo through it all"})
        for number in range(30):
            line.part()
            await asyncio.sleep(0.05)
            line.join()
            await asyncio.sleep(0.1)
            # And it is a pool that forgets: each time it is there, another trouble than the last.
            if number % 5 == 0:
                node.node._line.forget(node.node._line.id, f"forgotten, {number}")
        (new,) = await client.submit({"command": "echo after it"})
        for task in await client.wait([long, new], 60):
            assert (task.status, task.attempt) == (state.TaskState.COMPLETED, 1)
    told = [record for record in caplog.records if record.levelname in {"WARNING", "ERROR"}]
    kinds = ("session_lost", "pool_unreachable", "heartbeat_failed", "poll_failed", "registered")
    assert {kind: n for kind in kinds if (n := caplog.text.count(f"'{kind}'")) > rationed.MOST} == {}
    assert len(told) <= 4 * rationed.MOST


async def test_a_poll_goes_out_again_once_a_heartbeat_was_answered(tmp_path: Path) -> None:
    async with (
        _apart(tmp_path, lease_seconds=30.0) as (pool, line, node),
        asynchronous.AsyncClient(pool.address) as client,
    ):
        await waiting.wait_until(lambda: node.node.snapshot().connected, description="the node is there")
        pauses = node.node._intake._pauses
        line.part()
        await waiting.wait_until(lambda: pauses.attempt > 0, description="a poll failed")
        pauses.attempt = 50  # as after hours: up to 15 s until the next try
        line.join()
        (task_id,) = await client.submit({"command": "true"})
        back_at = clock.now()
        await client.wait(task_id, 60)
        assert clock.now() - back_at < 8, "gRPC's pause, a heartbeat's, and a second"


@pytest.mark.long
async def test_a_node_that_fails_by_its_own_fault_takes_few_before_its_first_report_comes_through(
    tmp_path: Path,
) -> None:
    async with (
        _apart(tmp_path, lease_seconds=30.0) as (pool, line, node),
        asynchronous.AsyncClient(pool.address) as client,
    ):
        await waiting.wait_until(lambda: node.node.snapshot().connected, description="the node is there")
        node.runs.raises = errors.EngineLost("gone")
        line.delay_seconds = 0.1
        ids = await client.submit([{"command": "true", "max_attempts": 50, **TASK} for _ in range(60)])
        began = clock.now()
        await waiting.wait_until(lambda: clock.now() - began > 2, description="two seconds", seconds=5)
        # Room for 20 at once; one answer of them, then a second's rest here and there.
        assert len(node.runs.ran) <= 4 * 20
        node.runs.raises = None
        assert {task.status for task in await client.wait(ids, 100)} == {state.TaskState.COMPLETED}
