"""TaskManager: what submitters ask, each call a few lines: read the request, ask the store, write the answer."""

# ruff: noqa: N802, ARG002  (the wire names the calls, and gives each of them its context)

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

from hivemind_worker import __version__, errors
from hivemind_worker.pool.api import answering, changes, coverage, files, following, requests, service, streams, telling
from hivemind_worker.pool.store import records
from hivemind_worker.tasks import outcome, spec
from hivemind_worker.wire import budget, calls, unparsed

pb = calls.pb

NODES_AT_ONCE = 100
NODES_BYTES = 1024**2
"""Nodes that are read together, and about how much they may say of themselves: one alone may say 4 MiB."""

LIST_BYTES = 16 * 1024**2
"""What a page of tasks or nodes takes while it is made."""

WATCHED_AT_ONCE = 64
"""Tasks that a watcher looks at together, without large results; those are read one at a time."""

MAX_WATCHED_RESULT = 4 * 1024
"""A larger result is read when there is room for it."""


class TaskManager(calls.TaskManagerServicer):
    """The submitters' calls."""

    def __init__(self, parts: service.Parts) -> None:
        self._parts = parts
        self.told = parts.told
        self.streams = parts.streams

    @answering.once
    async def SubmitTasks(self, request: pb.SubmitTasksRequest, context: calls.Context) -> pb.SubmitTasksResponse:
        """Keep all of these tasks or none; tell of the end of one whose caller waits for it."""
        wait_seconds = requests.wait_seconds(request)
        parts, peer = self._parts, streams.peer(context)
        tasks, inputs = await requests.new_tasks(request.tasks, parts.max_attempts, parts.key, peer)
        await self._need_inputs(request.tasks, inputs)
        key = requests.key(request.idempotency_key)
        del request, inputs
        ids = await self._parts.store.submit(tasks, key, requests.digest(tasks))
        answer = pb.SubmitTasksResponse(success=True, task_ids=ids)
        if wait_seconds > 0 and len(ids) == 1:
            del tasks
            task = await self._when_ended(ids[0], wait_seconds)
            if task is not None and task.ended:
                await self._write_small(task, answer)
        return answer

    async def _need_inputs(self, tasks: Sequence[pb.Task], inputs: Sequence[outcome.Artifact]) -> None:
        missing = set(await self._parts.files.missing(inputs))
        for task in tasks if missing else ():
            for path, ref in task.input_artifacts.items():
                if ref.sha256 in missing:
                    raise errors.InvalidTask(
                        f"input_files[{path[:60]!r}]",
                        f"the pool has no file {ref.sha256} of that size: upload it, then submit again",
                    )

    @answering.once
    async def GetTask(self, request: pb.GetTaskRequest, context: calls.Context) -> pb.GetTaskResponse:
        """Tell everything about one task, or of its end once that has come."""
        kept = self._parts.store
        task_id, wait_seconds = request.task_id, requests.wait_seconds(request)
        if wait_seconds > 0:
            del request
            waited = await self._when_ended(task_id, wait_seconds)
            if waited is None:
                raise errors.Unavailable("the pool is closing")
            answer = pb.GetTaskResponse()
            await self._write_small(waited, answer)
            return answer
        (task,) = await kept.tasks([task_id], max_result_bytes=MAX_WATCHED_RESULT)
        await self.streams.work_on(context, streams.ANSWER_FACTOR * (task.result_bytes + task.body_bytes))
        traceparent = _traceparent(await kept.body(task.id))
        if task.result_bytes and task.result is None:
            (task,) = await kept.tasks([task.id])
        answer = pb.GetTaskResponse()
        (info,) = await self._told([task], lambda: answer.task)
        info.traceparent = traceparent
        for event in await kept.story(info.id):
            telling.write_event(info.story.add(), event)
        budget.fit_task(info)
        return answer

    async def _when_ended(self, task_id: str, seconds: float) -> records.Task | None:
        """Return a task once it has ended, or as it stands after so many seconds; ``None`` where the pool closes."""
        followers = self._parts.followers
        with followers.follow([task_id], ended_only=True) as follower:
            # What is known to go on is not read: its end is told to whoever follows it.
            if followers.goes_on(task_id) or not (await self._read(task_id)).ended:
                self.streams.let_wait()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await follower.changed()
            if follower.closed:
                return None
            return follower.take(task_id) or await self._read(task_id)

    async def _write_small(self, task: records.Task, answer: pb.GetTaskResponse | pb.SubmitTasksResponse) -> None:
        """Write a task into an answer, but for one with a large result: a stream reads it when there is room."""
        if task.result is not None or not task.result_bytes:
            (info,) = await self._told([task], lambda: answer.task)
            budget.fit_task(info)

    async def _read(self, task_id: str) -> records.Task:
        (task,) = await self._parts.store.tasks([task_id], max_result_bytes=MAX_WATCHED_RESULT)
        return task

    async def _told(
        self,
        found: Sequence[records.Task],
        make: Callable[[], pb.TaskInfo] = pb.TaskInfo,
        waits: telling.Waits | None = None,
    ) -> list[pb.TaskInfo]:
        """Return messages about tasks; the flag of missing output goes where the last of it came after the end."""
        reasons = self._parts.readiness.unready_reasons
        infos = await telling.tasks(self._parts.store, self._parts.live, found, "; ".join(reasons), make, waits)
        for info in infos:
            if str(outcome.Flag.OUTPUT_INCOMPLETE) not in info.result.flags:
                continue
            assigned = await self._parts.store.assignment(info.id, info.attempt)
            if assigned is None:
                continue
            key = following.key_of(info.id, info.attempt, assigned)
            if not await self._parts.audit.is_incomplete(key, coverage.reported(info.result)):
                info.result.flags.remove(str(outcome.Flag.OUTPUT_INCOMPLETE))
        return infos

    @answering.once
    async def ListTasks(self, request: pb.ListTasksRequest, context: calls.Context) -> pb.ListTasksResponse:
        """Tell of many; their logs are left out."""
        wanted = requests.listing(request)
        await self.streams.work_on(context, LIST_BYTES)
        found = await self._parts.store.find(wanted)
        answer = pb.ListTasksResponse()
        infos = await self._told(found, answer.tasks.add)
        size = fitting = 0
        for info in infos:
            if info.HasField("result"):
                info.result.ClearField("logs")
            budget.fit_task(info)
            size += info.ByteSize() + 8
            if fitting and size > requests.PAGE_BYTES:
                break
            fitting += 1
        del infos, answer.tasks[fitting:]
        if found and (fitting < len(found) or await self._follow(wanted, found)):
            answer.next_page_token = str(found[fitting - 1].number)
        return answer

    async def _follow(self, wanted: records.Filter, found: Sequence[records.Task]) -> bool:
        """Whether there may be more after these: a page also ends where results have come to its size."""
        if len(found) == wanted.most or not any(task.result for task in found):
            return len(found) == wanted.most
        return bool(await self._parts.store.find(dataclasses.replace(wanted, before=found[-1].number, most=1)))

    @answering.many
    async def WatchTasks(
        self, request: pb.WatchTasksRequest, context: calls.Context
    ) -> AsyncGenerator[pb.WatchTasksResponse | answering.Large[pb.WatchTasksResponse], None]:
        """Tell of tasks now and whenever they change, or of their end alone, until all have ended."""
        wanted, ended_only = list(dict.fromkeys(requests.ids(request.task_ids))), request.ended_only
        del request
        seen: dict[str, int] = {}
        going_on = set(wanted)
        with self._parts.followers.follow(wanted, ended_only=ended_only) as follower:
            if ended_only:
                yield pb.WatchTasksResponse()
            # What is known to go on is not read: its end is told to whoever follows it.
            goes_on = self._parts.followers.goes_on if ended_only else (lambda _: False)
            look: Sequence[str] = [task_id for task_id in wanted if not goes_on(task_id)]
            while True:
                waits = telling.Waits(self._parts.store)
                for start in range(0, len(look), WATCHED_AT_ONCE):
                    # Not while it writes: a watcher that does not read holds up none of the same caller.
                    async with self.streams.looks.lock(streams.peer(context)):
                        tasks = await self._as_they_stand(follower, look[start : start + WATCHED_AT_ONCE])
                        told = (task for task in tasks if task.ended or not ended_only)
                        changed = [task for task in told if seen.get(task.id, -1) < task.version]
                        seen |= {task.id: task.version for task in changed}
                        going_on -= {task.id for task in tasks if task.ended}
                        del tasks
                        infos = await self._told([task for task in changed if not task.ended], waits=waits)
                    for info in infos:
                        budget.fit_task(info)
                        yield pb.WatchTasksResponse(task=info)
                    del infos
                    for task in changed:
                        if task.ended:
                            yield await self._ended(task)
                if not going_on or follower.closed:
                    break
                look = sorted(await follower.changed())
        if going_on:
            raise errors.Unavailable("the pool is closing")

    async def _as_they_stand(self, follower: changes.Follower, task_ids: Sequence[str]) -> tuple[records.Task, ...]:
        """These tasks: with their results where the news of their end brought them, else without."""
        known = {task_id: task for task_id in task_ids if (task := follower.take(task_id)) is not None}
        unread = [task_id for task_id in task_ids if task_id not in known]
        rest = await self._parts.store.tasks(unread, max_result_bytes=MAX_WATCHED_RESULT) if unread else ()
        return (*known.values(), *rest)

    async def _ended(self, task: records.Task) -> pb.WatchTasksResponse | answering.Large[pb.WatchTasksResponse]:
        """One task with its result, in a message of its own: nothing of it stays here while the watcher reads."""

        async def make(task: records.Task | None = None) -> pb.WatchTasksResponse:
            found = await self._parts.store.tasks([task_id]) if task is None else [task]
            answer = pb.WatchTasksResponse()
            (info,) = await self._told(found, lambda: answer.task)
            budget.fit_task(info)
            return answer

        task_id = task.id
        if task.result is not None or not task.result_bytes:
            return await make(task)
        return answering.Large(make, streams.ANSWER_FACTOR * task.result_bytes)

    @answering.once
    async def CancelTasks(self, request: pb.CancelTasksRequest, context: calls.Context) -> pb.CancelTasksResponse:
        """Ask for tasks to be stopped."""
        tasks = await self._parts.store.cancel(requests.ids(request.task_ids))
        return pb.CancelTasksResponse(success=True, states=[str(task.state) for task in tasks])

    @answering.many
    async def GetTaskLogs(
        self, request: pb.GetTaskLogsRequest, context: calls.Context
    ) -> AsyncGenerator[pb.GetTaskLogsResponse, None]:
        """Send a task's output."""
        wanted = following.Wanted(request.task_id, max(request.attempt, 0), max(request.from_sequence, 0))
        reports = following.Reports(self._parts.store, self.streams, streams.peer(context))
        with self._parts.followers.follow([request.task_id]) as follower, reports:
            output = following.output(reports, self._parts.logs, wanted, follower if request.follow else None)
            async with contextlib.aclosing(output) as pages:
                async for page in pages:
                    box = [page]
                    del page
                    yield box.pop()
        if request.follow and follower.closed:
            raise errors.Unavailable("the pool is closing")

    @answering.once
    async def ListResults(self, request: pb.ListResultsRequest, context: calls.Context) -> pb.ListResultsResponse:
        """Name the result files of a task, and what was skipped, page by page."""
        start = requests.place(request.page_token)
        await self.streams.work_on(context, await self._result_size(request.task_id))
        result = await self._result(request.task_id)
        entries = itertools.islice(itertools.chain(result.files, result.skipped), start, None)
        answer = pb.ListResultsResponse()
        taken = budget.page(entries)
        for entry in taken:
            (answer.files if isinstance(entry, pb.ResultFile) else answer.skipped).append(entry)  # type: ignore[arg-type]
        if start + len(taken) < len(result.files) + len(result.skipped):
            answer.next_page_token = str(start + len(taken))
        return answer

    @answering.many
    async def DownloadResult(
        self, request: pb.DownloadResultRequest, context: calls.Context
    ) -> AsyncGenerator[answering.Piece[pb.DownloadResultResponse], None]:
        """Send a result file."""
        with await self.streams.room_to_work(context, await self._result_size(request.task_id)):
            sha256 = await self._sum_of(request.task_id, request.name)

        async def make(part: files.Part) -> pb.DownloadResultResponse:
            data = await part.read()
            return pb.DownloadResultResponse(data=data, offset=part.offset, size=part.file_bytes, sha256=sha256)

        async with contextlib.aclosing(self._parts.files.parts(sha256, request.offset)) as parts:
            async for part in parts:
                yield answering.Piece(functools.partial(make, part), part.max_bytes)

    async def _sum_of(self, task_id: str, name: str) -> str:
        for file in (await self._result(task_id)).files:
            if file.name == name:
                return file.sha256
        raise errors.UserError(f"task {task_id[:80]!r} has no result file {name[:200]!r}")

    async def _result_size(self, task_id: str) -> int:
        """What it takes to read a task's result."""
        (task,) = await self._parts.store.tasks([task_id], max_result_bytes=0)
        return streams.ANSWER_FACTOR * task.result_bytes

    async def _result(self, task_id: str) -> pb.TaskResult:
        (task,) = await self._parts.store.tasks([task_id])
        return telling.result(task)

    @answering.once
    async def UploadInput(
        self, stream: AsyncIterator[pb.UploadInputRequest], context: calls.Context
    ) -> pb.UploadInputResponse:
        """Store an input file."""
        async with self.streams.incoming(self.streams.files, stream, context) as pieces:
            async for first in pieces:
                head, rest = files.begun(first, pieces)
                del first
                stored = await self._parts.files.upload(head, rest, spare_results=True)
                return pb.UploadInputResponse(success=stored.complete, stored_bytes=stored.stored_bytes)
        raise errors.UserError("an upload begins with the file's sha256 and size; nothing came")

    @answering.once
    async def FindArtifacts(self, request: pb.FindArtifactsRequest, context: calls.Context) -> pb.FindArtifactsResponse:
        """Tell how much of each file is here."""
        answer = pb.FindArtifactsResponse()
        found = await self._parts.files.find(requests.sums(request.sha256))
        for sha256, there in zip(request.sha256, found, strict=True):
            complete = isinstance(there, outcome.Artifact)
            size = there.size if isinstance(there, outcome.Artifact) else there
            answer.artifacts.add(sha256=sha256, stored_bytes=size, complete=complete)
        return answer

    @answering.once
    async def RetryTasks(self, request: pb.RetryTasksRequest, context: calls.Context) -> pb.RetryTasksResponse:
        """Submit ended tasks anew."""
        key = requests.key(request.idempotency_key)
        new = await self._parts.store.retry(requests.ids(request.task_ids), key)
        return pb.RetryTasksResponse(success=True, new_task_ids=new)

    @answering.once
    async def ListNodes(self, request: pb.ListNodesRequest, context: calls.Context) -> pb.ListNodesResponse:
        """Tell of every node, page by page, in the order of their names."""
        answer = pb.ListNodesResponse()
        last, full, size = request.page_token, False, 1_000
        await self.streams.work_on(context, LIST_BYTES)
        while not full:
            nodes = await self._parts.store.nodes(after=last, max_count=NODES_AT_ONCE, max_bytes=NODES_BYTES)
            for node in nodes:
                telling.write_node(answer.nodes.add(), node, self._parts.live)
                size += answer.nodes[-1].ByteSize() + 8
                full = len(answer.nodes) > 1 and size > budget.MESSAGE_BUDGET
                if full:
                    del answer.nodes[-1]
                    break
                last = node.node_id
            if not nodes:
                break
        answer.next_page_token = last if full else ""
        return answer

    @answering.once
    async def DrainNode(self, request: pb.DrainNodeRequest, context: calls.Context) -> pb.DrainNodeResponse:
        """Give a node no further tasks."""
        await self._parts.store.drain(request.node_id, draining=True)
        return pb.DrainNodeResponse(success=True)

    @answering.once
    async def ResumeNode(self, request: pb.ResumeNodeRequest, context: calls.Context) -> pb.ResumeNodeResponse:
        """Give a node tasks again."""
        await self._parts.store.drain(request.node_id, draining=False)
        self._parts.dispatch.look_again(request.node_id)
        return pb.ResumeNodeResponse(success=True)

    @answering.once
    async def GetPoolInfo(self, request: pb.GetPoolInfoRequest, context: calls.Context) -> pb.GetPoolInfoResponse:
        """Tell of the pool itself."""
        store = self._parts.store
        info = pb.GetPoolInfoResponse(
            version=__version__,
            protocol_version=calls.PROTOCOL_VERSION,
            server_time=store.now(),
            lease_seconds=self._parts.lease_seconds,
            max_inline_bytes=spec.INLINE_BYTES,
            unready_reasons=self._parts.readiness.unready_reasons,
            store_epoch=store.epoch,
            features=requests.FEATURES,
        )
        try:
            info.nodes = await store.living_nodes()
            info.tasks_by_state.update(await store.counts())
        except errors.Unavailable:
            if not store.damage:
                raise
        return info


def _traceparent(body: bytes) -> str:
    """The trace context in a task's message, which may be of 4 MiB."""
    return unparsed.field_bytes(body, pb.Task.TRACEPARENT_FIELD_NUMBER).decode()
