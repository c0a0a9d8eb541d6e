"""Odd cancels are idempotent (P07), oversized tags bounded (P08), and 24 tasks at once never exceed a node (L14)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import node_parts
import pool_parts
import pytest
import pytest_asyncio
import scripted_pool
import waiting

from hivemind_worker import errors, units
from hivemind_worker.client import asynchronous
from hivemind_worker.pool import server
from hivemind_worker.tasks import resources, state
from hivemind_worker.wire import calls

pb = calls.pb
GIB = units.GIB


@pytest_asyncio.fixture
async def pool(tmp_path: Path) -> AsyncIterator[pool_parts.Running]:
    async with pool_parts.running(tmp_path / "pool", lease_seconds=30.0) as found:
        yield found


async def test_p07_cancelling_what_has_ended_twice_or_never_was(pool: pool_parts.Running, tmp_path: Path) -> None:
    async with (
        node_parts.running(pool.pool.address, tmp_path / "work") as node,
        asynchronous.AsyncClient(pool.pool.address) as client,
    ):
        done, runs = await client.submit([{"id": "done", "command": "true"}, {"id": "runs", "command": "sleep 60"}])
        await client.wait(done, 30)
        await waiting.wait_until(lambda: node.runs.running == 1, description="one runs")
        assert await client.cancel([done]) == [state.TaskState.COMPLETED]
        with pytest.raises(errors.NoSuchTask):
            await client.cancel([runs, "never was"])
        assert (await client.task(runs)).cancel_requested is False, "all or none"
        await asyncio.gather(*(client.cancel([runs, runs, done]) for _ in range(10)))
        (ended,) = await client.wait(runs, 30)
        assert (ended.status, ended.attempt) == (state.TaskState.CANCELLED, 1)
        assert await client.cancel([runs]) == [state.TaskState.CANCELLED]
        told = [event.event for event in (await client.task(runs)).story]
        assert (told.count("cancel_requested"), told.count("cancel")) == (1, 1)


async def test_p07_odd_cancels_from_a_pool_touch_nothing_else(tmp_path: Path) -> None:
    pool = scripted_pool.ScriptedPool()
    async with scripted_pool.serving(pool) as address, node_parts.running(address, tmp_path) as node:
        tasks = [pb.Task(id=name, type="command", command="sleep 60", attempt=2) for name in ("hit", "left")]
        await pool.give(*tasks)
        await waiting.wait_until(lambda: node.runs.running == 2, description="both run")
        odd = [
            pb.AttemptRef(), pb.AttemptRef(task_id="unknown", attempt=1), pb.AttemptRef(task_id="left", attempt=1),
            pb.AttemptRef(task_id="left", attempt=3), pb.AttemptRef(task_id="left", attempt=-2**31),
            pb.AttemptRef(task_id="x" * 100_000, attempt=2**31 - 1),
        ]  # fmt: skip
        hit = pb.AttemptRef(task_id="hit", attempt=2)
        pool.beat_answer = pb.UpdateNodeStatusResponse(success=True, cancel=[*odd, hit, hit], drop=odd)
        await waiting.wait_until(lambda: "hit" in pool.ends(), description="the right one ends")
        beats = len(pool.beats)
        await waiting.wait_until(lambda: len(pool.beats) > beats + 2, description="and it is told so again and again")
        assert [held.task_id for held in node.node.snapshot().attempts] == ["left"]
        assert pool.ends()["hit"].status == "cancelled"
        assert len([report for report in pool.reports if report.status == "cancelled"]) == 1


BIG = "x" * 1_000_000


@pytest.mark.parametrize(
    "said",
    [
        {"labels": {"key": BIG}},
        {"labels": {BIG: "value"}},
        {"labels": {f"label{number}": "x" for number in range(5_000)}},
        {"labels": {"a b": "x"}},
        {"node_selector": {"key": BIG}},
        {"id": BIG},
        {"environment": {BIG: "x"}},
    ],
    ids=lambda said: next(iter(said)),
)
async def test_p08_tags_of_a_task_are_refused_by_name(pool: pool_parts.Running, said: dict[str, Any]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await pool.submit(pb.Task(command="true", **said))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert next(iter(said)) in str(refused.value.details())
    assert len(str(refused.value.details())) < 2_000
    assert (await pool.info((await pool.submit())[0])).state == "queued"


async def test_p08_tags_of_a_node_are_bounded(pool: pool_parts.Running) -> None:
    for labels in ({"key": BIG}, {f"l{n}": "x" for n in range(5_000)}):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await pool.worker("big", labels=labels)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    worker = await pool.worker("n", version=BIG, boot_id=BIG[:999], ip_address=BIG, capabilities=[BIG, "command"])
    await worker.beat(status=BIG)
    answer = await pool.nodes.UpdateNodeStatus(
        pb.UpdateNodeStatusRequest(
            node_id="n",
            session_id=worker.session_id,
            status="busy",
            message=BIG,
            readings={BIG: 1.0, "nan": float("nan")},
        )
    )
    assert answer.success
    (known,) = (await pool.tasks.ListNodes(pb.ListNodesRequest())).nodes
    assert known.ByteSize() < 10_000
    assert list(known.readings.values()) == [1.0]


async def test_p08_a_pools_oversized_tags_fail_that_task_alone(tmp_path: Path) -> None:
    pool = scripted_pool.ScriptedPool()
    async with scripted_pool.serving(pool) as address, node_parts.running(address, tmp_path):
        await pool.give(
            pb.Task(id="big", type="command", command="true", attempt=1, labels={"key": BIG}, traceparent=BIG),
            pb.Task(id="odd", type="command", command="true", attempt=1, traceparent=BIG),
            pb.Task(id="good", type="command", command="true", attempt=1),
        )
        await waiting.wait_until(lambda: len(pool.ends()) == 3, description="three ends")
        assert (pool.ends()["big"].result.reason, pool.ends()["good"].status) == ("invalid_task", "completed")
        assert pool.ends()["odd"].status == "completed"
        assert pool.ends()["big"].ByteSize() < 10_000


class _Watch:
    """Looks at a node's reservations whenever the loop comes round."""

    def __init__(self, node: node_parts.Node, most: resources.Resources) -> None:
        self.node, self.most = node, most
        self.looks = 0
        self.over: list[str] = []

    async def run(self) -> None:
        while True:
            lacking = self.node.node.snapshot().reserved.lacking(self.most)
            self.over += lacking
            self.looks += 1
            await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def _watched(node: node_parts.Node, most: resources.Resources) -> AsyncIterator[_Watch]:
    watch = _Watch(node, most)
    looking = asyncio.create_task(watch.run(), name="watch")
    try:
        yield watch
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


async def test_l14_24_tasks_at_once_over_capacity_and_a_node_that_comes_back_smaller(tmp_path: Path) -> None:
    pool = server.NodePool(tmp_path / "pool", lease_seconds=30.0)
    address = await pool.start()
    large = resources.Resources(4.0, 2 * GIB, 64 * GIB)
    small = resources.Resources(1.0, GIB, 64 * GIB)
    try:
        async with asynchronous.AsyncClient(address) as client:
            task = {"command": "sleep 0.2", "cpu_quota": 100_000, "memory_limit": "512m"}
            # Of one size each, and some that fit beside others only just.
            ids = await client.submit([{**task, "cpu_quota": (50_000, 100_000)[n % 2]} for n in range(24)])
            terms: dict[str, Any] = {
                "capacity": large,
                "max_concurrent_tasks": 0,
                "limits": node_parts.limits(most=large),
            }
            async with node_parts.running(address, tmp_path / "one", **terms) as node, _watched(node, large) as watch:
                await waiting.wait_until(lambda: node.node.snapshot().ended >= 8, description="a third", seconds=30)
                assert watch.over == []
                assert node.runs.most_at_once == 4, "memory for four"
            terms = {"capacity": small, "max_concurrent_tasks": 0, "limits": node_parts.limits(most=small)}
            async with node_parts.running(address, tmp_path / "two", **terms) as node, _watched(node, small) as watch:
                ended = await client.wait(ids, 60)
                assert watch.over == []
                assert watch.looks > 50
                assert node.runs.most_at_once == 2, "memory for two, and cores for one or two"
        assert {each.status for each in ended} == {state.TaskState.COMPLETED}
    finally:
        await pool.stop()
