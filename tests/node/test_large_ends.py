"""Ends as large as a message and larger: each is delivered, and can be read by whoever asks."""

from __future__ import annotations

from pathlib import Path

import node_parts
import pool_parts
import pytest
import waiting
from scripted_pool import ScriptedPool, serving

from hivemind_worker import errors, units
from hivemind_worker.client import asynchronous
from hivemind_worker.tasks import plan
from hivemind_worker.tasks.kinds import kind
from hivemind_worker.wire import budget, calls

pb = calls.pb
MIB = 1024**2
LIMITS = kind.NodeLimits(
    "example/none:1", 60.0, 2.0, plan.Caps(3 * MIB, 3 * MIB, units.GIB, 10_000, 16, 60.0), node_parts.CAPACITY
)
"""Of a node whose owner lets it keep 6 MiB of output: what is no text takes three times that in a message."""

NOISE = "head -c 4000000 /dev/zero | tr '\\0' '\\377'; head -c 1500000 /dev/zero > results/kept"


async def test_an_end_with_more_output_than_a_message_holds_is_delivered_and_its_files_are_there(
    tmp_path: Path,
) -> None:
    async with (
        pool_parts.running(tmp_path / "pool") as at,
        node_parts.running(at.pool.address, tmp_path / "node", limits=LIMITS),
        asynchronous.AsyncClient(at.pool.address) as client,
    ):
        (task_id,) = await client.submit({"command": NOISE})
        (task,) = await client.wait(task_id, 30)
        assert (task.status, task.attempt) == ("completed", 1)
        assert task.result is not None
        assert task.result.flags == {"output_truncated"}
        assert [file.name for file in await client.results(task_id)] == ["kept"]
        assert (await client.task(task_id)).attempt == 1


@pytest.mark.long
async def test_an_end_that_a_pool_refuses_for_its_size_is_made_smaller_until_it_is_taken(tmp_path: Path) -> None:
    pool = ScriptedPool()
    refusals = [
        errors.Rejected("too large", "TOO_LARGE"),  # it may meet the news that the task runs
        errors.Rejected("too large", "TOO_LARGE"),
        errors.Exhausted("no room for so much"),
        errors.Rejected("too large", "TOO_LARGE"),
        errors.Rejected("you lost it", "MISSING_ARTIFACT"),
    ]
    async with serving(pool) as address, node_parts.running(address, tmp_path, limits=LIMITS):
        pool.fail["ReportTaskResult"] = list(refusals)
        await pool.give(pb.Task(id="t", type="command", command=NOISE, attempt=1))
        await waiting.wait_until(lambda: "t" in pool.ends(), description="the end is taken", seconds=60)
    report = pool.ends()["t"]
    assert report.ByteSize() <= budget.MESSAGE_BUDGET // 4
    assert [file.name for file in report.result.files] == ["kept"]
    assert (report.status, report.result.exit_code) == ("completed", 0)


@pytest.mark.long
async def test_what_a_pool_took_just_below_the_limit_can_be_read_in_every_way(tmp_path: Path) -> None:
    async with (
        pool_parts.running(tmp_path) as at,
        asynchronous.AsyncClient(at.pool.address) as client,
    ):
        worker = await at.worker()
        ids = await client.submit([{"command": "true", "labels": {"k": "v" * 60}}] * 2)
        names = [f"{number:06}{'n' * 60}" for number in range(16_000)]
        (stored,) = await at.pool._parts.files.keep([b"x"])
        for task_id in ids:
            task = await worker.take()
            files = [pb.ResultFile(name=name, size=1, sha256=stored.sha256) for name in names]
            room = calls.MESSAGE_BYTES - 200 - sum(file.ByteSize() + 3 for file in files)
            answer = await worker.report(task, files=files, logs="x" * room)
            assert answer.verdict == pb.VERDICT_ACCEPTED, task_id
        for ended in await client.wait(ids, 30):
            assert ended.truncated
            assert ended.result is not None
            assert [file.name for file in ended.result.results] == names
        shown = await client.task(ids[0])
        assert (shown.truncated, shown.as_json()["truncated"]) == (True, True)
        assert len(await client.results(ids[1])) == len(names)
        assert [task.id async for task in client.tasks()] == ids[::-1]


@pytest.mark.long
async def test_output_written_byte_by_byte_can_be_read(tmp_path: Path) -> None:
    async with (
        pool_parts.running(tmp_path) as at,
        asynchronous.AsyncClient(at.pool.address) as client,
    ):
        worker = await at.worker()
        (task_id,) = await client.submit({"command": "true"})
        task = await worker.take()
        # Large numbers take more of a message than the byte itself. No position beyond 2**53 is taken.
        count, start_offset, start_sequence = 180_000, 2**53 - 180_000, 2**40
        for start in range(0, count, 60_000):
            chunks = [
                pb.LogChunk(
                    stream=pb.LOG_STREAM_STDOUT, offset=start_offset + n, sequence=start_sequence + n, data=b"x"
                )
                for n in range(start, start + 60_000)
            ]
            request = pb.AppendTaskLogsRequest(
                task_id=task_id, attempt=task.attempt, node_id="n", session_id=worker.session_id, chunks=chunks
            )
            await at.nodes.AppendTaskLogs(iter([request]))
        await worker.report(task)
        outputs = [output async for output in client.logs(task_id)]
        assert outputs.pop(0).missing_bytes == start_offset
        assert sum(len(output.data) for output in outputs) == count


async def test_more_nodes_than_a_message_holds_are_all_listed(tmp_path: Path) -> None:
    async with (
        pool_parts.running(tmp_path) as at,
        asynchronous.AsyncClient(at.pool.address) as client,
    ):
        names = [f"n{number:02}" for number in range(12)]
        for name in names:
            await at.worker(name, capabilities=["c" * 1_000] * 500)
        assert [node.node_id for node in await client.nodes()] == names
