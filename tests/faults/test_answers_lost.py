"""Every call of both services: its answer lost or cut, done twice, never arrived (L10). All is done once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import chaos_evidence
import grpc_proxy
import history
import invariants
import node_parts
import pool_parts
import pytest
import pytest_asyncio
import waiting

from hivemind_worker.client import asynchronous
from hivemind_worker.tasks import state
from hivemind_worker.wire import calls
from hivemind_worker.worker.pool_link import client as pool_client

CONTENT = bytes(range(256)) * 12_000
HOWS = ("lost", "twice", *(pytest.param(how, marks=pytest.mark.long) for how in ("dropped", "cut")))
pb = calls.pb


def every_call(service: str) -> set[str]:
    return {method.name for method in pb.DESCRIPTOR.services_by_name[service].methods}


@pytest_asyncio.fixture
async def pool(tmp_path: Path) -> AsyncIterator[pool_parts.Running]:
    async with pool_parts.running(tmp_path / "pool", lease_seconds=30.0) as found:
        yield found


@pytest.mark.parametrize("how", HOWS)
async def test_l10_a_workers_calls(pool: pool_parts.Running, tmp_path: Path, how: str) -> None:
    met = sorted(every_call("NodeManager") - {"Ping"})  # which a worker does not need
    times = 1 if how == "twice" else 2  # one that is answered need not be made again
    faults = [grpc_proxy.Fault(call, how, times=times) for call in met]
    script = "cat in; echo end of it; cp in results/out; sleep 0.3"
    expected = history.Expected(
        files={"out": hashlib.sha256(CONTENT).hexdigest()}, stdout_bytes=len(CONTENT) + len("end of it\n")
    )
    async with (
        asynchronous.AsyncClient(pool.pool.address) as client,
        grpc_proxy.before(pool.pool.address, *faults) as proxy,
        node_parts.running(proxy.address, tmp_path / "work") as node,
    ):
        (tmp_path / "in").write_bytes(CONTENT)
        task = {"command": script, "input_files": {"in": {"file": "in"}}, "cpu_quota": 50_000}
        ids = await client.submit([task] * 4, base=tmp_path)
        ended = await client.wait(ids, 60)
        assert {each.status for each in ended} == {state.TaskState.COMPLETED}
        # An upload that the pool has already is not made again, so the calls are met by one task or the other.
        assert {fault.call: fault.met for fault in faults} == dict.fromkeys(met, times)
        assert sorted(node.runs.ran) == sorted((task_id, 1) for task_id in ids)
    found = _judged(tmp_path, dict.fromkeys(ids, expected))
    assert {task.attempt for task in found} == {1}


def _judged(tmp_path: Path, expected: dict[str, history.Expected]) -> tuple[history.Task, ...]:
    tasks = chaos_evidence.tasks(tmp_path / "pool" / "pool.sqlite")
    stored = chaos_evidence.stored(tmp_path / "pool" / "artifacts")
    assert invariants.check(history.History(expected, tasks, 30.0, 2.0, stored=stored)) == []
    return tasks


@pytest.mark.parametrize("how", HOWS)
async def test_l10_a_submitters_calls(pool: pool_parts.Running, tmp_path: Path, how: str) -> None:
    met = sorted(every_call("TaskManager"))
    faults = [grpc_proxy.Fault(call, how, times=1) for call in met]
    (tmp_path / "in").write_bytes(os.urandom(3_000_000))
    async with (
        grpc_proxy.before(pool.pool.address, *faults) as proxy,
        asynchronous.AsyncClient(proxy.address, patience=30) as client,
        node_parts.running(pool.pool.address, tmp_path / "work") as node,
    ):
        await waiting.wait_until(lambda: node.node.snapshot().connected, description="the worker is there")
        assert (await client.info()).nodes == 1
        assert len(await client.nodes()) == 1
        await client.drain("node-1")
        task = {"command": "cat in > results/out; echo said", "input_files": {"in": {"file": "in"}}}
        (first,) = await client.submit(task, base=tmp_path)
        await client.resume("node-1")
        (ended,) = await client.wait(first, 60)
        assert (ended.status, ended.attempt) == (state.TaskState.COMPLETED, 1)
        assert [file.name for file in await client.results(first)] == ["out"]
        await client.download(first, tmp_path / "fetched")
        assert (tmp_path / "fetched" / "out").read_bytes() == (tmp_path / "in").read_bytes()
        assert b"".join([piece.data async for piece in client.logs(first)]) == b"said\n"
        assert (await client.task(first)).id == first
        assert await client.cancel(first) == [state.TaskState.COMPLETED]
        (second,) = await client.retry(first)
        # One is asked for, several are watched.
        both = {each.id: each for each in await client.wait([first, second], 60)}
        assert both[second].retry_of == first
        assert {each.id async for each in client.tasks()} == {first, second}
    assert {fault.call: fault.met for fault in faults} == dict.fromkeys(met, 1)


@pytest.mark.long
async def test_l10_a_call_that_hangs_is_given_up_and_made_again(
    pool: pool_parts.Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_client, "CALL_SECONDS", 0.5)
    monkeypatch.setattr(pool_client, "POLL_SLACK_SECONDS", 0.5)
    hung = sorted(every_call("NodeManager") - {"Ping", "DownloadArtifact"})
    faults = [grpc_proxy.Fault(call, "hung") for call in hung]
    async with (
        grpc_proxy.before(pool.pool.address, *faults) as proxy,
        node_parts.running(proxy.address, tmp_path / "work", poll_seconds=0.5) as node,
    ):
        ids = await pool.submit(pb.Task(command="echo said; echo kept > results/out; sleep 0.3"))

        async with asynchronous.AsyncClient(pool.pool.address) as client:
            (ended,) = await client.wait(ids, 60)
        assert ended.status is state.TaskState.COMPLETED
        assert {fault.call for fault in faults if fault.met} == set(hung)
        assert node.runs.ran == [(ids[0], 1)]


async def test_an_answer_that_is_late_is_no_reason_to_ask_for_more(pool: pool_parts.Running, tmp_path: Path) -> None:
    late = [grpc_proxy.Fault(call, "late", times=3, seconds=0.4) for call in ("ReportTaskResult", "GetAssignedTasks")]
    async with (
        grpc_proxy.before(pool.pool.address, *late) as proxy,
        node_parts.running(proxy.address, tmp_path / "work") as node,
    ):
        ids = await pool.submit(*[pb.Task(command="true")] * 6)
        await waiting.wait_until(lambda: node.node.snapshot().ended == 6, description="all have ended", seconds=30)
        assert sorted(node.runs.ran) == sorted((task_id, 1) for task_id in ids)
