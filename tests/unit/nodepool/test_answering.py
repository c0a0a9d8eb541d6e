"""How streams of answers end, by a context of gRPC that does what the real one does only at the wrong moment."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, cast

import grpc
import pytest

from hivemind_worker.nodepool import answering, measuring, streams
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
