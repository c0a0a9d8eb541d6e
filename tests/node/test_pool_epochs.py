"""Epochs and runs on the wire: no answer, result or output of another store or another run is taken for this one's."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import grpc
import pool_parts
import pytest

from hivemind_worker import units
from hivemind_worker.pool.api import attempt_logs
from hivemind_worker.pool.matching import assignment
from hivemind_worker.pool.store import database, schema, shapes
from hivemind_worker.tasks import resources
from hivemind_worker.wire import calls

pb = calls.pb

ROOM = resources.Resources(1, units.GIB, units.GIB)


async def append(worker: pool_parts.Worker, task: pb.Task, data: bytes, *, sequence: int = 0, **fields: str) -> None:
    """Send output of an attempt."""
    chunk = pb.LogChunk(stream=pb.LOG_STREAM_STDOUT, data=data, sequence=sequence)
    request = pb.AppendTaskLogsRequest(
        task_id=task.id, attempt=task.attempt, node_id=worker.name, session_id=worker.session_id, chunks=[chunk]
    )
    for name, value in fields.items():
        setattr(request, name, value)
    await worker.at.nodes.AppendTaskLogs(iter([request]))


async def output(at: pool_parts.Running, task_id: str, attempt: int = 0) -> bytes:
    pages = at.tasks.GetTaskLogs(pb.GetTaskLogsRequest(task_id=task_id, attempt=attempt))
    return b"".join([chunk.data async for page in pages for chunk in page.chunks])


async def test_the_epoch_is_told_wherever_identity_is(tmp_path: Path) -> None:
    async with pool_parts.running(tmp_path) as at:
        epoch = (await at.tasks.GetPoolInfo(pb.GetPoolInfoRequest())).store_epoch
        assert len(epoch) == 32
        node = pb.RegisterNodeRequest(node_id="n", boot_id="b", cpu_cores=4, memory_gb=8, disk_gb=50)
        opened = await at.nodes.RegisterNode(node)
        assert opened.store_epoch == epoch
        await at.submit()
        task = await pool_parts.Worker(at, "n", opened.session_id).take()
        assert task.store_epoch == epoch


@pytest.mark.parametrize("run_id", ["", "1" * 32])
async def test_a_wiped_store_shows_nothing_of_the_task_that_had_the_id_before(tmp_path: Path, run_id: str) -> None:
    async with pool_parts.running(tmp_path) as at:
        await at.submit(pb.Task(id="nightly", command="monday"))
        worker = await at.worker()
        await append(worker, await worker.take(), b"monday's", run_id=run_id)
        assert await output(at, "nightly") == b"monday's"
    (tmp_path / "pool.sqlite").unlink()
    async with pool_parts.running(tmp_path) as at:
        await at.submit(pb.Task(id="nightly", command="tuesday"))
        worker = await at.worker()
        task = await worker.take()
        assert await output(at, "nightly") == b""
        await append(worker, task, b"tuesday's", run_id=run_id)
        assert await output(at, "nightly") == b"tuesday's"


async def test_a_store_put_back_by_hand_shows_no_output_of_the_run_that_it_does_not_know(tmp_path: Path) -> None:
    async with pool_parts.running(tmp_path) as at:
        await at.submit(pb.Task(id="a", command="true"))
    shutil.copy(tmp_path / "pool.sqlite", tmp_path / "copy")
    for run_id in ("1" * 32, "2" * 32):
        async with pool_parts.running(tmp_path) as at:
            worker = await at.worker(boot_id=run_id)
            await append(worker, await worker.take(), run_id.encode(), run_id=run_id)
            assert await output(at, "a") == run_id.encode()
        shutil.copy(tmp_path / "copy", tmp_path / "pool.sqlite")


async def test_what_another_epoch_assigned_is_dropped_refused_and_never_counts(tmp_path: Path) -> None:
    async with pool_parts.running(tmp_path) as at:
        await at.submit(pb.Task(id="a", command="true"))
        worker = await at.worker()
        task = await worker.take()
        other = pb.AttemptRef(task_id="a", attempt=1, store_epoch="f" * 32, run_id="1" * 32)
        beat = pb.UpdateNodeStatusRequest(node_id="n", session_id=worker.session_id, status="busy", held=[other])
        assert list((await at.nodes.UpdateNodeStatus(beat)).drop) == [other]
        report = pb.ReportTaskResultRequest(
            task_id="a", node_id="n", session_id=worker.session_id, attempt=1, status="completed", store_epoch="f" * 32
        )
        report.result.status = "completed"
        assert (await at.nodes.ReportTaskResult(report)).verdict == pb.VERDICT_UNKNOWN
        with pytest.raises(grpc.aio.AioRpcError, match="epoch"):
            await append(worker, task, b"x", store_epoch="f" * 32)
        # A poll that lists it does not have it: the attempt comes again, as after an answer that was lost.
        poll = pb.GetAssignedTasksRequest(node_id="n", session_id=worker.session_id, wait_seconds=5, held=[other])
        assert [again.id for again in (await at.nodes.GetAssignedTasks(poll)).tasks] == ["a"]
        report.store_epoch = task.store_epoch
        assert (await at.nodes.ReportTaskResult(report)).verdict == pb.VERDICT_ACCEPTED


async def test_output_before_the_run_and_of_the_run_are_one(tmp_path: Path) -> None:
    async with pool_parts.running(tmp_path) as at:
        await at.submit(pb.Task(id="a", command="true"))
        worker = await at.worker()
        task = await worker.take()
        await append(worker, task, b"pulling")
        await append(worker, task, b"not taken: sequence 0 is here", store_epoch=task.store_epoch, run_id="1" * 32)
        assert await output(at, "a") == b"pulling"
        with pytest.raises(grpc.aio.AioRpcError, match="another run"):
            await append(worker, task, b"another", run_id="2" * 32)
        assert await output(at, "a") == b"pulling"


async def test_a_store_of_before_epochs_keeps_its_attempts_and_their_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(schema, "_STEPS", schema._STEPS[:2])
        sql = database.writing(tmp_path / "pool.sqlite")
        schema.migrate(sql, 0.0)
    sql.execute("INSERT INTO shapes VALUES (1, ?)", (shapes.shape_text(assignment.Shape("command", ROOM)),))
    sql.execute(
        "INSERT INTO tasks (number, id, digest, shape, kind, image, size, priority, max_attempts, state, submitted_at,"
        " timeout, attempt, node_id, assigned_at, version) VALUES (1, 'a', '', 1, 'command', '', 0, 0, 3,"
        " 'running', 1, 9, 2, 'n', 1, 4)"
    )
    sql.execute("INSERT INTO bodies VALUES (1, ?)", (pb.Task(command="true").SerializeToString(),))
    for version, (event, attempt, node) in enumerate(
        [("submit", 0, ""), ("assign", 1, "m"), ("requeue", 1, "m"), ("assign", 2, "n"), ("start", 2, "n")]
    ):
        sql.execute("INSERT INTO events VALUES (1, ?, 1, ?, ?, ?, '')", (version, event, attempt, node))
    sql.execute(
        "INSERT INTO nodes (node_id, session_id, boot_id, said, registered_at, heartbeat_at, lease_until)"
        " VALUES ('n', 's', 'boot', ?, 1, 1, 1)",
        (
            json.dumps(
                {
                    "capacity": {},
                    "labels": {},
                    "capabilities": [],
                    "version": "",
                    "address": "",
                    "max_concurrent_tasks": 0,
                }
            ),
        ),
    )
    sql.execute("INSERT INTO sessions VALUES ('s', 'n', 1)")
    sql.close()
    logs = attempt_logs.AttemptLogs(tmp_path / "logs")
    for attempt in (1, 2):
        old = hashlib.sha256(f"a\0{attempt}".encode()).hexdigest()[:40]
        assert logs.path(attempt_logs.Key("a", attempt)) == tmp_path / "logs" / old[:2] / old
        logs.append(attempt_logs.Key("a", attempt), [attempt_logs.Chunk(0, 1, 0, b"output %d" % attempt)])
    async with pool_parts.running(tmp_path) as at:
        worker = pool_parts.Worker(at, "n", "s")
        task = pb.Task(id="a", attempt=2)
        assert [await output(at, "a", attempt) for attempt in (1, 2)] == [b"output 1", b"output 2"]
        assert not (await worker.beat(task)).drop
        await append(worker, task, b" goes on", sequence=1)
        assert await output(at, "a") == b"output 2 goes on"
        assert (await worker.report(task)).verdict == pb.VERDICT_ACCEPTED
