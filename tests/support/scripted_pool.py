"""The pool's side of NodeManager, as a test scripts it: which call fails how often, what is forgotten, what is slow.

The embedded pool is the double for a pool; this stands in only where a test needs answers that it never gives.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import gc
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator

import grpc

from hivemind_worker import errors
from hivemind_worker.wire import calls, verdicts

pb = calls.pb

TIMES = 3
"""How often a task is given that its node does not take."""


class ScriptedPool(calls.NodeManagerServicer):
    """``fail[call]`` holds the errors that the next calls of that name end with, in order."""

    def __init__(self) -> None:
        self.fail: dict[str, list[errors.HiveMindError]] = collections.defaultdict(list)
        self.calls: collections.Counter[str] = collections.Counter()
        self.session = 0
        self.registered: list[pb.RegisterNodeRequest] = []
        self.beats: list[pb.UpdateNodeStatusRequest] = []
        self.polls: list[pb.GetAssignedTasksRequest] = []
        self.reports: list[pb.ReportTaskResultRequest] = []
        self.answers: list[pb.ReportTaskResultResponse] = []
        self.beat_answer = pb.UpdateNodeStatusResponse(success=True)
        self.register_answer = pb.RegisterNodeResponse(success=True, heartbeat_seconds=5, lease_seconds=10)
        self.output: dict[str, dict[int, pb.LogChunk]] = collections.defaultdict(dict)
        self.appends: list[tuple[str, str]] = []
        """Epoch and run of each batch of output."""
        self.output_gate = asyncio.Event()
        self.output_gate.set()
        self.stored: dict[str, bytearray] = collections.defaultdict(bytearray)
        self.break_upload_after = 0
        self.break_download_after = 0
        self.received_bytes = 0
        self._tasks: collections.deque[pb.Task] = collections.deque()
        self._unheard: dict[tuple[str, int], pb.Task] = {}
        self._times: collections.Counter[tuple[str, int]] = collections.Counter()
        self._newest_poll: collections.Counter[str] = collections.Counter()
        self._cancels: list[pb.AttemptRef] = []
        self._news = asyncio.Condition()

    async def give(self, *tasks: pb.Task) -> None:
        """Have tasks handed out to the next poll that is not paused, and again if that answer was not heard."""
        async with self._news:
            self._tasks.extend(tasks)
            self._news.notify_all()

    async def cancel(self, task_id: str, attempt: int = 0) -> None:
        """Have a cancellation told to the next poll, paused or not."""
        async with self._news:
            self._cancels.append(pb.AttemptRef(task_id=task_id, attempt=attempt))
            self._news.notify_all()

    def forget(self) -> None:
        """Know no session any more."""
        self.session += 1_000

    def ends(self) -> dict[str, pb.ReportTaskResultRequest]:
        """The last final report of each task."""
        return {report.task_id: report for report in self.reports if report.status != "running"}

    async def _enter(
        self, call: str, context: calls.Context, session_id: str | None = None, *, may_fail: bool = True
    ) -> None:
        self.calls[call] += 1
        if may_fail and self.fail[call]:
            await verdicts.refuse(context, self.fail[call].pop(0))
        if session_id is not None and session_id != f"s-{self.session}":
            await verdicts.refuse(context, errors.UnknownNode("no such session", "UNKNOWN_SESSION"))

    async def RegisterNode(  # noqa: N802
        self, request: pb.RegisterNodeRequest, context: calls.Context
    ) -> pb.RegisterNodeResponse:
        await self._enter("RegisterNode", context)
        self.registered.append(request)
        self.session += 1
        answer = pb.RegisterNodeResponse()
        answer.CopyFrom(self.register_answer)
        answer.session_id = f"s-{self.session}"
        for ref in answer.drop:  # what is no longer this node's is not repeated to it
            self._unheard.pop((ref.task_id, ref.attempt), None)
        return answer

    async def UpdateNodeStatus(  # noqa: N802
        self, request: pb.UpdateNodeStatusRequest, context: calls.Context
    ) -> pb.UpdateNodeStatusResponse:
        await self._enter("UpdateNodeStatus", context, request.session_id)
        self.beats.append(request)
        return self.beat_answer

    async def GetAssignedTasks(  # noqa: N802
        self, request: pb.GetAssignedTasksRequest, context: calls.Context
    ) -> pb.GetAssignedTasksResponse:
        await self._enter("GetAssignedTasks", context, request.session_id)
        self.polls.append(request)
        await self._repeat_what_crossed(request)
        mine = self._newest_poll[request.node_id]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(request.wait_seconds), self._news:
                await self._news.wait_for(
                    lambda: (
                        mine != self._newest_poll[request.node_id]
                        or self._cancels
                        or (self._tasks and not request.paused)
                    )
                )
        if mine != self._newest_poll[request.node_id]:  # its node has taken it back: nobody hears this
            return pb.GetAssignedTasksResponse(success=True)
        answer = pb.GetAssignedTasksResponse(success=True, cancel=self._cancels)
        self._cancels.clear()
        while self._tasks and len(answer.tasks) < request.most:
            task = self._tasks.popleft()
            self._unheard[task.id, task.attempt] = task
            answer.tasks.append(task)
        return answer

    async def _repeat_what_crossed(self, request: pb.GetAssignedTasksRequest) -> None:
        """As the pool does: a poll names what its node holds; what it was given and does not name, it did not hear of.

        Three times at most: a node may leave a task alone for good.
        """
        held = {(ref.task_id, ref.attempt) for ref in request.held}
        async with self._news:
            self._newest_poll[request.node_id] += 1
            for key, task in self._unheard.items():
                self._times[key] += 1
                if key not in held and self._times[key] < TIMES:
                    self._tasks.appendleft(task)
            self._unheard.clear()
            self._news.notify_all()

    async def ReportTaskResult(  # noqa: N802
        self, request: pb.ReportTaskResultRequest, context: calls.Context
    ) -> pb.ReportTaskResultResponse:
        # Whether a task lives long enough for news of its start depends on the machine: what fails is the end.
        may_fail = request.status != "running"
        await self._enter("ReportTaskResult", context, request.session_id, may_fail=may_fail)
        self.reports.append(request)
        if request.status != "running":
            self._unheard.pop((request.task_id, request.attempt), None)
        if self.answers:
            return self.answers.pop(0)
        return pb.ReportTaskResultResponse(success=True, verdict=pb.VERDICT_ACCEPTED)

    async def Ping(self, _: pb.PingRequest, context: calls.Context) -> pb.PingResponse:  # noqa: N802
        await self._enter("Ping", context)
        return pb.PingResponse(protocol_version=1)

    async def AppendTaskLogs(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.AppendTaskLogsRequest], context: calls.Context
    ) -> pb.AppendTaskLogsResponse:
        task_id = ""
        async for request in request_iterator:
            if not task_id:
                task_id = request.task_id
                self.appends.append((request.store_epoch, request.run_id))
                await self._enter("AppendTaskLogs", context, request.session_id)
            await self.output_gate.wait()
            for chunk in request.chunks:
                self.output[task_id].setdefault(chunk.sequence, chunk)
        have = self.output[task_id]
        return pb.AppendTaskLogsResponse(success=True, next_sequence=max(have, default=-1) + 1)

    async def UploadArtifact(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.UploadArtifactRequest], context: calls.Context
    ) -> pb.UploadArtifactResponse:
        requests: AsyncGenerator[pb.UploadArtifactRequest, None] = aiter(request_iterator)  # type: ignore[arg-type]
        # The library leaves half-read requests to the garbage collector, which the leak check does not wait for.
        async with contextlib.aclosing(requests):
            first = await anext(requests, None)
            if first is None:  # whoever called has nothing to send after all
                return pb.UploadArtifactResponse()
            await self._enter("UploadArtifact", context, first.session_id)
            content = self.stored[first.sha256]
            content += first.data
            self.received_bytes += len(first.data)
            async for request in requests:
                self.received_bytes += len(request.data)
                assert request.offset == len(content)
                content += request.data
                if 0 < self.break_upload_after <= len(content):
                    self.break_upload_after = 0
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "the line broke")
        if len(content) == first.size:
            assert hashlib.sha256(content).hexdigest() == first.sha256
        return pb.UploadArtifactResponse(success=True, stored_bytes=len(content))

    async def DownloadArtifact(  # noqa: N802
        self, request: pb.DownloadArtifactRequest, context: calls.Context
    ) -> AsyncIterator[pb.DownloadArtifactResponse]:
        await self._enter("DownloadArtifact", context, request.session_id)
        if request.sha256 not in self.stored:
            await verdicts.refuse(context, errors.Rejected("no such file", "MISSING_ARTIFACT"))
        content = self.stored[request.sha256]
        for offset in range(request.offset, len(content), calls.CHUNK_BYTES):
            if 0 < self.break_download_after <= offset:
                self.break_download_after = 0
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the line broke")
            piece = bytes(content[offset : offset + calls.CHUNK_BYTES])
            yield pb.DownloadArtifactResponse(data=piece, offset=offset, size=len(content))


@contextlib.asynccontextmanager
async def serving(pool: calls.NodeManagerServicer | calls.TaskManagerServicer, port: int = 0) -> AsyncIterator[str]:
    """Serve ``pool`` on a loopback port and give its address."""
    server = grpc.aio.server(options=calls.SERVER_OPTIONS)
    if isinstance(pool, calls.TaskManagerServicer):
        calls.add_task_manager(pool, server)
    else:
        calls.add_node_manager(pool, server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield f"127.0.0.1:{bound}"
    finally:
        await server.stop(None)
        del server
        # A stream that was refused half read is closed by the loop once it is collected, and what it held after that.
        for _ in range(3):
            gc.collect()
            await asyncio.sleep(0.02)
