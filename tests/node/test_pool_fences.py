"""Who may speak for a node: a node that has a session shows it in every call, and garbage is refused in words."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pool_parts
import pytest
import pytest_asyncio
import waiting

from hivemind_worker.wire import calls, verdicts

pb = calls.pb


@pytest_asyncio.fixture
async def at(tmp_path: Path) -> AsyncIterator[pool_parts.Running]:
    async with pool_parts.running(tmp_path) as running:
        yield running


def _upload(session_id: str) -> AsyncIterator[pb.UploadArtifactRequest]:
    async def messages() -> AsyncIterator[pb.UploadArtifactRequest]:
        yield pb.UploadArtifactRequest(node_id="n", session_id=session_id, sha256="0" * 64, size=1, data=b"x")

    return messages()


async def _download(at: pool_parts.Running, session_id: str) -> None:
    request = pb.DownloadArtifactRequest(node_id="n", session_id=session_id, sha256="0" * 64)
    async for _ in at.nodes.DownloadArtifact(request):
        pass


def _append(task: pb.Task, session_id: str, **said: Any) -> pb.AppendTaskLogsRequest:
    chunk = pb.LogChunk(**{"stream": pb.LOG_STREAM_STDOUT, "data": b"x", **said})
    return pb.AppendTaskLogsRequest(
        task_id=task.id, attempt=task.attempt, node_id="n", session_id=session_id, chunks=[chunk]
    )


CALLS: dict[str, Callable[[pool_parts.Running, pool_parts.Worker, pb.Task], Awaitable[Any]]] = {
    "poll": lambda _at, worker, _task: worker.poll(),
    "heartbeat": lambda _at, worker, task: worker.beat(task),
    "start": lambda _at, worker, task: worker.report(task, "running"),
    "end": lambda _at, worker, task: worker.report(task),
    "end of the newest": lambda _at, worker, task: worker.report(pb.Task(id=task.id)),
    "output": lambda at, worker, task: at.nodes.AppendTaskLogs(iter([_append(task, worker.session_id)])),
    "upload": lambda at, worker, _task: at.nodes.UploadArtifact(_upload(worker.session_id)),
    "download": lambda at, worker, _task: _download(at, worker.session_id),
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_node_that_has_a_session_shows_it_in_every_call(at: pool_parts.Running, name: str) -> None:
    worker = await at.worker()
    (task_id,) = await at.submit()
    task = await worker.take()
    stranger = dataclasses.replace(worker, session_id="")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await CALLS[name](at, stranger, task)
    assert verdicts.read(caught.value).reason is verdicts.Reason.UNKNOWN_SESSION
    assert "shows its session" in (caught.value.details() or "")
    info = await at.info(task_id)
    assert (info.state, info.attempt) == ("assigned", 1)
    assert (await worker.report(task)).verdict == pb.VERDICT_ACCEPTED


async def test_a_client_that_knows_no_sessions_needs_none(at: pool_parts.Running) -> None:
    plain = dataclasses.replace(await at.worker("n", boot_id=""), session_id="")
    await at.submit()
    (task,) = (await plain.poll()).tasks
    await plain.beat()
    assert (await plain.report(task, "running")).verdict == pb.VERDICT_ACCEPTED
    assert (await plain.report(task)).verdict == pb.VERDICT_ACCEPTED


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"stream": 9}, "chunks.stream"),
        ({"stream": -1}, "chunks.stream"),
        ({"stream": 1_000}, "chunks.stream"),
        ({"stream": 0}, "chunks.stream"),
        ({"sequence": -1}, "chunks.sequence"),
        ({"offset": -(2**63)}, "chunks.offset"),
        ({"sequence": 2**63 - 1}, "chunks.sequence"),
        ({"offset": 2**63 - 1}, "chunks.offset"),
    ],
)
async def test_output_that_makes_no_sense_is_the_senders_fault(
    at: pool_parts.Running, said: dict[str, int], field: str
) -> None:
    worker = await at.worker()
    await at.submit()
    task = await worker.take()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await at.nodes.AppendTaskLogs(iter([_append(task, worker.session_id, **said)]))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field in (caught.value.details() or "")
    answer = await at.nodes.AppendTaskLogs(iter([_append(task, worker.session_id)]))
    assert answer.next_sequence == 1


# ---- what is shown of a node ----


async def test_a_word_for_a_status_that_is_a_page_long_is_cut(at: pool_parts.Running) -> None:
    worker = await at.worker()
    await worker.beat(status="x" * 100_000)
    assert (await _shown(at)).status == "x" * 64


async def _shown(at: pool_parts.Running) -> pb.NodeInfo:
    (info,) = (await at.tasks.ListNodes(pb.ListNodesRequest())).nodes
    return info


async def test_a_drain_that_is_over_is_shown_no_more(at: pool_parts.Running) -> None:
    worker = await at.worker()
    await at.tasks.DrainNode(pb.DrainNodeRequest(node_id="n"))
    assert (await _shown(at)).draining
    assert (await worker.beat(status="idle")).draining
    await worker.beat(status="draining")  # as it was told
    assert (await _shown(at)).status == "draining"
    await at.tasks.ResumeNode(pb.ResumeNodeRequest(node_id="n"))
    shown = await _shown(at)
    assert (shown.status, shown.draining) == ("idle", False)
    # Its next beat was on its way before it could hear of that.
    assert not (await worker.beat(status="draining")).draining
    assert (await _shown(at)).status == "idle"
    # From then on its word is its own: it drains because its owner stops it.
    await worker.beat(status="draining")
    assert (await _shown(at)).status == "draining"


async def test_a_resumed_node_that_holds_something_is_shown_as_busy(at: pool_parts.Running) -> None:
    worker = await at.worker()
    await at.submit()
    task = await worker.take()
    await at.tasks.DrainNode(pb.DrainNodeRequest(node_id="n"))
    for _ in range(2):
        await worker.beat(task, status="draining")
    await at.tasks.ResumeNode(pb.ResumeNodeRequest(node_id="n"))
    assert (await _shown(at)).status == "busy"


async def test_what_is_free_is_never_less_than_nothing_and_the_surplus_is_told(at: pool_parts.Running) -> None:
    two_cores = pb.RequiredResources(cpu_cores=2, memory_gb=1, disk_gb=1)
    await at.submit(*[pb.Task(command="true", required_resources=two_cores) for _ in range(2)])
    worker = await at.worker(cpu_cores=4, max_concurrent_tasks=2)
    tasks = list((await worker.poll(10, most=2)).tasks)
    assert len(tasks) == 2
    assert (await _shown(at)).free.cpu_cores == 0
    assert not (await _shown(at)).message
    await at.worker(cpu_cores=1, max_concurrent_tasks=2)  # the same process, with less to give
    shown = await _shown(at)
    assert shown.free.cpu_cores == 0
    assert "overcommitted (cpu: wants 4 cores, 1 in all)" in shown.message


async def test_a_poll_without_the_session_takes_no_place_of_the_one_that_waits(at: pool_parts.Running) -> None:
    worker = await at.worker()
    polling = asyncio.create_task(worker.poll(60))
    await waiting.wait_until(lambda: at.pool._parts.dispatch._waiting, description="the poll waits")
    with pytest.raises(grpc.aio.AioRpcError):
        await dataclasses.replace(worker, session_id="").poll()
    with pytest.raises(grpc.aio.AioRpcError):
        await dataclasses.replace(worker, session_id="made up").poll(60)
    assert not polling.done()
    (task_id,) = await at.submit()
    assert [task.id for task in (await polling).tasks] == [task_id]


async def test_files_in_a_report_without_the_nodes_session_are_not_stored(
    at: pool_parts.Running, tmp_path: Path
) -> None:
    await at.submit(pb.Task(id="a", command="true"))
    worker = await at.worker()
    task = await worker.take()
    content = b"from whoever knows the node's name"
    for session_id in ("", "another"):
        request = pb.ReportTaskResultRequest(
            task_id=task.id, attempt=task.attempt, node_id="n", session_id=session_id, status="completed"
        )
        request.result.CopyFrom(pb.TaskResult(status="completed", result_data={"x": content}))
        with pytest.raises(grpc.aio.AioRpcError):
            await at.nodes.ReportTaskResult(request)
    assert not _is_stored(tmp_path, content)


def _is_stored(folder: Path, content: bytes) -> bool:
    return any(folder.rglob(f"*{hashlib.sha256(content).hexdigest()}*"))


async def test_a_timeout_that_cannot_have_passed_is_no_end_of_the_task(at: pool_parts.Running) -> None:
    (task_id,) = await at.submit(pb.Task(command="true", timeout=100))
    worker = await at.worker()
    limits = pb.Limits(timeout_seconds=100)
    await worker.report(await worker.take(), "failed", reason="timeout", limits=limits)
    info = await at.info(task_id)
    assert info.state == "queued"
    assert "its node reports a timeout of 100 s" in info.story[-1].details
