"""Waiting for one task is one question, answered at its end; where a pool does not know it, the task is watched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import node_parts
import pool_parts
import pytest
import waiting
from scripted_pool import serving

from hivemind_worker import errors
from hivemind_worker.client import asynchronous, following
from hivemind_worker.pool.api import streams
from hivemind_worker.tasks import state
from hivemind_worker.wire import calls

pb = calls.pb

ENDED = pb.GetTaskResponse(task=pb.TaskInfo(id="t", state="completed", version=3))
RUNS = pb.GetTaskResponse(task=pb.TaskInfo(id="t", state="running", version=2))

UNKNOWN_FIELD = b"\x9a\x06\x80\x80\x80\x01" + bytes(2 * 1024**2)
"""Two MiB in a field, number 99, that no version knows: they stay in the parsed message."""


class _Pool(calls.TaskManagerServicer):
    """Answers questions about a task in turn, and watchers with its end."""

    def __init__(self, *answers: pb.GetTaskResponse, seconds: float = 0.0) -> None:
        self.calls: list[str] = []
        self._answers = list(answers)
        self._seconds = seconds

    async def GetTask(self, request: pb.GetTaskRequest, context: calls.Context) -> pb.GetTaskResponse:  # noqa: N802
        assert request.wait_seconds > 0
        self.calls.append("GetTask")
        if not self._answers:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no such call")
        await asyncio.sleep(self._seconds)
        return self._answers.pop(0)

    async def WatchTasks(  # noqa: N802
        self, _: pb.WatchTasksRequest, __: calls.Context
    ) -> AsyncIterator[pb.WatchTasksResponse]:
        self.calls.append("WatchTasks")
        yield pb.WatchTasksResponse(task=ENDED.task)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([ENDED], ["GetTask"]),
        ([RUNS], ["GetTask", "WatchTasks"]),  # an older pool does not wait
        ([pb.GetTaskResponse()], ["GetTask", "WatchTasks"]),  # the result is better read from a stream
        ([], ["GetTask", "WatchTasks"]),
    ],
)
async def test_one_question_or_a_stream(answers: list[pb.GetTaskResponse], expected: list[str]) -> None:
    scripted = _Pool(*answers)  # type: ignore[abstract]  # the other calls are never made
    async with serving(scripted) as address, asynchronous.AsyncClient(address) as client:
        (task,) = await client.wait("t", 20)
    assert (task.status, scripted.calls) == (state.TaskState.COMPLETED, expected)


async def test_a_long_task_is_asked_about_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "WAIT_SECONDS", 0.05)
    pool = _Pool(RUNS, RUNS, ENDED, seconds=0.05)  # type: ignore[abstract]
    async with serving(pool) as address, asynchronous.AsyncClient(address) as client:
        tasks = await client.wait(["t", "t"], 20)
    assert ([task.id for task in tasks], pool.calls) == (["t", "t"], ["GetTask"] * 3)


async def test_the_end_comes_when_it_comes(tmp_path: Path) -> None:
    async with pool_parts.running(tmp_path / "pool") as at:
        (task_id,) = await at.submit()
        request = pb.GetTaskRequest(task_id=task_id, wait_seconds=0.01)
        assert (await at.tasks.GetTask(request)).task.state == "queued"
        request.wait_seconds = 60.0
        waits = asyncio.ensure_future(at.tasks.GetTask(request))
        async with node_parts.running(at.pool.address, tmp_path / "work"):
            answer = await waits
        assert (answer.task.state, answer.task.result.exit_code, len(answer.task.story)) == ("completed", 0, 0)
        assert (await at.tasks.GetTask(request)).task.state == "completed"
        request.wait_seconds = float("nan")
        with pytest.raises(grpc.aio.AioRpcError, match="wait_seconds"):
            await at.tasks.GetTask(request)


async def test_a_large_result_comes_whole(tmp_path: Path) -> None:
    async with pool_parts.running(tmp_path / "pool") as at, asynchronous.AsyncClient(at.pool.address) as client:
        (task_id,) = await client.submit({"command": "true"})
        waits = asyncio.create_task(client.wait(task_id, 60))
        worker = await at.worker()
        await worker.report(await worker.take(), logs="x" * 100_000)
        (task,) = await waits
        assert task.result is not None
        assert len(task.result.logs.text) == 100_000


async def test_questions_that_wait_keep_nobody_from_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    budgets = streams.Streams()
    reading, work = budgets.requests.reading, budgets.requests.work
    taken: list[int] = []
    take = reading.take

    async def counted(peer: str, size: int, *, in_memory: int = 0) -> streams.Room:
        room = await take(peer, size, in_memory=in_memory)
        taken.append(size)
        return room

    monkeypatch.setattr(reading, "take", counted)
    async with pool_parts.running(tmp_path / "pool", budgets=budgets) as at:
        (task_id,) = await at.submit()
        request = pb.GetTaskRequest(task_id=task_id, wait_seconds=60.0)
        request.MergeFromString(UNKNOWN_FIELD)
        taken.clear()
        # More than the pool works on for one caller.
        waits = [asyncio.ensure_future(at.tasks.GetTask(request)) for _ in range(20)]
        await waiting.wait_until(lambda: len(taken) == len(waits), description="they come", seconds=20)
        await waiting.wait_until(
            lambda: reading.used_bytes == work.used_bytes == 0, description="they wait, and count no more", seconds=8
        )
        worker = await at.worker()
        await worker.report(await worker.take())
        assert {answer.task.state for answer in await asyncio.gather(*waits)} == {"completed"}


async def test_a_pool_that_stops_lets_go_of_who_waits(tmp_path: Path) -> None:
    async with pool_parts.running(tmp_path / "pool") as at:
        (task_id,) = await at.submit()
        async with asynchronous.AsyncClient(at.pool.address, patience=0.0) as client:
            waits = asyncio.create_task(client.wait(task_id, 60))
            await asyncio.sleep(0)
            await at.pool.stop()
            with pytest.raises(errors.Unavailable):
                await waits
