"""What a running task uses and where it is in its trace: from the capsule, by heartbeats, to whoever asks the pool."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import node_parts
import pool_parts
import pytest
import pytest_asyncio
import waiting

from hivemind_worker.client import asynchronous, shapes
from hivemind_worker.pool import server
from hivemind_worker.runtime.capsule import accounts
from hivemind_worker.tasks import state
from hivemind_worker.telemetry import tracing
from hivemind_worker.wire import calls

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
QUICK = dataclasses.replace(node_parts.WHATEVER, interval=0.05)


@pytest_asyncio.fixture
async def pool(tmp_path: Path) -> AsyncIterator[server.NodePool]:
    made = server.NodePool(tmp_path / "pool", lease_seconds=5.0)
    await made.start()
    yield made
    await made.stop()


def _command(text: str, **more: Any) -> dict[str, Any]:
    return {"command": text, "memory_limit": "64m", "cpu_quota": 20_000, **more}


async def _until(look: Callable[[], bool | Awaitable[bool]], description: str) -> None:
    await waiting.wait_until(look, description=description, seconds=5)


async def test_what_a_running_task_uses_is_seen_at_the_pool_and_gone_with_it(
    pool: server.NodePool, tmp_path: Path
) -> None:
    async with (
        asynchronous.AsyncClient(pool.address) as client,
        node_parts.running(pool.address, tmp_path / "work", fitness=QUICK) as node,
    ):
        (task_id,) = await client.submit(_command("sleep 60"))
        await _until(lambda: node.runs.running == 1, "it runs")
        reading = accounts.Reading(cpu_seconds=1.5, memory_bytes=4096, peak_memory_bytes=8192, processes_now=3)
        node.runs.used = {(task_id, 1): accounts.Usage(time.time(), reading, cpu_percent=75.0)}

        async def used() -> bool:
            return bool((await client.task(task_id)).usage)

        await _until(used, "the pool knows what it uses")
        task = await client.task(task_id)
        assert task.phase == "running"
        wall = task.usage["wall_seconds"]
        assert 0 < wall < 60
        wanted = {
            "wall_seconds": wall, "cpu_seconds": 1.5, "memory_bytes": 4096, "peak_memory_bytes": 8192,
            "processes": 3, "cpu_percent": 75.0,
        }  # fmt: skip
        assert task.usage == wanted
        assert task.as_json()["usage"] == wanted
        (held,) = (await client.nodes())[0].attempts
        assert (held.task_id, held.attempt, held.phase, held.usage["memory_bytes"]) == (task_id, 1, "running", 4096)
        (listed,) = [task async for task in client.tasks()]
        assert listed.usage["cpu_percent"] == 75.0
        (shown,) = node.node.snapshot().attempts
        assert shown.usage is not None
        assert shown.usage.as_json()["memory_usage"] == 4096
        assert node.node.snapshot().machine["cpu"]["count"] >= 1
        await client.cancel(task_id)
        (ended,) = await client.wait(task_id, 10)
        assert (ended.usage, ended.phase) == ({}, "")
        assert pool._parts.live._said == {}


async def test_the_trace_of_the_submitter_reaches_the_task_and_the_log(
    pool: server.NodePool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        asynchronous.AsyncClient(pool.address, traceparent=TRACE) as traced,
        asynchronous.AsyncClient(pool.address) as untraced,
        node_parts.running(pool.address, tmp_path / "work", fitness=QUICK) as node,
    ):
        caplog.set_level("INFO", "hivemind")
        ids = [
            *await traced.submit(_command("echo $TRACEPARENT")),
            *await untraced.submit(_command("echo $TRACEPARENT")),
        ]
        own = await traced.submit(_command("echo $TRACEPARENT", environment={"TRACEPARENT": "mine"}))
        ended = await traced.wait([*ids, *own], 10)
        assert {task.status for task in ended} == {state.TaskState.COMPLETED}
        inside = [tracing.read(_output(task)) for task in ended[:2]]
        kept = [tracing.read((await traced.task(task_id)).traceparent) for task_id in ids]
        parent = tracing.read(TRACE)
        assert parent
        assert inside[0]
        assert inside[1]
        assert kept[0]
        assert kept[1]
        # One trace, three spans: the submitter's own, the task's, the attempt's.
        assert parent.trace_id == kept[0].trace_id == inside[0].trace_id
        assert len({parent.span_id, kept[0].span_id, inside[0].span_id}) == 3
        assert inside[1].trace_id == kept[1].trace_id != parent.trace_id
        assert _output(ended[2]) == "mine"
        await _until(lambda: node.node.snapshot().ended == 3, "all are behind it")
    events = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    traced_events = [event for event in events if event["details"].get("trace_id") == parent.trace_id]
    assert {"attempt_ended"} <= {event["event_type"] for event in traced_events}
    assert {event["task_id"] for event in traced_events} == {ids[0], own[0]}


def _output(task: shapes.Task) -> str:
    assert task.result is not None
    return task.result.logs.text.decode().strip()


async def test_a_node_s_odd_words_and_old_attempts_are_no_part_of_what_the_pool_tells(tmp_path: Path) -> None:
    pb = calls.pb
    async with pool_parts.running(tmp_path) as at:
        worker = await at.worker()
        (task_id,) = await at.submit()
        task = await worker.take()
        used = pb.AttemptRef(task_id=task_id, attempt=1, phase="running", usage=pb.Usage(memory_bytes=4096))
        others = [pb.AttemptRef(task_id=task_id, attempt=7, usage=pb.Usage(memory_bytes=1)),
                  pb.AttemptRef(task_id="unknown", attempt=1, usage=pb.Usage(memory_bytes=1))]  # fmt: skip
        for held in ([used], [used, *others]):
            await at.nodes.UpdateNodeStatus(
                pb.UpdateNodeStatusRequest(
                    node_id="n", session_id=worker.session_id, status="a" * 200, held=held, readings={"x": 1.0}
                )
            )
            assert (await at.info(task_id)).usage.memory_bytes == 4096
        assert (await at.info(task_id)).phase == "running"
        text, _ = await at.pool.metrics()
        assert b'hivemind_pool_nodes{status="other"} 1.0' in text
        assert b"aaaa" not in text
        await worker.beat()  # it holds it no more, whatever that means
        assert not (await at.info(task_id)).HasField("usage")
        await worker.beat(task)
        assert (await at.info(task_id)).phase == ""
        await worker.report(task)
        await worker.beat(task)  # sent before it heard that the report was accepted
        assert at.pool._parts.live._said == {}
