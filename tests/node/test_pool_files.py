"""Files, output and changes through the pool's streams: resumed, checked, followed, bounded."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pool_parts
import pytest
import pytest_asyncio
import waiting

from hivemind_worker.wire import calls, verdicts

pb = calls.pb
MIB = 1024**2


@pytest_asyncio.fixture
async def at(tmp_path: Path) -> AsyncIterator[pool_parts.Running]:
    async with pool_parts.running(tmp_path, artifact_limit_bytes=8 * MIB) as running:
        yield running


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def pieces(data: bytes, sum_: str = "", offset: int = 0, end: int | None = None) -> list[pb.UploadInputRequest]:
    said = [
        pb.UploadInputRequest(offset=start, data=data[start : min(start + MIB, end or len(data))])
        for start in range(offset, end or len(data), MIB)
    ] or [pb.UploadInputRequest()]
    said[0].sha256, said[0].size = sum_ or sha256(data), len(data)
    return said


async def test_an_upload_goes_on_where_it_broke_off(at: pool_parts.Running) -> None:
    data = os.urandom(3 * MIB + 5)
    half = await at.tasks.UploadInput(iter(pieces(data, end=2 * MIB)))
    assert (half.success, half.stored_bytes) == (False, 2 * MIB)
    asked = await at.tasks.UploadInput(iter([pb.UploadInputRequest(sha256=sha256(data), size=len(data))]))
    assert asked.stored_bytes == 2 * MIB
    (found,) = (await at.tasks.FindArtifacts(pb.FindArtifactsRequest(sha256=[sha256(data)]))).artifacts
    assert (found.complete, found.stored_bytes) == (False, 2 * MIB)
    whole = await at.tasks.UploadInput(iter(pieces(data, offset=MIB)))  # a repeated piece does no harm
    assert (whole.success, whole.stored_bytes) == (True, len(data))
    again = await at.tasks.UploadInput(iter(pieces(data)))
    assert again.stored_bytes == len(data)
    worker = await at.worker()
    request = pb.DownloadArtifactRequest(node_id="n", session_id=worker.session_id, sha256=sha256(data), offset=MIB + 1)
    parts = [part async for part in at.nodes.DownloadArtifact(request)]
    assert b"".join(part.data for part in parts) == data[MIB + 1 :]
    assert (parts[0].offset, parts[0].size) == (MIB + 1, len(data))


async def test_an_empty_file(at: pool_parts.Running) -> None:
    assert (await at.tasks.UploadInput(iter(pieces(b"")))).success
    worker = await at.worker()
    request = pb.DownloadArtifactRequest(node_id="n", session_id=worker.session_id, sha256=sha256(b""))
    assert [(part.data, part.size) async for part in at.nodes.DownloadArtifact(request)] == [(b"", 0)]


@pytest.mark.parametrize(
    ("said", "course"),
    [
        (pieces(b"other content", sha256(b"content")), verdicts.Course.RETRY),
        (pieces(b"abc", offset=1), verdicts.Course.RETRY),
        ([pb.UploadInputRequest(sha256=sha256(b"x"), size=9 * MIB)], verdicts.Course.GIVE_UP),
        ([pb.UploadInputRequest(sha256=sha256(b"x"), size=1, data=b"more")], verdicts.Course.GIVE_UP),
        ([pb.UploadInputRequest(sha256="../../x", size=1)], verdicts.Course.GIVE_UP),
        ([pb.UploadInputRequest(sha256=sha256(b"x"), size=-1)], verdicts.Course.GIVE_UP),
        ([], verdicts.Course.GIVE_UP),
    ],
    ids=["wrong sum", "a gap", "too large", "more than announced", "no sum", "no size", "nothing"],
)
async def test_uploads_that_are_refused(
    at: pool_parts.Running, said: list[pb.UploadInputRequest], course: verdicts.Course
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await at.tasks.UploadInput(iter(said))
    assert verdicts.read(caught.value).course is course, caught.value
    for data in (b"content", b"x", b"abc"):
        assert (await at.tasks.UploadInput(iter(pieces(data)))).success


async def test_a_result_whose_files_are_missing_is_not_accepted_until_they_are_there(at: pool_parts.Running) -> None:
    worker = await at.worker()
    (task_id,) = await at.submit()
    task = await worker.take()
    files = [pb.ResultFile(name="out.bin", size=6, sha256=sha256(b"result"), mode=0o644)]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await worker.report(task, files=files)
    verdict = verdicts.read(caught.value)
    assert (verdict.code, verdict.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        verdicts.Reason.MISSING_ARTIFACT,
    )
    assert sha256(b"result") in verdict.message
    upload = pb.UploadArtifactRequest(
        sha256=sha256(b"result"),
        size=6,
        data=b"result",
        node_id="n",
        session_id=worker.session_id,
        task_id=task_id,
        attempt=1,
    )
    assert (await at.nodes.UploadArtifact(iter([upload]))).success
    assert (await worker.report(task, files=files)).verdict == pb.VERDICT_ACCEPTED
    request = pb.DownloadResultRequest(task_id=task_id, name="out.bin", offset=2)
    assert [part.data async for part in at.tasks.DownloadResult(request)] == [b"sult"]
    for wrong in (pb.DownloadResultRequest(task_id=task_id, name="../out.bin"), request):
        wrong.offset = 7
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            [part async for part in at.tasks.DownloadResult(wrong)]
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_strangers_neither_upload_nor_download_nor_log(at: pool_parts.Running) -> None:
    (task_id,) = await at.submit()
    worker, other = await at.worker(), await at.worker("other")
    await worker.take()
    for call in (
        at.nodes.UploadArtifact(iter([pb.UploadArtifactRequest(node_id="x", sha256=sha256(b""), size=0)])),
        at.nodes.AppendTaskLogs(iter([pb.AppendTaskLogsRequest(node_id="x", task_id=task_id, attempt=1)])),
        at.nodes.AppendTaskLogs(
            iter(
                [pb.AppendTaskLogsRequest(node_id=other.name, session_id=other.session_id, task_id=task_id, attempt=1)]
            )
        ),
    ):
        with pytest.raises(grpc.aio.AioRpcError):
            await call
    with pytest.raises(grpc.aio.AioRpcError):
        async for _ in at.nodes.DownloadArtifact(pb.DownloadArtifactRequest(node_id="x", sha256=sha256(b""))):
            pass


async def log(worker: pool_parts.Worker, task: pb.Task, *chunks: tuple[int, bytes]) -> int:
    request = pb.AppendTaskLogsRequest(
        task_id=task.id,
        attempt=task.attempt,
        node_id=worker.name,
        session_id=worker.session_id,
        chunks=[
            pb.LogChunk(stream=pb.LOG_STREAM_STDOUT, offset=number, data=data, sequence=number)
            for number, data in chunks
        ],
    )
    return (await worker.at.nodes.AppendTaskLogs(iter([request]))).next_sequence


async def read(at: pool_parts.Running, task_id: str, **said: Any) -> list[tuple[int, int, bytes]]:
    request = pb.GetTaskLogsRequest(task_id=task_id, **said)
    return [
        (answer.attempt, chunk.sequence, chunk.data)
        async for answer in at.tasks.GetTaskLogs(request)
        for chunk in answer.chunks
    ]


async def test_output_is_kept_once_and_followed_through_every_attempt(at: pool_parts.Running) -> None:
    worker = await at.worker()
    (task_id,) = await at.submit()
    following = asyncio.create_task(read(at, task_id, follow=True))
    first = await worker.take()
    assert await log(worker, first, (0, b"a"), (1, b"b")) == 2
    assert await log(worker, first, (0, b"a"), (1, b"b"), (2, b"c")) == 3
    assert await read(at, task_id) == [(1, 0, b"a"), (1, 1, b"b"), (1, 2, b"c")]
    assert await read(at, task_id, from_sequence=2) == [(1, 2, b"c")]
    await worker.report(first, "failed", reason="engine_lost")
    second = await worker.take()
    await log(worker, second, (0, b"again"))
    await worker.report(second, logs="again")
    async with asyncio.timeout(10):
        assert await following == [(1, 0, b"a"), (1, 1, b"b"), (1, 2, b"c"), (2, 0, b"again")]
    assert await read(at, task_id, attempt=1, from_sequence=1, follow=True) == [(1, 1, b"b"), (1, 2, b"c")]


async def test_output_that_came_with_the_report_alone(at: pool_parts.Running) -> None:
    worker = await at.worker()
    (task_id,) = await at.submit()
    following = asyncio.create_task(read(at, task_id, follow=True))
    await worker.report(await worker.take(), logs="all of it")
    async with asyncio.timeout(10):
        assert await following == [(1, 0, b"all of it")]


async def test_watching_tells_now_and_every_change_to_the_end(at: pool_parts.Running) -> None:
    worker = await at.worker()
    one, other = await at.submit(pb.Task(command="true"), pb.Task(command="true"))
    seen: list[tuple[str, str]] = []

    async def watch() -> None:
        async for answer in at.tasks.WatchTasks(pb.WatchTasksRequest(task_ids=[one, other, one])):
            seen.append((answer.task.id, answer.task.state))  # noqa: PERF401  (each as it comes)

    watching = asyncio.create_task(watch())
    await waiting.wait_until(lambda: len(seen) == 2, description="both are told at once")
    await worker.report(await worker.take())
    await waiting.wait_until(lambda: (one, "completed") in seen, description="the first has ended")
    assert not watching.done()
    await at.tasks.CancelTasks(pb.CancelTasksRequest(task_ids=[other]))
    async with asyncio.timeout(10):
        await watching
    assert seen[-1] == (other, "cancelled")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in at.tasks.WatchTasks(pb.WatchTasksRequest(task_ids=[one, "nobody"])):
            pass
    assert verdicts.read(caught.value).reason is verdicts.Reason.NO_SUCH_TASK


async def test_pages_hold_large_results_and_end(at: pool_parts.Running) -> None:
    worker = await at.worker(cpu_cores=500, memory_gb=500, disk_gb=500)
    ids = await at.submit(*[pb.Task(command="true") for _ in range(7)])
    tasks = (await worker.poll(10, most=7)).tasks
    for task in tasks:
        await worker.report(task, logs="x" * MIB, error="y" * MIB)
    seen: list[str] = []
    token, pages = "", 0
    while pages == 0 or token:
        answer = await at.tasks.ListTasks(pb.ListTasksRequest(page_token=token))
        assert not any(task.result.logs for task in answer.tasks)
        seen += [task.id for task in answer.tasks]
        token, pages = answer.next_page_token, pages + 1
    assert seen == list(reversed(ids))
    assert pages >= 3
    again = await at.tasks.RetryTasks(pb.RetryTasksRequest(task_ids=ids[:2]))
    assert (await at.info(again.new_task_ids[1])).retry_of == ids[1]


POOL_PROCESS = """
import asyncio, sys
from pathlib import Path
from hivemind_worker.pool import server

async def main():
    pool = server.NodePool(Path(sys.argv[1]))
    print(await pool.start(), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await pool.stop()

asyncio.run(main())
"""


@contextlib.contextmanager
def pool_process(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-c", POOL_PROCESS, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield process, process.stdout.readline().strip()
        assert process.stdin
        process.stdin.close()


@pytest.mark.long
async def test_a_gibibyte_goes_in_and_out_with_memory_flat(tmp_path: Path) -> None:
    size = 1024 * MIB
    block = os.urandom(MIB)
    running = hashlib.sha256()
    for _ in range(size // MIB):
        running.update(block)
    name = running.hexdigest()

    async def said() -> AsyncIterator[pb.UploadInputRequest]:
        for offset in range(0, size, MIB):
            yield pb.UploadInputRequest(sha256=name, size=size, offset=offset, data=block)

    with pool_process(tmp_path) as (process, address):
        async with grpc.aio.insecure_channel(address, options=calls.CLIENT_OPTIONS) as channel:
            tasks, nodes = calls.task_manager(channel), calls.node_manager(channel)
            assert (await tasks.UploadInput(said())).success
            session = await nodes.RegisterNode(pb.RegisterNodeRequest(node_id="n", boot_id="b"))
            request = pb.DownloadArtifactRequest(node_id="n", session_id=session.session_id, sha256=name)
            came = hashlib.sha256()
            async for part in nodes.DownloadArtifact(request):
                came.update(part.data)
            assert came.hexdigest() == name
        assert _peak_kib(process.pid) < 200 * 1024


def _peak_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


async def test_a_damaged_file_is_said_to_be_missing_and_is_taken_again(at: pool_parts.Running, tmp_path: Path) -> None:
    data = os.urandom(MIB + 5)
    assert (await at.tasks.UploadInput(iter(pieces(data)))).success
    stored = tmp_path / "artifacts" / "objects" / sha256(data)[:2] / sha256(data)
    stored.chmod(0o600)
    stored.write_bytes(data[:MIB])  # the disk has lost its end
    task = pb.Task(command="true")
    task.input_artifacts["in.bin"].CopyFrom(pb.ArtifactRef(sha256=sha256(data), size=len(data)))
    with pytest.raises(grpc.aio.AioRpcError, match="upload it"):
        await at.submit(task)
    (found,) = (await at.tasks.FindArtifacts(pb.FindArtifactsRequest(sha256=[sha256(data)]))).artifacts
    assert (found.complete, found.stored_bytes) == (False, 0)
    assert (await at.tasks.UploadInput(iter(pieces(data)))).success
    assert await at.submit(task)
    stored.chmod(0o600)
    stored.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))  # of the same size: whoever reads it finds out
    worker = await at.worker()
    request = pb.DownloadArtifactRequest(node_id="n", session_id=worker.session_id, sha256=sha256(data))
    with pytest.raises(grpc.aio.AioRpcError, match="upload it again"):
        [part async for part in at.nodes.DownloadArtifact(request)]
    (found,) = (await at.tasks.FindArtifacts(pb.FindArtifactsRequest(sha256=[sha256(data)]))).artifacts
    assert (found.complete, found.stored_bytes) == (False, 0)
    assert (await at.tasks.UploadInput(iter(pieces(data)))).success


async def test_a_question_takes_no_upload_its_place(at: pool_parts.Running) -> None:
    data = os.urandom(2 * MIB)
    asked = asyncio.Event()

    async def slowly() -> AsyncIterator[pb.UploadInputRequest]:
        first, second = pieces(data)
        yield first
        await asked.wait()
        yield second

    call = at.tasks.UploadInput(slowly())

    async def begun() -> bool:
        question = iter([pb.UploadInputRequest(sha256=sha256(data), size=len(data))])
        return (await at.tasks.UploadInput(question)).stored_bytes == MIB

    look: Callable[[], Any] = begun
    await waiting.wait_until(look, description="the first piece has arrived")
    asked.set()
    assert (await call).success
