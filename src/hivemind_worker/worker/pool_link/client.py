"""NodePoolClient: one method per call of NodeManager, each with its deadline, each failure an error of our tree."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable
from typing import TypeVar

import grpc

from hivemind_worker.wire import calls, verdicts
from hivemind_worker.worker.pool_link import channel

M = TypeVar("M")
T = TypeVar("T")

CALL_SECONDS = 15.0
"""Deadline of a call that carries no file and does not wait for work."""

POLL_SLACK_SECONDS = 10.0
"""How much longer than asked a long poll may take: the pool answers at its own end of the wait, then comes the way."""

SLOWEST_BYTES_PER_SECOND = 64 * 1024
"""A transfer slower than this is broken off and resumed. A guess: half a megabit, the slowest line worth its use."""


class NodePoolClient:
    """The worker's side of NodeManager. Made anywhere, used on one event loop, closed there.

    Every method raises :class:`hivemind_worker.errors.Unavailable` (try again), ``UnknownNode`` (register
    again), ``NotImplementedByPeer`` (do without), ``StateInUse`` (another worker has our node id) or ``Rejected``, as
    `wire.verdicts` says.
    """

    def __init__(self, access: channel.Access) -> None:
        self.access = access
        self._metadata = channel.metadata(access)
        self._channel: grpc.aio.Channel | None = None
        self._stub: calls.NodeManager | None = None

    def open(self) -> None:
        """Open the channel on the running loop. Raises :class:`hivemind_worker.errors.BadSettings`."""
        if self._channel is None:
            self._channel = channel.open_channel(self.access)
            self._stub = calls.node_manager(self._channel)

    async def close(self) -> None:
        """Close the channel; calls that are under way are cancelled."""
        if self._channel is not None:
            await self._channel.close()
            self._channel = self._stub = None

    async def register_node(self, request: calls.pb.RegisterNodeRequest) -> calls.pb.RegisterNodeResponse:
        """Open a session."""
        call = self._calls.RegisterNode(request, timeout=CALL_SECONDS, metadata=self._metadata)
        return await _answer("register", call)

    async def send_heartbeat(
        self, request: calls.pb.UpdateNodeStatusRequest, seconds: float = CALL_SECONDS
    ) -> calls.pb.UpdateNodeStatusResponse:
        """Renew the session's leases and hear the pool's directives."""
        return await _answer(
            "heartbeat", self._calls.UpdateNodeStatus(request, timeout=seconds, metadata=self._metadata)
        )

    async def get_assigned_tasks(self, request: calls.pb.GetAssignedTasksRequest) -> calls.pb.GetAssignedTasksResponse:
        """Ask for work; with ``wait_seconds`` the pool answers when there is some, at the latest after so long."""
        seconds = CALL_SECONDS if request.wait_seconds <= 0 else request.wait_seconds + POLL_SLACK_SECONDS
        call = self._calls.GetAssignedTasks(request, timeout=seconds, metadata=self._metadata)
        return await _answer("ask for tasks", call)

    async def report_task_result(self, request: calls.pb.ReportTaskResultRequest) -> calls.pb.ReportTaskResultResponse:
        """Tell how an attempt stands or ended. The larger time is for a result with files in it."""
        call = self._calls.ReportTaskResult(request, timeout=2 * CALL_SECONDS, metadata=self._metadata)
        return await _answer("report", call)

    async def ping(self, seconds: float = CALL_SECONDS) -> calls.pb.PingResponse:
        """Ask whether the pool is there."""
        call = self._calls.Ping(calls.pb.PingRequest(), timeout=seconds, metadata=self._metadata)
        return await _answer("ping", call)

    async def append_task_logs(self, request: calls.pb.AppendTaskLogsRequest) -> calls.pb.AppendTaskLogsResponse:
        """Send a batch of output: one stream per batch, so that each is acknowledged."""
        call = self._calls.AppendTaskLogs(timeout=CALL_SECONDS, metadata=self._metadata)
        return await _answer("send output", _sent(call, _one(request)))

    async def upload_artifact(
        self, requests: AsyncGenerator[calls.pb.UploadArtifactRequest, None], size: int
    ) -> calls.pb.UploadArtifactResponse:
        """Send a file in the chunks of ``requests``, ``size`` bytes in all; they are closed in any case."""
        seconds = 2 * CALL_SECONDS + size / SLOWEST_BYTES_PER_SECOND
        call = self._calls.UploadArtifact(timeout=seconds, metadata=self._metadata)
        return await _answer("upload a result", _sent(call, requests))

    async def download_artifact(
        self, request: calls.pb.DownloadArtifactRequest, size: int
    ) -> AsyncGenerator[calls.pb.DownloadArtifactResponse, None]:
        """Read a stored file from an offset on, of about ``size`` bytes. Close it when not read to the end."""
        seconds = 2 * CALL_SECONDS + size / SLOWEST_BYTES_PER_SECOND
        call = self._calls.DownloadArtifact(request, timeout=seconds, metadata=self._metadata)
        try:
            async for piece in call:
                yield verdicts.legible(piece, "download an input")
        except grpc.aio.AioRpcError as error:
            raise verdicts.to_error(verdicts.read(error), "download an input") from error
        finally:
            with contextlib.suppress(Exception):
                call.cancel()

    @property
    def _calls(self) -> calls.NodeManager:
        self.open()
        assert self._stub is not None
        return self._stub


async def _answer(doing: str, call: Awaitable[T]) -> T:
    try:
        return verdicts.legible(await call, doing)
    except grpc.aio.AioRpcError as error:
        raise verdicts.to_error(verdicts.read(error), doing) from error


async def _sent(call: grpc.aio.StreamUnaryCall[M, T], requests: AsyncGenerator[M, None]) -> T:
    """Write one message after the other and return the answer, which may come before the last of them.

    Not left to the library: when a call fails it drops its iterator half read, with the file open behind it.
    """
    try:
        async with contextlib.aclosing(requests):
            try:
                async for request in requests:
                    await call.write(request)
                await call.done_writing()
            except asyncio.InvalidStateError:
                pass  # the pool has ended the call: its answer or its status follows
        return await call
    finally:
        call.cancel()


async def _one(request: M) -> AsyncGenerator[M, None]:
    yield request
