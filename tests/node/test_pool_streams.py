"""Streams that stand still: ended in time, with words, and neither they nor their number take the pool's memory."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sys
from pathlib import Path
from typing import Any, cast

import grpc
import pool_parts
import pytest
import waiting

from hivemind_worker import errors
from hivemind_worker.pool.api import answering, streams, task_service
from hivemind_worker.wire import calls

pb = calls.pb
MIB = 1024**2


def half_a_file(worker: pool_parts.Worker, sha256: str) -> pb.UploadArtifactRequest:
    return pb.UploadArtifactRequest(
        node_id=worker.name, session_id=worker.session_id, sha256=sha256, size=2 * MIB, data=bytes(MIB)
    )


async def test_an_upload_that_stands_still_is_ended_and_keeps_what_came(tmp_path: Path) -> None:
    async with pool_parts.running(tmp_path, budgets=streams.Streams(idle_seconds=0.3)) as at:
        worker = await at.worker()
        upload = at.nodes.UploadArtifact()
        await upload.write(half_a_file(worker, "a" * 64))
        with pytest.raises(grpc.aio.AioRpcError, match="nothing came for") as ended:
            await asyncio.wait_for(upload, 20)
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        (there,) = (await at.tasks.FindArtifacts(pb.FindArtifactsRequest(sha256=["a" * 64]))).artifacts
        assert there.stored_bytes == MIB


async def test_one_caller_s_uploads_are_counted_and_those_too_many_are_told_to_come_again(tmp_path: Path) -> None:
    files = streams.Budget(max_peer_bytes=2 * calls.MESSAGE_BYTES, wait_seconds=0.3)
    async with pool_parts.running(tmp_path, budgets=streams.Streams(files=files)) as at:
        worker = await at.worker()
        idle = [at.nodes.UploadArtifact() for _ in range(2)]
        for number, upload in enumerate(idle):
            await upload.write(half_a_file(worker, f"{number:064x}"))
        await waiting.wait_until(
            lambda: files.used_bytes == 2 * calls.MESSAGE_BYTES, description="both are under way", seconds=20
        )
        with pytest.raises(grpc.aio.AioRpcError, match="no room for another stream") as refused:
            await at.nodes.UploadArtifact(iter([half_a_file(worker, "c" * 64)]))
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert await at.submit(), "nobody else waits"
        idle[0].cancel()
        answer = await at.nodes.UploadArtifact(iter([half_a_file(worker, "c" * 64)]))
        assert answer.stored_bytes == MIB
        idle[1].cancel()


async def test_files_and_output_are_read_when_there_is_room_to_send_them_and_hold_up_nothing_else(
    tmp_path: Path,
) -> None:
    downloads = streams.Budget(MIB, MIB, wait_seconds=0.3)
    async with pool_parts.running(tmp_path, budgets=streams.Streams(downloads=downloads)) as at:
        worker = await at.worker()
        content = b"content" * 1_000
        file = pb.ResultFile(name="out", sha256=hashlib.sha256(content).hexdigest(), size=len(content))
        upload = half_a_file(worker, file.sha256)
        upload.size, upload.data = len(content), content
        assert (await at.nodes.UploadArtifact(iter([upload]))).success
        (task_id,) = await at.submit()
        task = await worker.take()
        output = pb.AppendTaskLogsRequest(
            task_id=task_id,
            attempt=1,
            node_id=worker.name,
            session_id=worker.session_id,
            chunks=[pb.LogChunk(stream=pb.LOG_STREAM_STDOUT, data=content)],
        )
        await at.nodes.AppendTaskLogs(iter([output]))
        await worker.report(task, files=[file], logs=content.decode())

        async def download() -> bytes:
            request = pb.DownloadResultRequest(task_id=task_id, name="out")
            return b"".join([part.data async for part in at.tasks.DownloadResult(request)])

        async def logs() -> bytes:
            request = pb.GetTaskLogsRequest(task_id=task_id)
            return b"".join([c.data async for page in at.tasks.GetTaskLogs(request) for c in page.chunks])

        with await downloads.take("ipv4:127.0.0.1", MIB):
            for call in (download, logs):
                with pytest.raises(grpc.aio.AioRpcError, match="no room for another stream"):
                    await call()
            info = (await at.tasks.GetTask(pb.GetTaskRequest(task_id=task_id))).task
            assert info.result.logs, "answers have room of their own"
        assert (await download(), await logs()) == (content, content)
        await waiting.wait_until(lambda: not downloads.used_bytes, description="nothing is counted", seconds=10)


async def test_a_watcher_that_does_not_read_is_ended_and_may_ask_again(tmp_path: Path) -> None:
    budgets = streams.Streams(write_seconds=0.5)
    async with pool_parts.running(tmp_path, budgets=budgets) as at:
        worker = await at.worker()
        ids = await at.submit(*[pb.Task(command="true", cpu_quota=1_000, memory_limit="6m") for _ in range(20)])
        ended = 0
        while ended < len(ids):
            for task in (await worker.poll(5, most=64)).tasks:
                await worker.report(task, logs="x" * 3 * MIB)
                ended += 1
        watched = at.tasks.WatchTasks(pb.WatchTasksRequest(task_ids=ids))
        first = await watched.read()
        assert isinstance(first, pb.WatchTasksResponse)
        followers = at.pool._parts.followers
        await waiting.wait_until(lambda: not followers._of, description="the pool follows nothing", seconds=20)
        assert budgets.answers.used_bytes > 0, "what the reader has not taken is in memory, and counts"
        with pytest.raises(grpc.aio.AioRpcError, match="nothing was read") as stopped:
            await asyncio.wait_for(read_all(watched), 30)
        assert stopped.value.code() is grpc.StatusCode.UNAVAILABLE
        await waiting.wait_until(lambda: budgets.answers.used_bytes == 0, description="nothing is counted", seconds=20)


async def read_all(watched: grpc.aio.UnaryStreamCall[pb.WatchTasksRequest, pb.WatchTasksResponse]) -> None:
    while await watched.read() is not grpc.aio.EOF:
        pass


def test_an_answer_that_no_message_holds_is_refused_with_words() -> None:
    answering._check_size("UploadInput", pb.UploadInputResponse(message="x" * (calls.MESSAGE_BYTES - 100)))
    with pytest.raises(errors.Rejected, match="UploadInput: the answer has"):
        answering._check_size("UploadInput", pb.UploadInputResponse(message="x" * calls.MESSAGE_BYTES))


async def test_room_goes_round_in_turn_and_a_caller_without_any_holds_up_nobody() -> None:
    room = streams.Budget(max_bytes=3, max_peer_bytes=2, wait_seconds=20)
    order: list[str] = []
    free = asyncio.Event()

    async def take(peer: str, name: str) -> None:
        async with room.room(peer, 1):
            order.append(name)
            await free.wait()

    async with asyncio.TaskGroup() as group:
        for peer, name in (("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"), ("c", "c1")):
            group.create_task(take(peer, name))
        await waiting.wait_until(lambda: len(order) == 3, description="three are in")
        assert order == ["a1", "a2", "b1"]
        free.set()
    assert order == ["a1", "a2", "b1", "a3", "c1"]
    assert room.used_bytes == 0


async def test_whoever_stops_waiting_takes_no_room_and_too_many_may_not_wait() -> None:
    room = streams.Budget(max_bytes=1, max_peer_bytes=1, max_waiting=1, wait_seconds=20)
    async with room.room("a", 1):
        waiter = asyncio.create_task(room._take("b", 1))
        await asyncio.sleep(0)
        with pytest.raises(errors.Unavailable, match="too many wait"):
            await room._take("c", 1)
        waiter.cancel()
        await asyncio.wait({waiter})
    assert room.used_bytes == 0
    async with room.room("b", 1):
        assert room.used_bytes == 1


async def test_what_waits_in_memory_is_bounded_too_and_the_rest_is_refused_at_once() -> None:
    """A thousand watchers had each their first message while they waited for room: 3 GiB."""
    room = streams.Budget(max_bytes=16, max_peer_bytes=8, wait_seconds=20)
    refused = 0
    entered: list[str] = []
    free = asyncio.Event()

    async def write(peer: str) -> None:
        nonlocal refused
        try:
            async with room.room(peer, 1, in_memory=1):
                entered.append(peer)
                await free.wait()
        except errors.Unavailable:
            refused += 1

    async with asyncio.TaskGroup() as group:
        for peer in "a" * 100 + "b" * 100 + "c" * 100:
            group.create_task(write(peer))
        await waiting.wait_until(lambda: len(entered) == 15, description="the room is full")
        assert [entered.count(peer) for peer in "abc"] == [8, 6, 1], "two are reserved for callers with little"
        assert refused == 300 - 15 - 4, "two of the first two wait, and no more than four in all"
        free.set()
    assert (len(entered), room.used_bytes, room._waiting_bytes) == (19, 0, {})


async def test_callers_that_use_up_their_room_leave_some_for_others() -> None:
    """Four addresses with as many watchers as they might have left nobody else room to read a request."""
    room = streams.Budget(max_bytes=128, max_peer_bytes=32, wait_seconds=20)
    async with contextlib.AsyncExitStack() as stack:
        waiters = [asyncio.create_task(stack.enter_async_context(room.room(peer, 4))) for peer in "abcd" * 16]
        await asyncio.wait(waiters[:28])
        assert room.used_bytes == 128 - 16
        for peer in "efgh":
            async with asyncio.timeout(1):
                await stack.enter_async_context(room.room(peer, 4))
        assert room.used_bytes == 128
        late = asyncio.create_task(room.take("i", 4))
        await asyncio.sleep(0)
        assert not late.done()
        room.give_back("e", 4)
        assert (await late).size == 4, "what is reserved goes to nobody who has much, however long they wait"
        room.give_back("i", 4)
        room._count("e", 4)
        for waiter in waiters:
            waiter.cancel()
        await asyncio.wait(waiters)
    assert room.used_bytes == 0


async def test_nothing_always_has_room() -> None:
    room = streams.Budget(max_bytes=4, max_peer_bytes=2, wait_seconds=0.1)
    with await room.take("one", 5):  # larger than all the room: it goes alone
        with await room.take("one", 0), await room.take("another", 0):
            assert room.used_bytes == 5
        with pytest.raises(errors.Unavailable):
            await room.take("one", 1)


async def test_a_page_of_output_is_its_reader_s_alone(tmp_path: Path) -> None:
    async with pool_parts.running(tmp_path) as at:
        (task_id,) = await at.submit()
        worker = await at.worker()
        await worker.report(await worker.take(), logs="said")
        made = cast("Any", task_service.TaskManager.GetTaskLogs).__wrapped__
        servicer, request = task_service.TaskManager(at.pool._parts), pb.GetTaskLogsRequest(task_id=task_id)
        async with contextlib.aclosing(made(servicer, request, Caller())) as pages:
            page = await anext(pages)
            users, alone = sys.getrefcount(page), sys.getrefcount(pb.GetTaskLogsResponse())
            assert page.chunks[0].data == b"said"
            assert users == alone + 1  # this test's own name for it


class Caller:
    """A call of this machine's."""

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"
