"""Output that never reached the pool: a gap that is marked and flagged, or filled from the report; never silence."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pool_parts
import pytest

from hivemind_worker.client import asynchronous, following
from hivemind_worker.pool.api import attempt_logs
from hivemind_worker.wire import calls

pb = calls.pb

OUT, ERR = pb.LOG_STREAM_STDOUT, pb.LOG_STREAM_STDERR


@dataclasses.dataclass
class Sender:
    """A node that sends chunks of its one task's output."""

    at: pool_parts.Running
    worker: pool_parts.Worker
    task: pb.Task

    async def send(self, *chunks: tuple[int, int, bytes, Any]) -> None:
        """Send chunks: number, offset, data, stream."""
        request = pb.AppendTaskLogsRequest(
            task_id=self.task.id,
            attempt=self.task.attempt,
            node_id=self.worker.name,
            session_id=self.worker.session_id,
            chunks=[
                pb.LogChunk(sequence=number, offset=offset, data=data, stream=stream)
                for number, offset, data, stream in chunks
            ],
        )
        assert (await self.at.nodes.AppendTaskLogs(iter([request]))).success


async def begin(at: pool_parts.Running) -> Sender:
    await at.submit(pb.Task(id="a", command="true"))
    worker = await at.worker()
    return Sender(at, worker, await worker.take())


async def shown(at: pool_parts.Running, *, follow: bool = False) -> list[following.Output]:
    async with asynchronous.AsyncClient(at.pool.address) as client:
        return [output async for output in client.logs("a", follow=follow)]


def text(outputs: list[following.Output], stream: str = "stdout") -> bytes:
    return b"".join(output.data for output in outputs if output.stream == stream)


@pytest.mark.parametrize("follow", [False, True])
async def test_what_was_lost_on_the_way_is_shown_from_the_report(tmp_path: Path, follow: bool) -> None:
    async with pool_parts.running(tmp_path) as at:
        sender = await begin(at)
        await sender.send((0, 42_033, b"end\n", OUT))
        whole = b"x" * 42_032 + b"\nend\nlast\n"
        await sender.worker.report(sender.task, logs=whole.decode(), stdout_bytes=len(whole))
        outputs = await shown(at, follow=follow)
        assert text(outputs) == whole
        assert not any(output.missing_bytes for output in outputs)
        assert (await at.info("a")).result.flags == []


async def test_what_nobody_has_is_marked_and_flagged(tmp_path: Path) -> None:
    async with pool_parts.running(tmp_path) as at:
        sender = await begin(at)
        await sender.send((0, 100, b"here\n", OUT), (1, 0, b"well\n", ERR))
        await sender.worker.report(
            sender.task, logs="cut", stdout_bytes=165, stderr_bytes=5, flags=["output_truncated"]
        )
        outputs = await shown(at)
        assert [(output.stream, output.data, output.missing_bytes) for output in outputs] == [
            ("system", b"[hivemind: 100 bytes of stdout are missing here]\n", 100),
            ("stdout", b"here\n", 0),
            ("stderr", b"well\n", 0),
            ("system", b"[hivemind: 60 bytes of stdout are missing here]\n", 60),
        ]
        async with asynchronous.AsyncClient(at.pool.address) as client:
            (task,) = await client.wait("a", 10)
            assert task.as_json()["flags"] == ["output_incomplete", "output_truncated"]
            assert [each.as_json()["flags"] async for each in client.tasks()] == [task.as_json()["flags"]]


async def test_no_byte_at_all_came_and_the_report_has_none(tmp_path: Path) -> None:
    async with pool_parts.running(tmp_path) as at:
        sender = await begin(at)
        await sender.worker.report(sender.task, stdout_bytes=7)
        assert [output.missing_bytes for output in await shown(at)] == [7]
        assert (await at.info("a")).result.flags == ["output_incomplete"]


async def test_all_of_two_streams_is_lost_but_for_the_report(tmp_path: Path) -> None:
    async with pool_parts.running(tmp_path) as at:
        sender = await begin(at)
        await sender.worker.report(sender.task, logs="out\nerr\n", stdout_bytes=4, stderr_bytes=4)
        outputs = await shown(at)
        assert [output.stream for output in outputs] == ["system", "stdout"]
        assert b"both streams in one" in outputs[0].data
        assert outputs[1].data == b"out\nerr\n"
        assert (await at.info("a")).result.flags == ["output_incomplete"]


async def test_the_flag_goes_when_the_last_of_the_output_comes_after_the_end(tmp_path: Path) -> None:
    async with pool_parts.running(tmp_path) as at:
        sender = await begin(at)
        await sender.send((0, 0, b"out\n", OUT))
        await sender.worker.report(sender.task, logs="out\nerr\n", stdout_bytes=4, stderr_bytes=4)
        assert (await at.info("a")).result.flags == ["output_incomplete"]
        await sender.send((1, 0, b"err\n", ERR))
        assert (await at.info("a")).result.flags == []
        assert [output.missing_bytes for output in await shown(at)] == [0, 0]


async def test_whoever_goes_on_from_a_number_gets_each_byte_once(tmp_path: Path) -> None:
    async with pool_parts.running(tmp_path) as at:
        sender = await begin(at)
        await sender.send((0, 2, b"cd", OUT), (1, 6, b"gh", OUT))
        await sender.worker.report(sender.task, logs="abcdefghij", stdout_bytes=10)
        for first, wanted in ((0, b"abcdefghij"), (1, b"efghij"), (2, b"ij")):
            pages = at.tasks.GetTaskLogs(pb.GetTaskLogsRequest(task_id="a", from_sequence=first))
            assert b"".join([chunk.data async for page in pages for chunk in page.chunks]) == wanted


async def test_output_is_on_the_disk_before_its_end_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    async with pool_parts.running(tmp_path) as at:
        sender = await begin(at)
        await sender.send((0, 0, b"out\n", OUT), (1, 0, b"err\n", ERR))
        assert not [path for path in synced if "logs" in path.parts]
        await sender.worker.report(sender.task, logs="out\nerr\n", stdout_bytes=4, stderr_bytes=4)
        (segment,) = [path for path in (tmp_path / "logs").rglob("*") if path.is_file()]
        assert {segment, segment.parent, segment.parent.parent, tmp_path / "logs"} <= set(synced)


def test_what_was_synced_is_not_synced_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls_made: list[int] = []
    monkeypatch.setattr(os, "fsync", calls_made.append)
    files, key = attempt_logs.AttemptLogs(tmp_path), attempt_logs.Key("a", 1, "e", "r")
    files.append(key, [attempt_logs.Chunk(0, 1, 0, b"x")])
    files.sync(key)
    assert calls_made
    calls_made.clear()
    files.sync(key)
    assert calls_made == []
