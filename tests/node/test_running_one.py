"""One task submitted and waited for in one call: kept before anybody waits, whatever becomes of the caller."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent import futures
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import grpc
import grpc_proxy
import node_parts
import pool_parts
import pytest
import waiting
from scripted_pool import serving

from hivemind_worker import errors
from hivemind_worker.client import asynchronous, following, shapes
from hivemind_worker.client import client as clients
from hivemind_worker.pool.api import streams
from hivemind_worker.tasks import state
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


class _FailingPool(_OlderPool):
    """Breaks two calls off, and keeps how long each was to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    async def SubmitTasks(  # noqa: N802
        self, request: pb.SubmitTasksRequest, context: calls.Context
    ) -> pb.SubmitTasksResponse:
        self.waits.append(request.wait_seconds)
        if len(self.waits) < 3:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the line broke")
        return await super().SubmitTasks(request, context)


class _CuttingPool(_OlderPool):
    """Answers with a task that has more result files than its message had room for."""

    async def SubmitTasks(  # noqa: N802
        self, request: pb.SubmitTasksRequest, context: calls.Context
    ) -> pb.SubmitTasksResponse:
        answer = await super().SubmitTasks(request, context)
        (task_id,) = answer.task_ids
        answer.task.CopyFrom(pb.TaskInfo(id=task_id, state="completed", truncated=True, result=pb.TaskResult()))
        return answer

    async def ListResults(  # noqa: N802
        self, _request: pb.ListResultsRequest, _: calls.Context
    ) -> pb.ListResultsResponse:
        return pb.ListResultsResponse(files=[pb.ResultFile(name="f", sha256="a" * 64, size=1)])


class _OtherPool(_OlderPool):
    """Answers with the id of another task."""

    async def SubmitTasks(  # noqa: N802
        self, request: pb.SubmitTasksRequest, context: calls.Context
    ) -> pb.SubmitTasksResponse:
        answer = await super().SubmitTasks(request, context)
        answer.task_ids[:] = ["other"]
        return answer


async def _first_task(at: pool_parts.Running) -> str:
    """The id of the only task, once the pool has it."""

    async def found() -> list[str]:
        return [task.id for task in (await at.tasks.ListTasks(pb.ListTasksRequest())).tasks]

    look: Callable[[], list[str] | Awaitable[list[str]]] = found
    task_id: str
    (task_id,) = await waiting.wait_until(look, description="the task is kept", seconds=20)
    return task_id


Run = Callable[..., Awaitable[shapes.Task]]
By = Callable[..., AbstractAsyncContextManager[Run]]


@contextlib.asynccontextmanager
async def _by_a_loop(address: str, **more: Any) -> AsyncIterator[Run]:
    async with asynchronous.AsyncClient(address, **more) as client:
        yield client.run


@contextlib.asynccontextmanager
async def _by_a_thread(address: str, **more: Any) -> AsyncIterator[Run]:
    # Threads of its own: the loop's are the pool's and the node's, too.
    with clients.Client(address, **more) as client, futures.ThreadPoolExecutor(8) as threads:

        async def run(task: Mapping[str, object], seconds: float | None = None) -> shapes.Task:
            made = functools.partial(client.run, task, seconds=seconds)
            return await asyncio.get_running_loop().run_in_executor(threads, made)

        yield run


by_whom = pytest.mark.parametrize("by", [pytest.param(_by_a_loop, id="loop"), pytest.param(_by_a_thread, id="thread")])


@by_whom
async def test_one_call_does_it(tmp_path: Path, by: By) -> None:
    async with pool_parts.running(tmp_path / "pool") as at:
        faults = [grpc_proxy.Fault(call, "dropped", times=1_000) for call in ("GetTask", "WatchTasks")]
        async with (
            grpc_proxy.before(at.pool.address, *faults) as proxy,
            by(proxy.address) as run,
            node_parts.running(at.pool.address, tmp_path / "work"),
        ):
            task = await run({"command": "echo said", "id": "mine"}, seconds=60)
        assert (task.id, task.status, task.exit_code) == ("mine", state.TaskState.COMPLETED, 0)
        assert task.result is not None
        assert task.result.logs.text == b"said\n"
        assert [fault.met for fault in faults] == [0, 0]


@by_whom
@pytest.mark.parametrize("how", ["lost", "twice", "dropped", "cut"])
async def test_a_call_that_is_made_again_runs_the_task_once(tmp_path: Path, how: str, by: By) -> None:
    async with pool_parts.running(tmp_path / "pool") as at:
        fault = grpc_proxy.Fault("SubmitTasks", how, times=1)
        async with (
            grpc_proxy.before(at.pool.address, fault) as proxy,
            by(proxy.address) as run,
            node_parts.running(at.pool.address, tmp_path / "work") as node,
        ):
            task = await run(TASK, seconds=60)
            assert (task.status, fault.met) == (state.TaskState.COMPLETED, 1)
            assert node.runs.ran == [(task.id, 1)]
        listed = await at.tasks.ListTasks(pb.ListTasksRequest())
        assert [each.id for each in listed.tasks] == [task.id]


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


@by_whom
async def test_a_caller_waits_no_longer_than_it_said(tmp_path: Path, by: By) -> None:
    async with pool_parts.running(tmp_path / "pool") as at, by(at.pool.address) as run:
        with pytest.raises(TimeoutError, match=r"mine has not ended after 0\.05 s"):
            await run({**TASK, "id": "mine"}, seconds=0.05)
        assert (await at.info("mine")).state == "queued"


@by_whom
async def test_a_pool_that_hangs_holds_its_caller_no_longer(tmp_path: Path, by: By) -> None:
    hung = grpc_proxy.Fault("SubmitTasks", "hung", times=1_000)
    async with (
        pool_parts.running(tmp_path / "pool") as at,
        grpc_proxy.before(at.pool.address, hung) as proxy,
        by(proxy.address, patience=1.0) as run,
    ):
        with pytest.raises(TimeoutError, match=r"mine has not ended after 0\.5 s, and the pool .* does not answer"):
            await asyncio.wait_for(run({**TASK, "id": "mine"}, seconds=0.5), 20)
        assert hung.met == 1


@by_whom
async def test_a_port_where_nobody_speaks_holds_its_caller_no_longer(by: By) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as silent:
        async with by(f"127.0.0.1:{silent.getsockname()[1]}", patience=0.5) as run:
            with pytest.raises(TimeoutError, match=r"has not ended after 1 s, and the pool .* does not answer"):
                await asyncio.wait_for(run(TASK, seconds=1), 15)
            with pytest.raises(ValueError, match="seconds"):
                await run(TASK, seconds=float("nan"))


@by_whom
async def test_a_long_task_is_waited_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: By) -> None:
    monkeypatch.setattr(following, "WAIT_SECONDS", 0.05)
    async with pool_parts.running(tmp_path / "pool") as at, by(at.pool.address) as run:
        runs = asyncio.ensure_future(run(TASK, seconds=60))
        worker = await at.worker()
        task = await worker.take()
        await worker.report(task, "running")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(runs), 0.2)
        await worker.report(task)
        assert (await runs).status is state.TaskState.COMPLETED


@by_whom
async def test_an_older_pool_is_asked_for_the_end(by: By) -> None:
    older = _OlderPool()  # type: ignore[abstract]  # the other calls are never made
    async with serving(older) as address, by(address) as run:
        task = await run(TASK, seconds=20)
    assert (task.status, older.calls) == (state.TaskState.COMPLETED, ["SubmitTasks", "GetTask"])


@by_whom
async def test_each_try_waits_for_what_is_left_of_the_time(by: By) -> None:
    failing = _FailingPool()  # type: ignore[abstract]
    async with serving(failing) as address, by(address) as run:
        await run(TASK, seconds=20)
    assert failing.waits == sorted(set(failing.waits), reverse=True)
    assert len(failing.waits) == 3


@by_whom
async def test_a_task_that_was_cut_for_its_message_is_completed(by: By) -> None:
    async with serving(_CuttingPool()) as address, by(address) as run:  # type: ignore[abstract]
        task = await run(TASK, seconds=20)
    assert task.result is not None
    assert [file.name for file in task.result.results] == ["f"]


@by_whom
async def test_an_answer_about_another_task_is_none(by: By) -> None:
    async with serving(_OtherPool()) as address, by(address) as run:  # type: ignore[abstract]
        with pytest.raises(errors.Rejected, match="took it not"):
            await run(TASK, seconds=20)


@by_whom
async def test_a_large_result_comes_whole(tmp_path: Path, by: By) -> None:
    async with pool_parts.running(tmp_path / "pool") as at, by(at.pool.address) as run:
        runs = asyncio.ensure_future(run(TASK, seconds=60))
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
        await at.submit(pb.Task(id="other", command="true"))
        for by in (_by_a_loop, _by_a_thread):
            async with by(at.pool.address) as run:
                with pytest.raises(errors.Conflict):
                    await run({"command": "false", "id": "other"})
                with pytest.raises(errors.InvalidTask):
                    await run({"command": 3})


async def test_a_pool_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as held:
        port = held.getsockname()[1]
    async with _by_a_thread(f"127.0.0.1:{port}") as run:
        runs = asyncio.ensure_future(run(TASK, seconds=60))
        await asyncio.wait({runs}, timeout=0.3)
        async with (
            pool_parts.running(tmp_path / "pool", listen=f"127.0.0.1:{port}") as at,
            node_parts.running(at.pool.address, tmp_path / "work"),
        ):
            assert (await runs).status is state.TaskState.COMPLETED


async def test_files_are_uploaded_first(tmp_path: Path) -> None:
    async with (
        pool_parts.running(tmp_path / "pool") as at,
        node_parts.running(at.pool.address, tmp_path / "work"),
        _by_a_thread(at.pool.address) as run,
    ):
        task = await run({**TASK, "input_files": {"a": bytes(2_000_000)}}, seconds=60)
        assert task.status is state.TaskState.COMPLETED


async def test_threads_that_share_a_client_get_their_own_tasks(tmp_path: Path) -> None:
    async with (
        pool_parts.running(tmp_path / "pool") as at,
        node_parts.running(at.pool.address, tmp_path / "work"),
        _by_a_thread(at.pool.address) as run,
    ):
        tasks = await asyncio.gather(*(run({"command": f"echo {n}"}, seconds=60) for n in range(30)))
        assert [task.result and task.result.logs.text for task in tasks] == [f"{n}\n".encode() for n in range(30)]


async def test_a_client_that_is_closed_lets_its_threads_go(tmp_path: Path) -> None:
    async with pool_parts.running(tmp_path / "pool") as at:
        client = clients.Client(at.pool.address)
        await asyncio.to_thread(client.__enter__)
        runs = asyncio.ensure_future(asyncio.to_thread(client.run, TASK))
        await _first_task(at)
        await asyncio.to_thread(client.__exit__)
        with pytest.raises(RuntimeError, match="not open"):
            await asyncio.wait_for(runs, 20)
        with pytest.raises(RuntimeError, match="not open"):
            client.run(TASK)


async def test_who_is_interrupted_leaves_the_task(tmp_path: Path) -> None:
    async with pool_parts.running(tmp_path / "pool") as at:
        # Tests that are run in the background inherit this signal ignored.
        program = f"""
import signal
from hivemind_worker.client import client
signal.signal(signal.SIGINT, signal.default_int_handler)
with client.Client("{at.pool.address}") as opened:
    opened.run({TASK})
"""
        caller = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stderr=asyncio.subprocess.PIPE)
        task_id = await _first_task(at)
        caller.send_signal(signal.SIGINT)
        _, told = await asyncio.wait_for(caller.communicate(), 10)
        assert b"KeyboardInterrupt" in told
        assert (await at.info(task_id)).state == "queued"
