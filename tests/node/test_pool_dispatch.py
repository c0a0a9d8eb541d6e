"""The pool over loopback: polls that wait, sessions, reports, and requests that make no sense."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pool_parts
import pytest
import pytest_asyncio
import waiting

from hivemind_worker.pool.store import sqlite
from hivemind_worker.wire import calls, verdicts

pb = calls.pb

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest_asyncio.fixture
async def at(tmp_path: Path) -> AsyncIterator[pool_parts.Running]:
    async with pool_parts.running(tmp_path) as running:
        yield running


async def test_a_waiting_poll_is_answered_the_moment_a_task_is_there(at: pool_parts.Running) -> None:
    worker = await at.worker()
    polling = asyncio.create_task(worker.poll(30))
    await waiting.wait_until(lambda: at.pool._parts.dispatch._waiting, description="the poll waits")
    began = time.monotonic()
    (task_id,) = await at.submit(pb.Task(command="echo hello", traceparent=TRACE))
    (task,) = (await polling).tasks
    assert time.monotonic() - began < 10
    assert (task.id, task.attempt, task.lease_seconds) == (task_id, 1, 60.0)
    assert (task.command, task.traceparent) == ("echo hello", TRACE)


async def test_a_poll_without_work_ends_empty_and_a_newer_one_takes_its_place(at: pool_parts.Running) -> None:
    worker = await at.worker()
    assert (await worker.poll()) == pb.GetAssignedTasksResponse(success=True)
    assert (await worker.poll(0.05)) == pb.GetAssignedTasksResponse(success=True)
    older = asyncio.create_task(worker.poll(60))
    await waiting.wait_until(lambda: at.pool._parts.dispatch._waiting, description="the poll waits")
    newer = asyncio.create_task(worker.poll(60))
    assert not (await older).tasks
    await at.submit()
    assert (await newer).tasks


async def test_what_a_broken_poll_was_given_comes_with_the_next_one(at: pool_parts.Running) -> None:
    worker = await at.worker()
    (task_id,) = await at.submit()
    first = await worker.take()
    again = await worker.take()  # it does not list the first: that answer never arrived
    assert (first.id, first.attempt) == (again.id, again.attempt) == (task_id, 1)
    assert not (await worker.poll(0, first)).tasks


async def test_a_task_that_is_run_and_not_yet_reported_holds_back_no_other(at: pool_parts.Running) -> None:
    # The node gives the room of an ended task away at once; its report may be behind a large upload. The pool once
    # counted such a task against the node's slots, and the next one waited for the poll's 30 s to pass.
    worker = await at.worker(max_concurrent_tasks=1)
    await at.submit()
    (next_id,) = await at.submit()
    ended = await worker.take()
    # As our node does it says itself what is free; one that does not has the pool count for it.
    free = pb.FreeResources(cpu_cores=1, memory_bytes=2**34, disk_bytes=2**40)
    answer = await worker.poll(30, ended, free=free)
    assert [task.id for task in answer.tasks] == [next_id]


async def test_a_cancellation_comes_at_once_through_a_full_workers_poll_and_once(at: pool_parts.Running) -> None:
    worker = await at.worker()
    (task_id,) = await at.submit()
    task = await worker.take()
    polling = asyncio.create_task(worker.poll(30, task, paused=True))
    await waiting.wait_until(lambda: at.pool._parts.dispatch._waiting, description="the poll waits")
    answer = await at.tasks.CancelTasks(pb.CancelTasksRequest(task_ids=[task_id]))
    assert list(answer.states) == ["assigned"]
    assert [ref.task_id for ref in (await polling).cancel] == [task_id]
    assert not (await worker.poll(0, task, paused=True)).cancel  # told already: the next poll may wait
    assert [ref.task_id for ref in (await worker.beat(task)).cancel] == [task_id]
    assert (await worker.report(task, "cancelled", reason="cancelled")).verdict == pb.VERDICT_ACCEPTED
    assert (await at.info(task_id)).state == "cancelled"


async def _told_of_a_cancellation(at: pool_parts.Running, worker: pool_parts.Worker) -> pb.Task:
    """A task that its node has been told to stop, and still holds."""
    (task_id,) = await at.submit()
    task = await worker.take()
    await worker.report(task, "running")
    await at.tasks.CancelTasks(pb.CancelTasksRequest(task_ids=[task_id]))
    assert [ref.task_id for ref in (await worker.poll(10, task)).cancel] == [task_id]
    return task


async def test_a_task_that_takes_its_time_to_stop_holds_back_no_other(at: pool_parts.Running) -> None:
    worker = await at.worker()
    stopping = await _told_of_a_cancellation(at, worker)
    polling = asyncio.create_task(worker.poll(50, stopping))
    await waiting.wait_until(
        lambda: [each for each in at.pool._parts.dispatch._waiting.values() if not each.look],
        description="the poll has been looked at, and waits",
    )
    (next_id,) = await at.submit()
    answer = await asyncio.wait_for(polling, 20)
    assert [task.id for task in answer.tasks] == [next_id]


async def test_a_task_that_takes_its_time_to_stop_does_not_make_a_rest_longer(at: pool_parts.Running) -> None:
    worker = await at.worker()
    stopping = await _told_of_a_cancellation(at, worker)
    (back_id,) = await at.submit()
    (back,) = (await worker.poll(10, stopping)).tasks
    await worker.report(back, "failed", reason="node_shutdown")
    answer = await asyncio.wait_for(worker.poll(50, stopping), 20)  # it rests from that shape for a second
    assert [(task.id, task.attempt) for task in answer.tasks] == [(back_id, 2)]


async def test_a_cancellation_comes_together_with_new_tasks(at: pool_parts.Running) -> None:
    worker = await at.worker()
    (task_id,) = await at.submit()
    task = await worker.take()
    await at.tasks.CancelTasks(pb.CancelTasksRequest(task_ids=[task_id]))
    (next_id,) = await at.submit()
    answer = await worker.poll(50, task)
    assert [ref.task_id for ref in answer.cancel] == [task_id]
    assert [each.id for each in answer.tasks] == [next_id]


@pytest.mark.parametrize("reason", ["node_shutdown", "worker_crash"])
async def test_a_task_that_was_cancelled_says_so_whatever_its_node_stopped_it_for(
    at: pool_parts.Running, reason: str
) -> None:
    worker = await at.worker()
    task = await _told_of_a_cancellation(at, worker)
    await worker.report(task, "failed", reason=reason, error="its own word")
    info = await at.info(task.id)
    listed = (await at.tasks.ListTasks(pb.ListTasksRequest())).tasks[0]
    for each in (info, listed):
        assert (each.state, each.result.status, each.result.reason) == ("cancelled", "cancelled", "cancelled")
        assert each.result.error == f"cancelled; {reason}: its own word"


async def test_a_stop_that_nobody_wished_is_told_as_the_disruption_that_it_is(at: pool_parts.Running) -> None:
    worker = await at.worker()
    (task_id,) = await at.submit()
    task = await worker.take()
    await worker.report(task, "cancelled", reason="cancelled")
    info = await at.info(task_id)
    assert (info.state, info.disruptions) == ("queued", 1)


async def test_tasks_come_to_the_node_that_has_their_image_and_room(at: pool_parts.Running) -> None:
    one, other, small = await at.worker("one"), await at.worker("other"), await at.worker("small", cpu_cores=0.5)
    polls = [
        asyncio.create_task(one.poll(60)),
        asyncio.create_task(other.poll(60, images=["their/image:1"])),
        asyncio.create_task(small.poll(1)),
    ]
    kept = at.pool._parts.store
    assert isinstance(kept, sqlite.SqliteStore)
    await waiting.wait_until(lambda: len(kept._waiting) == 3, description="all wait")
    await at.submit(pb.Task(command="true", docker_image="their/image:1"))
    assert (await polls[1]).tasks
    await at.submit(pb.Task(command="true"))
    assert (await polls[0]).tasks
    assert not (await polls[2]).tasks


async def test_why_a_task_waits_is_told(at: pool_parts.Running) -> None:
    huge = pb.Task(command="true", required_resources=pb.RequiredResources(cpu_cores=500))
    ids = await at.submit(huge, pb.Task(command="true", node_selector={"zone": "moon"}), pb.Task(command="true"))
    assert [(await at.info(task_id)).waiting_because for task_id in ids] == ["no node is connected"] * 3
    await at.worker()
    told = [(await at.info(task_id)).waiting_because for task_id in ids]
    assert "no node is large enough; n: cpu: wants 500 cores, 4 in all" in told[0]
    assert "it has no label zone=moon" in told[1]
    assert told[2] == "waits for a node to have room"


async def test_many_small_and_few_large_tasks_fit_into_answers(at: pool_parts.Running) -> None:
    worker = await at.worker(cpu_cores=500, memory_gb=500, disk_gb=500)
    large = [pb.Task(command="true", input_files={"data": bytes(1024**2)}) for _ in range(3)]
    for task in large:
        await at.submit(task, task)
    held: list[pb.Task] = []
    while new := (await worker.poll(0, *held, most=64)).tasks:
        held += new
    assert len({task.id for task in held}) == 6


async def test_reports_and_what_they_are_answered(at: pool_parts.Running) -> None:
    worker = await at.worker()
    (task_id,) = await at.submit()
    task = await worker.take()
    assert (await worker.report(task, "running")).verdict == pb.VERDICT_ACCEPTED
    assert (await at.info(task_id)).state == "running"
    done = await worker.report(task, exit_code=0, has_exit_code=True, logs="out", result_data={"a/b.txt": b"content"})
    assert (done.success, done.verdict) == (True, pb.VERDICT_ACCEPTED)
    repeated = await worker.report(task)
    assert (repeated.success, repeated.verdict) == (True, pb.VERDICT_DUPLICATE)
    unknown = await worker.report(pb.Task(id="nobody", attempt=1))
    assert (unknown.success, unknown.verdict) == (False, pb.VERDICT_UNKNOWN)
    info = await at.info(task_id)
    assert (info.state, info.result.logs, info.node_id) == ("completed", "out", "n")
    assert [event.event for event in info.story] == ["submit", "assign", "start", "complete"]
    results = await at.tasks.ListResults(pb.ListResultsRequest(task_id=task_id))
    assert [(file.name, file.size) for file in results.files] == [("a/b.txt", 7)]
    parts = [part async for part in at.tasks.DownloadResult(pb.DownloadResultRequest(task_id=task_id, name="a/b.txt"))]
    assert b"".join(part.data for part in parts) == b"content"


async def test_a_lost_worker_is_noticed_and_its_task_goes_to_another(tmp_path: Path) -> None:
    async with pool_parts.running(tmp_path, lease_seconds=0.5) as at:
        lost, other = await at.worker("lost"), await at.worker("other")
        (task_id,) = await at.submit()
        old = await lost.take()

        async def given_to_other() -> pb.Task | None:
            return next(iter((await other.poll(0.2)).tasks), None)

        new: pb.Task | None = await waiting.wait_until(given_to_other, description="the task goes to the other")
        assert new is not None
        assert (new.id, new.attempt) == (task_id, 2)
        late = await lost.report(old)
        assert (late.success, late.verdict) == (False, pb.VERDICT_STALE)
        assert (await other.report(new)).verdict == pb.VERDICT_ACCEPTED
        told = {node.node_id: node.status for node in (await at.tasks.ListNodes(pb.ListNodesRequest())).nodes}
        assert told["lost"] == "lost"  # a late report does not bring it back: only a heartbeat or a poll does


async def test_two_processes_of_one_state_folder_the_newer_stays(at: pool_parts.Running) -> None:
    older = await at.worker("n", "boot 1", state_lock_id="folder")
    polling = asyncio.create_task(older.poll(30))
    await waiting.wait_until(lambda: at.pool._parts.dispatch._waiting, description="the poll waits")
    newer = await at.worker("n", "boot 2", state_lock_id="folder")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await older.beat()
    assert verdicts.read(caught.value).reason is verdicts.Reason.SESSION_REPLACED
    await at.submit()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await polling
    assert verdicts.read(caught.value).course is verdicts.Course.GIVE_UP
    assert (await newer.take()).attempt == 1
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await dataclasses.replace(newer, session_id="made up").beat()
    assert verdicts.read(caught.value).reason is verdicts.Reason.UNKNOWN_SESSION
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await dataclasses.replace(newer, name="stranger").poll()
    assert verdicts.read(caught.value).reason is verdicts.Reason.UNKNOWN_NODE


async def test_draining_and_resuming(at: pool_parts.Running) -> None:
    worker = await at.worker()
    await at.tasks.DrainNode(pb.DrainNodeRequest(node_id="n"))
    assert (await worker.beat()).draining
    await at.submit()
    polling = asyncio.create_task(worker.poll(30))
    await waiting.wait_until(lambda: at.pool._parts.dispatch._waiting, description="the poll waits")
    (told,) = (await at.tasks.ListTasks(pb.ListTasksRequest())).tasks
    assert told.waiting_because.startswith("every node drains")
    await at.tasks.ResumeNode(pb.ResumeNodeRequest(node_id="n"))
    assert (await polling).tasks
    with pytest.raises(grpc.aio.AioRpcError, match="nobody"):
        await at.tasks.DrainNode(pb.DrainNodeRequest(node_id="nobody"))


NONSENSE = {
    "a node without a name": lambda at: at.nodes.RegisterNode(pb.RegisterNodeRequest(cpu_cores=1)),
    "a name with a path": lambda at: at.nodes.RegisterNode(pb.RegisterNodeRequest(node_id="../x")),
    "no number": lambda at: at.nodes.RegisterNode(pb.RegisterNodeRequest(node_id="x", cpu_cores=float("nan"))),
    "less than nothing": lambda at: at.nodes.RegisterNode(pb.RegisterNodeRequest(node_id="x", memory_gb=-1)),
    "too much": lambda at: at.nodes.RegisterNode(pb.RegisterNodeRequest(node_id="x", disk_gb=1e300)),
    "waits for ever": lambda at: at.nodes.GetAssignedTasks(
        pb.GetAssignedTasksRequest(node_id="n", wait_seconds=float("inf"))
    ),
    "no tasks": lambda at: at.tasks.SubmitTasks(pb.SubmitTasksRequest()),
    "an unknown type": lambda at: at.tasks.SubmitTasks(pb.SubmitTasksRequest(tasks=[pb.Task(type="dance")])),
    "an id with a path": lambda at: at.submit(pb.Task(id="../x", command="true")),
    "one wrong among many": lambda at: at.submit(pb.Task(command="true"), pb.Task(command="true", timeout=-1)),
    "an input that is not there": lambda at: at.submit(
        pb.Task(command="true", input_artifacts={"a": pb.ArtifactRef(sha256="0" * 64, size=1)})
    ),
    "an input without a sum": lambda at: at.submit(
        pb.Task(command="true", input_artifacts={"a": pb.ArtifactRef(sha256="x")})
    ),
    "a report without a status": lambda at: at.nodes.ReportTaskResult(
        pb.ReportTaskResultRequest(node_id="n", task_id="t")
    ),
    "a report of an unknown word": lambda at: at.nodes.ReportTaskResult(
        pb.ReportTaskResultRequest(node_id="n", task_id="t", status="failed", result=pb.TaskResult(reason="bored"))
    ),
    "a page of another book": lambda at: at.tasks.ListTasks(pb.ListTasksRequest(page_token="'; DROP TABLE tasks")),
    "a sum that is none": lambda at: at.tasks.FindArtifacts(pb.FindArtifactsRequest(sha256=["../../etc/passwd"])),
    "nobody to cancel": lambda at: at.tasks.CancelTasks(pb.CancelTasksRequest()),
}


@pytest.mark.parametrize("what", NONSENSE)
async def test_nonsense_is_refused_and_harms_nobody(at: pool_parts.Running, what: str) -> None:
    worker = await at.worker()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await NONSENSE[what](at)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, caught.value
    assert caught.value.details()
    info = await at.tasks.GetPoolInfo(pb.GetPoolInfoRequest())
    assert sum(info.tasks_by_state.values()) == 0
    await at.submit()
    assert (await worker.take()).attempt == 1


async def test_a_message_that_is_too_large_is_refused(at: pool_parts.Running) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await at.submit(pb.Task(command="true", input_files={"a": bytes(5 * 1024**2)}))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await at.submit()


async def test_submitting_twice_with_one_key_and_another_task_of_one_name(at: pool_parts.Running) -> None:
    tasks = [pb.Task(command="true"), pb.Task(id="mine", command="true")]
    assert await at.submit(*tasks, key="k") == await at.submit(*tasks, key="k")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await at.submit(pb.Task(id="mine", command="false"))
    assert verdicts.read(caught.value).reason is verdicts.Reason.CONFLICT
    assert await at.submit(pb.Task(id="mine", command="true")) == ["mine"]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await at.info("nobody")
    assert verdicts.read(caught.value).reason is verdicts.Reason.NO_SUCH_TASK
