"""How streams of answers end, by a context of gRPC that does what the real one does only at the wrong moment."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from typing import Any, cast

import grpc
import pytest
import waiting

from hivemind_worker.pool.api import answering, measuring, streams
from hivemind_worker.wire import calls

pb = calls.pb


class BrokenLine:
    """A call whose line breaks before gRPC has cancelled it: a write fails, and so does every word to its caller."""

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def add_done_callback(self, _callback: object) -> None:
        """It is never called."""

    async def write(self, _data: bytes) -> None:
        raise grpc.aio.InternalError("Failed execute_batch: SendMessageOperation")

    async def abort(self, *_: object, **__: object) -> None:
        raise grpc.aio.InternalError("Failed execute_batch: SendStatusFromServerOperation")


class Servicer:
    """One stream."""

    def __init__(self) -> None:
        self.told = measuring.Measuring()
        self.streams = streams.Streams()

    @answering.many
    async def watch(
        self, _request: pb.GetTaskRequest, _context: calls.Context
    ) -> AsyncGenerator[pb.TaskInfo | answering.Large[pb.TaskInfo], None]:
        yield pb.TaskInfo()


async def test_a_write_to_a_line_that_has_broken_is_no_defect_of_the_pool(caplog: pytest.LogCaptureFixture) -> None:
    servicer, context = Servicer(), cast("calls.Context", BrokenLine())
    await cast("Any", servicer.watch(pb.GetTaskRequest(), context))
    assert [record.msg for record in caplog.records] == []
    assert servicer.streams.answers.used_bytes == 0


class SlowReader(BrokenLine):
    """A call that reads one message for every `reads`."""

    def __init__(self) -> None:
        self.reads = asyncio.Semaphore(0)
        self.messages: list[bytes] = []

    async def write(self, data: bytes) -> None:
        self.messages.append(data)
        await self.reads.acquire()


PIECE = bytes(1024**2)
TWO_PIECES = 2 * streams.PIECE_FACTOR * (len(PIECE) + streams.SMALL_ANSWER_BYTES)


class Downloads(Servicer):
    """One stream of two pieces of a file."""

    def __init__(self) -> None:
        super().__init__()
        self.streams = streams.Streams(downloads=streams.Budget(TWO_PIECES, TWO_PIECES))
        self.pieces_read = 0

    async def make(self) -> pb.DownloadResultResponse:
        self.pieces_read += 1
        return pb.DownloadResultResponse(data=PIECE)

    @answering.many
    async def download(
        self, _request: pb.GetTaskRequest, _context: calls.Context
    ) -> AsyncGenerator[answering.Piece[pb.DownloadResultResponse], None]:
        for _ in range(2):
            yield answering.Piece(self.make, len(PIECE))


async def test_a_piece_of_a_file_is_read_once_there_is_room_to_send_it() -> None:
    servicer, reader = Downloads(), SlowReader()
    downloads = servicer.streams.downloads
    with await downloads.take("ipv4:127.0.0.1", TWO_PIECES):
        call = asyncio.create_task(cast("Any", servicer.download(pb.GetTaskRequest(), cast("calls.Context", reader))))
        await asyncio.wait({call}, timeout=0.1)
        assert servicer.pieces_read == 0
    await waiting.wait_until(lambda: len(reader.messages) == 1, description="the first is written", seconds=10)
    assert downloads.used_bytes == 2 * len(reader.messages[0])
    assert servicer.pieces_read == 1
    reader.reads.release()
    reader.reads.release()
    await call
    assert servicer.pieces_read == 2
    assert downloads.used_bytes == 0


class Pages(Servicer):
    """One stream of two messages, which the test has too, to see who else does."""

    def __init__(self) -> None:
        super().__init__()
        self.messages = [pb.GetTaskLogsResponse(attempt=number) for number in (1, 2)]
        self.goes_on = asyncio.Event()

    @answering.many
    async def pages(
        self, _request: pb.GetTaskRequest, _context: calls.Context
    ) -> AsyncGenerator[pb.GetTaskLogsResponse, None]:
        for number in range(2):
            yield self.messages[number]
            await self.goes_on.wait()


async def test_nobody_keeps_a_message_that_is_written_or_was() -> None:
    servicer, reader = Pages(), SlowReader()

    def users() -> int:
        return sys.getrefcount(servicer.messages[0])

    unused = users()
    call = asyncio.create_task(cast("Any", servicer.pages(pb.GetTaskRequest(), cast("calls.Context", reader))))
    await waiting.wait_until(lambda: reader.messages, description="the first is written", seconds=10)
    assert users() == unused
    reader.reads.release()
    await waiting.wait_until(lambda: not servicer.streams.answers.used_bytes, description="it was read", seconds=10)
    assert users() == unused
    servicer.goes_on.set()
    reader.reads.release()
    await call
