"""NodeManager: what nodes ask, each call a few lines: read the request, ask the store, write the answer."""

# ruff: noqa: N802, ARG002  (the wire names the calls, and gives each of them its context)

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from hivemind_worker import __version__, errors
from hivemind_worker.filesystem import sealed
from hivemind_worker.pool import readiness
from hivemind_worker.pool.api import (
    answering,
    attempt_logs,
    audit,
    changes,
    coverage,
    files,
    following,
    live,
    measuring,
    requests,
    streams,
)
from hivemind_worker.pool.scheduling import challenge, dispatch
from hivemind_worker.pool.store import records, store
from hivemind_worker.tasks import outcome, result_names
from hivemind_worker.telemetry import logs, untrusted
from hivemind_worker.wire import budget, calls, secret_values, translate

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

pb = calls.pb

log = logs.StructuredLogger(__name__)

_MAX_UNSTORED = 1_000
"""Attempts of which it is remembered that the log says already that their output was not stored."""

_MAX_SET_ASIDE = 100
_SHOWN_NAME = 200
"""Files of a result that are named when they are set aside, and how much of a name: the rest is counted."""

_FEW_NAMES, _SHORT_NAMES = 50, 4_000
"""No more names of result files, of no more characters together, are looked at on the loop: 0.3 ms at worst."""

_Refs: TypeAlias = "RepeatedCompositeFieldContainer[pb.AttemptRef]"

_VERDICTS = {
    records.Verdict.ACCEPTED: pb.VERDICT_ACCEPTED,
    records.Verdict.DUPLICATE: pb.VERDICT_DUPLICATE,
    records.Verdict.STALE: pb.VERDICT_STALE,
    records.Verdict.UNKNOWN: pb.VERDICT_UNKNOWN,
}


@dataclass(slots=True)
class Parts:
    """What the calls are made of. ``max_attempts`` and ``preload_images`` may change; the rest stays."""

    store: store.Store
    files: files.Files
    logs: attempt_logs.AttemptLogs
    dispatch: dispatch.Dispatch
    followers: changes.Followers
    audit: audit.Audit
    lease_seconds: float
    max_attempts: int
    readiness: readiness.Readiness
    streams: streams.Streams = field(default_factory=streams.Streams)
    preload_images: tuple[str, ...] = ()
    key: sealed.Key | None = None
    told: measuring.Measuring = field(default_factory=measuring.Measuring)
    live: live.Live = field(default_factory=live.Live)

    def forget(self, node_ids: Sequence[str]) -> None:
        """Keep nothing in memory of nodes whose leases have run out."""
        self.live.forget(node_ids)
        self.dispatch.forget(node_ids)


class NodeManager(calls.NodeManagerServicer):
    """The workers' calls."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._challenges = challenge.Challenges(parts.store, parts.dispatch, parts.lease_seconds)
        self.told = parts.told
        self.streams = parts.streams
        self._unstored: set[attempt_logs.Key] = set()

    @answering.once
    async def RegisterNode(self, request: pb.RegisterNodeRequest, context: calls.Context) -> pb.RegisterNodeResponse:
        """Open a session, unless another process has one that lives."""
        opened = await self._challenges.register(requests.node(request), requests.refs(request.held))
        answer = pb.RegisterNodeResponse(
            success=True,
            session_id=opened.session_id,
            # Two heartbeats may be lost before the third comes too late.
            heartbeat_seconds=self._parts.lease_seconds / 3,
            lease_seconds=self._parts.lease_seconds,
            protocol_version=calls.PROTOCOL_VERSION,
            preload_images=self._parts.preload_images,
            store_epoch=self._parts.store.epoch,
        )
        self._write_refs(answer.drop, opened.drop)
        budget.drop_last(answer, "drop")  # what found no room is told with the next heartbeat
        return answer

    @answering.once
    async def UpdateNodeStatus(
        self, request: pb.UpdateNodeStatusRequest, context: calls.Context
    ) -> pb.UpdateNodeStatusResponse:
        """Renew the leases of a session."""
        self._challenges.heard(request.node_id, request.session_id)
        told = await self._parts.store.heartbeat(requests.beat(request))
        self._parts.live.beat(request.node_id, request.held, told.drop)
        answer = pb.UpdateNodeStatusResponse(
            success=True,
            draining=told.draining,
            server_time=self._parts.store.now(),
            preload_images=self._parts.preload_images,
        )
        self._write_refs(answer.cancel, told.cancel)
        self._write_refs(answer.drop, told.drop)
        for refs in ("drop", "cancel"):
            budget.drop_last(answer, refs)  # the next heartbeat tells the rest
        return answer

    @answering.once
    async def GetAssignedTasks(
        self, request: pb.GetAssignedTasksRequest, context: calls.Context
    ) -> pb.GetAssignedTasksResponse:
        """Hand out attempts, at once or when there are some."""
        self._challenges.heard(request.node_id, request.session_id)
        poll, wait_seconds = requests.poll(request, self._parts.store.epoch)
        given = await self._parts.dispatch.poll(poll, wait_seconds)
        answer = pb.GetAssignedTasksResponse(success=True)
        large = sum(handed.body_bytes for handed in given.tasks if handed.body is None)
        await self.streams.work_on(context, streams.ANSWER_FACTOR * large)
        for handed in given.tasks:
            await self._write_task(answer.tasks.add(), handed)
            if not poll.session_id:
                await self._inline_inputs(answer.tasks[-1])
        self._write_refs(answer.cancel, given.cancel)
        budget.drop_last(answer, "cancel")  # heartbeats tell all cancellations
        return answer

    async def _inline_inputs(self, task: pb.Task) -> None:
        """Put uploaded inputs into the message, while they fit: the reference's client has no call to fetch them."""
        for path in sorted(task.input_artifacts, key=lambda path: task.input_artifacts[path].size):
            sha256 = task.input_artifacts[path].sha256
            (found,) = await self._parts.files.find([sha256])
            if isinstance(found, outcome.Artifact) and task.ByteSize() + found.size <= requests.TASK_BYTES:
                parts = [await part.read() async for part in self._parts.files.parts(sha256, 0)]
                task.input_files[path] = b"".join(parts)
                del task.input_artifacts[path]

    async def _write_task(self, task: pb.Task, handed: records.Handed) -> None:
        task.MergeFromString(await self._parts.store.body(handed.task_id) if handed.body is None else handed.body)
        task.id, task.attempt, task.lease_seconds = handed.task_id, handed.attempt, self._parts.lease_seconds
        task.store_epoch = self._parts.store.epoch
        if handed.secrets and self._parts.key is not None:
            try:
                secret_values.unseal(task, handed.secrets, self._parts.key)
            except (
                ValueError,
                OSError,
                errors.BadSettings,
            ) as error:  # the node refuses it, since it lacks what it names
                log.log_task_event("secrets_unreadable", task.id, {"why": str(error)}, level="error")

    @answering.once
    async def ReportTaskResult(
        self, request: pb.ReportTaskResultRequest, context: calls.Context
    ) -> pb.ReportTaskResultResponse:
        """Judge how an attempt stands or ended."""
        self._challenges.heard(request.node_id, request.session_id)
        said = requests.ended(request)
        if request.attempt < 0:
            raise errors.UserError(f"attempt: there is none of number {request.attempt}")
        report = records.Report(
            request.task_id,
            requests.node_id(request.node_id),
            request.session_id,
            request.attempt,
            epoch=requests.mark("store_epoch", request.store_epoch),
            run_id=requests.mark("run_id", request.run_id),
        )
        if said is not None:
            report = await self._end(report, request.result, said)
        answer = await self._parts.store.report(report)
        if said is not None:
            self.told.report(answer.verdict)
        success = answer.verdict in (records.Verdict.ACCEPTED, records.Verdict.DUPLICATE)
        return pb.ReportTaskResultResponse(success=success, message=answer.message, verdict=_VERDICTS[answer.verdict])

    async def _end(self, report: records.Report, result: pb.TaskResult, said: outcome.Outcome) -> records.Report:
        """The report of an end, made of ``result`` in place: it may be 4 MiB.

        Files that came in it whole are stored; those it names alone must be there.
        """
        missing = await self._parts.files.missing(translate.artifacts(result))
        result.status, result.reason = str(said.status), str(said.reason or "")
        result.flags[:] = sorted({*result.flags, *await self._output_flags(report, result)})
        for file in result.files if result.result_data else ():
            result.result_data.pop(file.name, None)
        data = dict(result.result_data)
        if data:  # nobody stores anything here who may not report
            await self._parts.store.verify(report.node_id, report.session_id)
        artifacts = await self._parts.files.keep(list(data.values())) if data else []
        result.result_data.clear()
        for name, artifact in zip(data, artifacts, strict=True):
            result.files.append(translate.file_to_message(outcome.ResultFile(name, artifact)))
        del data
        await self._set_bad_names_aside(report, result)
        body = result.SerializeToString()
        result.ClearField("logs")
        saved = len(body) - result.ByteSize()
        return dataclasses.replace(
            report,
            status=said.status,
            reason=str(said.reason or ""),
            error=said.error[:10_000],
            try_again=said.try_again,
            body=body,
            summary=result.SerializeToString() if saved > records.MAX_LISTED_LOGS else None,
            missing=missing,
            run_limit=said.limits.timeout_seconds if said.limits is not None else 0.0,
            node_check=said.node_check,
        )

    async def _set_bad_names_aside(self, report: records.Report, result: pb.TaskResult) -> None:
        """Take files from a result that nobody could download by their names; the others are not to go with them."""
        names = [file.name for file in result.files]
        if len(names) <= _FEW_NAMES and sum(map(len, names)) <= _SHORT_NAMES:  # a thread's turn costs more
            bad = result_names.problems(names)
        else:
            bad = await asyncio.to_thread(result_names.problems, names)
        if not bad:
            return
        room = max(_MAX_SET_ASIDE - len(result.skipped), 0)
        for at in sorted(bad)[:room]:
            name = untrusted.line(result.files[at].name[:_SHOWN_NAME])[:_SHOWN_NAME]
            result.skipped.add(name=name, why=f"{bad[at]} (set aside by the pool)")
        if len(bad) > room:
            result.skipped.add(name="…", why=f"{len(bad) - room} more names cannot be those of files")
        good = [file for at, file in enumerate(result.files) if at not in bad]
        result.ClearField("files")
        result.files.extend(good)
        details = {"node_id": report.node_id, "files": len(bad), "why": bad[min(bad)]}
        log.log_task_event("result_names_set_aside", report.task_id, details, level="warning")

    async def _output_flags(self, report: records.Report, result: pb.TaskResult) -> list[str]:
        """See to the output of a run that ends: what is here of it survives a power cut, what is not is flagged."""
        told = coverage.reported(result)
        if told.is_whole or not report.attempt:  # one that counts no attempts sends no output
            return []
        assigned = await self._parts.store.assignment(report.task_id, report.attempt)
        if assigned is None:
            return []
        flag = await self._parts.audit.settle(following.key_of(report.task_id, report.attempt, assigned), told)
        return [] if flag is None else [str(flag)]

    def _write_refs(self, messages: _Refs, refs: Iterable[records.Ref]) -> None:
        """Write attempts where they belong: a message made apart takes 1,000 bytes, and there may be 10,000."""
        epoch = self._parts.store.epoch
        for ref in refs:
            messages.add(task_id=ref.task_id, attempt=ref.attempt, store_epoch=ref.epoch or epoch, run_id=ref.run_id)

    @answering.once
    async def Ping(self, request: pb.PingRequest, context: calls.Context) -> pb.PingResponse:
        """Say that the pool is there."""
        return pb.PingResponse(
            server_time=self._parts.store.now(), protocol_version=calls.PROTOCOL_VERSION, version=__version__
        )

    @answering.once
    async def AppendTaskLogs(
        self, stream: AsyncIterator[pb.AppendTaskLogsRequest], context: calls.Context
    ) -> pb.AppendTaskLogsResponse:
        """Keep output as it comes."""
        key: attempt_logs.Key | None = None
        next_sequence = 0
        async with self.streams.incoming(self.streams.output, stream, context) as pieces:
            async for request in pieces:
                self._challenges.heard(request.node_id, request.session_id)
                if key is None:
                    key = await self._output_key(request)
                try:
                    next_sequence = await self._append(key, request.chunks)
                except OSError as error:
                    # Not a failure that is tried again: a result waits behind its output, and must not wait for a disk.
                    return self._not_stored(key, request.chunks, error)
        return pb.AppendTaskLogsResponse(success=True, next_sequence=next_sequence)

    def _not_stored(
        self, key: attempt_logs.Key, lost: Sequence[pb.LogChunk], error: OSError
    ) -> pb.AppendTaskLogsResponse:
        """The answer where the log disk takes no output: the node leaves these chunks out; offsets show the gap."""
        reason = f"the pool's log disk: {error.strerror or error}"
        if key not in self._unstored:
            if len(self._unstored) >= _MAX_UNSTORED:
                self._unstored.clear()
            self._unstored.add(key)
            log.log_task_event("output_not_stored", key.task_id, {"why": reason}, level="error")
        return pb.AppendTaskLogsResponse(
            success=False, message=reason, next_sequence=max((chunk.sequence for chunk in lost), default=-1) + 1
        )

    async def _append(self, key: attempt_logs.Key, said: Iterable[pb.LogChunk]) -> int:
        chunks = [requests.chunk(message) for message in said]
        next_sequence = await self._parts.logs.on_thread(self._parts.logs.append, key, chunks)
        if chunks:
            self._parts.followers.tell(key.task_id)
        return next_sequence

    async def _output_key(self, first: pb.AppendTaskLogsRequest) -> attempt_logs.Key:
        """Return where the output of this stream belongs. Raises where it is not this node's, epoch's or run's."""
        ref = records.Ref(
            first.task_id,
            requests.attempt(first.attempt),
            epoch=requests.mark("store_epoch", first.store_epoch),
            run_id=requests.mark("run_id", first.run_id),
        )
        assigned = await self._parts.store.accept_output(requests.node_id(first.node_id), first.session_id, ref)
        return following.key_of(ref.task_id, ref.attempt, assigned)

    @answering.once
    async def UploadArtifact(
        self, stream: AsyncIterator[pb.UploadArtifactRequest], context: calls.Context
    ) -> pb.UploadArtifactResponse:
        """Store a result file."""
        async with self.streams.incoming(self.streams.files, stream, context) as pieces:
            async for first in pieces:
                self._challenges.heard(first.node_id, first.session_id)
                await self._parts.store.verify(requests.node_id(first.node_id), first.session_id)
                head, rest = files.begun(first, pieces)
                del first
                stored = await self._parts.files.upload(head, rest, spare_results=False)
                return pb.UploadArtifactResponse(success=stored.complete, stored_bytes=stored.stored_bytes)
        raise errors.UserError("an upload begins with the file's sha256 and size; nothing came")

    @answering.many
    async def DownloadArtifact(
        self, request: pb.DownloadArtifactRequest, context: calls.Context
    ) -> AsyncGenerator[answering.Piece[pb.DownloadArtifactResponse], None]:
        """Send an input file."""
        self._challenges.heard(request.node_id, request.session_id)
        await self._parts.store.verify(requests.node_id(request.node_id), request.session_id)

        async def make(part: files.Part) -> pb.DownloadArtifactResponse:
            return pb.DownloadArtifactResponse(data=await part.read(), offset=part.offset, size=part.file_bytes)

        async with contextlib.aclosing(self._parts.files.parts(request.sha256, request.offset)) as parts:
            async for part in parts:
                yield answering.Piece(functools.partial(make, part), part.max_bytes)
