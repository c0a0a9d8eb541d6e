"""A full disk of logs, at the pool or at the worker: output may be left out, an end never waits for it."""

from __future__ import annotations

from pathlib import Path

import node_parts
import pool_parts
import pytest
import small_disk

from hivemind_worker.artifacts import spool
from hivemind_worker.client import asynchronous
from hivemind_worker.pool.api import attempt_logs
from hivemind_worker.tasks import state
from hivemind_worker.wire import calls

pb = calls.pb

pytestmark = pytest.mark.skipif(not small_disk.can_mount(), reason="NO RIGHT TO MOUNT: a full disk is not tested")

LINES = "i=0; while [ $i -lt 20000 ]; do echo line $i of a task that has much to say; i=$((i+1)); done"
CHATTY = f"{LINES}; echo done > results/x"


async def test_a_result_does_not_wait_for_the_pools_log_disk(tmp_path: Path) -> None:
    with small_disk.mounted(tmp_path / "pool" / "logs", 2) as disk:
        async with (
            pool_parts.running(tmp_path / "pool") as at,
            asynchronous.AsyncClient(at.pool.address) as client,
            node_parts.running(at.pool.address, tmp_path / "work"),
        ):
            disk.fill()
            command = {"command": CHATTY, "memory_limit": "64m", "cpu_quota": 100_000}
            (task_id,) = await client.submit(command)
            (task,) = await client.wait(task_id, 60)
            assert task.status is state.TaskState.COMPLETED
            assert task.result is not None
            assert task.result.logs.text.startswith(b"line 0 of")
            # And output is taken again as soon as there is room.
            disk.clear()
            (task_id,) = await client.submit({"command": "echo there again", "memory_limit": "64m"})
            await client.wait(task_id, 60)
            assert b"".join([piece.data async for piece in client.logs(task_id)]) == b"there again\n"


async def test_the_pool_answers_output_that_it_cannot_store_and_takes_later_output(tmp_path: Path) -> None:
    with small_disk.mounted(tmp_path / "logs", 1) as disk:
        async with pool_parts.running(tmp_path) as at:
            await at.submit(pb.Task(id="a", command="true"))
            worker = await at.worker()
            task = await worker.take()

            async def append(sequence: int, data: bytes) -> pb.AppendTaskLogsResponse:
                chunk = pb.LogChunk(stream=pb.LOG_STREAM_STDOUT, data=data, sequence=sequence, offset=sequence)
                request = pb.AppendTaskLogsRequest(
                    task_id="a", attempt=1, node_id="n", session_id=worker.session_id, chunks=[chunk]
                )
                return await at.nodes.AppendTaskLogs(iter([request]))

            assert (await append(0, b"first ")).success
            disk.fill()
            for sequence in (1, 2):
                answer = await append(sequence, bytes(200_000))
                assert not answer.success
                assert "disk" in answer.message
                assert answer.next_sequence == sequence + 1
            disk.clear()
            assert (await append(3, b"last")).success
            assert (await worker.report(task)).verdict == pb.VERDICT_ACCEPTED
            pages = at.tasks.GetTaskLogs(pb.GetTaskLogsRequest(task_id="a"))
            chunks = [chunk async for page in pages for chunk in page.chunks]
            assert [(chunk.sequence, chunk.data) for chunk in chunks] == [(0, b"first "), (3, b"last")]


def test_what_did_not_fit_leaves_nothing_behind(tmp_path: Path) -> None:
    with small_disk.mounted(tmp_path, 1) as disk:
        logs, key = attempt_logs.AttemptLogs(tmp_path), attempt_logs.Key("a", 1, "e", "r")
        logs.append(key, [attempt_logs.Chunk(0, 1, 0, b"x")])
        (segment,) = logs.path(key).iterdir()
        size = segment.stat().st_size
        with pytest.raises(OSError, match="space"):
            logs.append(key, [attempt_logs.Chunk(1, 1, 1, bytes(2 * 2**20))])
        assert segment.stat().st_size == size
        disk.clear()
        assert logs.append(key, [attempt_logs.Chunk(1, 1, 1, b"y")]) == 2
        assert [chunk.data for chunk in logs.read(key, 0, 100).chunks] == [b"x", b"y"]


async def test_a_result_does_not_wait_for_the_workers_disk_of_output(tmp_path: Path) -> None:
    with small_disk.mounted(tmp_path / "spool", 1) as disk:
        file = spool.Spool(disk.path / "output")
        disk.fill()
        for number in range(100):
            file.add(1, number * 10_000, bytes(10_000))
        assert file.left_out_bytes > 0
        assert file.batch(10**6) == []
        disk.clear()
        file.add(1, 10**6, b"there again")
        *waited, last = file.batch(10**6)
        assert sum(len(chunk.data) for chunk in waited) == 10**6 - file.left_out_bytes
        assert (last.offset, last.data) == (10**6, b"there again")
        file.remove()


def test_a_disk_that_is_full_for_a_moment_costs_no_output(tmp_path: Path) -> None:
    # 42,033 bytes of a task were once nowhere, as its worker's disk had been full for some seconds.
    lines = [b"line %05d of a task\n" % number for number in range(2_000)]
    with small_disk.mounted(tmp_path / "spool", 1) as disk:
        file = spool.Spool(disk.path / "output")
        disk.fill()
        for number, line in enumerate(lines[:1_500]):
            file.add(1, number * len(line), line)
        assert file.batch(10_000) == []
        assert file.waiting_bytes > 0
        disk.clear()
        sent = file.batch(10_000)
        file.arrived(sent[-1].sequence + 1)
        for number, line in enumerate(lines[1_500:], 1_500):
            file.add(1, number * len(line), line)
        file.close()
        again = spool.Spool(disk.path / "output")
        assert [chunk.data for chunk in again.batch(10**6)] == lines
        assert [chunk.sequence for chunk in again.batch(10**6)] == list(range(len(lines)))
        assert file.left_out_bytes == 0
        again.remove()


def test_output_that_the_disk_does_not_let_go_of_ends_no_attempt(tmp_path: Path) -> None:
    path = tmp_path / "output"
    file = spool.Spool(path)
    file.add(1, 0, b"said")
    file.close()
    path.unlink()
    path.mkdir()  # what no unlink removes
    file.remove()
