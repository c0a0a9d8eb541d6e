"""One task submitted and waited for in one call: kept before anybody waits, whatever becomes of the caller."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import grpc_proxy
import node_parts
import pool_parts
import pytest
import waiting
from scripted_pool import serving

from hivemind_worker.client import asynchronous, following
from hivemind_worker.nodepool import streams
from hivemind_worker.task import errors, state
from hivemind_worker.wire import calls

pb = calls.pb

TASK = {"command": "true"}


class _OlderPool(calls.TaskManagerServicer):
    """Knows of no waiting in SubmitTasks."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def SubmitTasks(  # noqa: N802
        self, request: pb.SubmitTasksRequest, _: calls.Context
    ) -> pb.SubmitTasksResponse:
        self.calls.append("SubmitTasks")
        return pb.SubmitTasksResponse(success=True, task_ids=[task.id for task in request.tasks])

    async def GetTask(self, request: pb.GetTaskRequest, _: calls.Context) -> pb.GetTaskResponse:  # noqa: N802
        self.calls.append("GetTask")
        return pb.GetTaskResponse(task=pb.TaskInfo(id=request.task_id, state="completed"))


async def _first_task(at: pool_parts.Running) -> str:
    """The id of the only task, once the pool has it."""

    async def found() -> list[str]:
        return [task.id for task in (await at.tasks.ListTasks(pb.ListTasksRequest())).tasks]

    look: Callable[[], list[str] | Awaitable[list[str]]] = found
    task_id: str
    (task_id,) = await waiting.wait_until(look, description="the task is kept", seconds=20)
    return task_id


async def test_one_call_does_it(tmp_path: Path) -> None:
    async with pool_parts.running(tmp_path / "pool") as at:
        faults = [grpc_proxy.Fault(call, "dropped", times=1_000) for call in ("GetTask", "WatchTasks")]
        async with (
            grpc_proxy.before(at.pool.address, *faults) as proxy,
            asynchronous.AsyncClient(proxy.address) as client,
            node_parts.running(at.pool.address, tmp_path / "work"),
        ):
            task = await client.run({"command": "echo said", "id": "mine"}, seconds=60)
        assert (task.id, task.status, task.exit_code) == ("mine", state.TaskState.COMPLETED, 0)
        assert task.result is not None
        assert task.result.logs.text == b"said\n"
        assert [fault.met for fault in faults] == [0, 0]


@pytest.mark.parametrize("how", ["lost", "twice", "dropped", "cut"])
async def test_a_call_that_is_made_again_runs_the_task_once(tmp_path: Path, how: str) -> None:
    async with pool_parts.running(tmp_path / "pool") as at:
        fault = grpc_proxy.Fault("SubmitTasks", how, times=1)
        async with (
            grpc_proxy.before(at.pool.address, fault) as proxy,
            asynchronous.AsyncClient(proxy.address) as client,
            node_parts.running(at.pool.address, tmp_path / "work") as node,
        ):
            task = await client.run(TASK, seconds=60)
            assert (task.status, fault.met) == (state.TaskState.COMPLETED, 1)
            assert node.runs.ran == [(task.id, 1)]
            assert [each.id async for each in client.tasks()] == [task.id]


async def test_the_task_outlives_its_caller(tmp_path: Path) -> None:
    async with pool_parts.running(tmp_path / "pool") as at, asynchronous.AsyncClient(at.pool.address) as client:
        runs = asyncio.create_task(client.run(TASK))
        task_id = await _first_task(at)
        runs.cancel()
        await asyncio.wait({runs})
        assert runs.cancelled()
        worker = await at.worker()
        await worker.report(await worker.take())
        (task,) = await client.wait(task_id, 20)
        assert (task.status, task.cancel_requested) == (state.TaskState.COMPLETED, False)


async def test_a_caller_waits_no_longer_than_it_said(tmp_path: Path) -> None:
    async with pool_parts.running(tmp_path / "pool") as at, asynchronous.AsyncClient(at.pool.address) as client:
        with pytest.raises(TimeoutError, match=r"mine has not ended after 0\.05 s"):
            await client.run({**TASK, "id": "mine"}, seconds=0.05)
        assert (await at.info("mine")).state == "queued"


async def test_a_long_task_is_waited_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "WAIT_SECONDS", 0.05)
    async with pool_parts.running(tmp_path / "pool") as at, asynchronous.AsyncClient(at.pool.address) as client:
        runs = asyncio.create_task(client.run(TASK, seconds=60))
        worker = await at.worker()
        task = await worker.take()
        await worker.report(task, "running")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(runs), 0.2)
        await worker.report(task)
        assert (await runs).status is state.TaskState.COMPLETED


async def test_an_older_pool_is_asked_for_the_end(tmp_path: Path) -> None:
    del tmp_path
    older = _OlderPool()  # type: ignore[abstract]  # the other calls are never made
    async with serving(older) as address, asynchronous.AsyncClient(address) as client:
        task = await client.run(TASK, seconds=20)
    assert (task.status, older.calls) == (state.TaskState.COMPLETED, ["SubmitTasks", "GetTask"])


async def test_a_large_result_comes_whole(tmp_path: Path) -> None:
    async with pool_parts.running(tmp_path / "pool") as at, asynchronous.AsyncClient(at.pool.address) as client:
        runs = asyncio.create_task(client.run(TASK, seconds=60))
        worker = await at.worker()
        await worker.report(await worker.take(), logs="x" * 100_000)
        task = await runs
        assert task.result is not None
        assert len(task.result.logs.text) == 100_000


async def test_submissions_that_wait_keep_nobody_from_work(tmp_path: Path) -> None:
    budgets = streams.Streams()
    reading, work = budgets.requests.reading, budgets.requests.work
    async with pool_parts.running(tmp_path / "pool", budgets=budgets) as at:
        # More than the pool works on for one caller.
        large = {"a": bytes(700_000)}
        requests = [
            pb.SubmitTasksRequest(tasks=[pb.Task(id=f"t-{n}", command="true", input_files=large)], wait_seconds=60)
            for n in range(60)
        ]
        waits = [asyncio.ensure_future(at.tasks.SubmitTasks(request)) for request in requests]
        await waiting.wait_until(lambda: reading.used_bytes > 0, description="they come", seconds=20)
        await waiting.wait_until(
            lambda: reading.used_bytes == work.used_bytes == 0, description="they wait, and count no more", seconds=30
        )
        assert not [each for each in waits if each.done()]
        await at.pool.stop()
        answers = await asyncio.gather(*waits)
        assert [(answer.success, answer.HasField("task")) for answer in answers] == [(True, False)] * 60


async def test_what_cannot_be_waited_for(tmp_path: Path) -> None:
    async with pool_parts.running(tmp_path / "pool") as at:
        two = pb.SubmitTasksRequest(tasks=[pb.Task(command="true")] * 2, wait_seconds=60)
        answer = await asyncio.wait_for(at.tasks.SubmitTasks(two), 30)
        assert (len(answer.task_ids), answer.HasField("task")) == (2, False)
        with pytest.raises(grpc.aio.AioRpcError, match="wait_seconds"):
            await at.tasks.SubmitTasks(pb.SubmitTasksRequest(tasks=two.tasks[:1], wait_seconds=float("inf")))
        async with asynchronous.AsyncClient(at.pool.address) as client:
            await client.submit({**TASK, "id": "other"})
            with pytest.raises(errors.Conflict):
                await client.run({"command": "false", "id": "other"})
