"""Following tasks while they run: changes, ends and output, carried on where the line broke."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import grpc

from hivemind_worker import errors
from hivemind_worker.client import connection, fetching, shapes
from hivemind_worker.concurrency import clock
from hivemind_worker.wire import calls, verdicts

WAIT_SECONDS = 20.0
"""How long a question about the end of a task waits at the pool: less than the deadline of a call."""


@dataclass(frozen=True, slots=True)
class Output:
    """A run of bytes that a task wrote. ``stream`` is ``stdout`` or ``stderr``, or ``system`` for what its node says of
    it; ``offset`` counts within it.

    Where output is missing a line of the stream ``system`` says so: ``missing_bytes`` of what the task wrote, of the
    stream that the line names, are in nobody's hands.
    """

    stream: str
    offset: int
    data: bytes
    attempt: int
    missing_bytes: int = 0


_STREAMS = {
    calls.pb.LOG_STREAM_STDOUT: "stdout",
    calls.pb.LOG_STREAM_STDERR: "stderr",
    calls.pb.LOG_STREAM_SYSTEM: "system",
}


async def watch(
    pool: connection.Connection, ids: Sequence[str], *, ended_only: bool = False
) -> AsyncGenerator[shapes.Task, None]:
    """Yield each task now and whenever it changes, until all have ended.

    With ``ended_only`` a pool that knows the word says nothing of a task before its end.
    """
    left = dict.fromkeys(ids)
    seen: dict[str, int] = {}
    tries = pool.tries()
    while left:
        request = calls.pb.WatchTasksRequest(task_ids=list(left), ended_only=ended_only)
        try:
            with pool.open(pool.pool.WatchTasks(request)) as answers:
                async for answer in answers:
                    verdicts.legible(answer, "following tasks")
                    tries.worked()
                    if not answer.HasField("task"):
                        continue  # the pool watches
                    if seen.get(answer.task.id, -1) >= answer.task.version:
                        continue  # told before the line broke
                    seen[answer.task.id] = answer.task.version
                    task = shapes.task_from(answer.task)
                    if task.ended:
                        left.pop(task.id, None)
                    yield task
        except grpc.aio.AioRpcError as error:
            await tries.again(error, "watching tasks")


async def _end_of(pool: connection.Connection, task_id: str) -> shapes.Task | None:
    """Return one task once it has ended: a call costs both ends half of what a stream costs.

    ``None`` where the pool does not know such a question, or sends the result in a stream alone: then it is watched.
    """
    request = calls.pb.GetTaskRequest(task_id=task_id, wait_seconds=WAIT_SECONDS)
    while True:
        began = clock.now()
        try:
            answer = await pool.ask(pool.pool.GetTask, request, "following tasks")
        except errors.NotImplementedByPeer:
            return None
        if not answer.HasField("task"):
            return None
        task = shapes.task_from(answer.task)
        if task.ended:
            return task
        if clock.now() - began < WAIT_SECONDS / 2:
            return None


async def wait(
    pool: connection.Connection, ids: Sequence[str], seconds: float | None, told: Callable[[shapes.Task], None]
) -> tuple[shapes.Task, ...]:
    """Return the tasks, in the order asked, once all have ended; ``told`` is called with each the moment it has.

    Raises TimeoutError, saying how many have not, after ``seconds``.
    """
    ended: dict[str, shapes.Task] = {}
    try:
        async with asyncio.timeout(seconds):
            if len(set(ids)) == 1 and (task := await _end_of(pool, ids[0])) is not None:
                ended[task.id] = await fetching.complete(pool, task)
                told(ended[task.id])
                return (ended[task.id],) * len(ids)
            changes = watch(pool, ids, ended_only=True)
            async for task in changes:
                if task.ended:
                    ended[task.id] = await fetching.complete(pool, task)
                    told(ended[task.id])
                if len(ended) == len(set(ids)):
                    pool.finish(changes)  # all that was to come has come: the stream's own end is nobody's to wait for
                    break
    except TimeoutError:
        left = [task_id for task_id in ids if task_id not in ended]
        shown = ", ".join(left[:3]) + (" …" if len(left) > 3 else "")
        raise TimeoutError(f"{len(left)} of {len(ids)} tasks have not ended after {seconds:g} s: {shown}") from None
    return tuple(ended[task_id] for task_id in ids)


async def logs(pool: connection.Connection, task_id: str, *, follow: bool, attempt: int = 0) -> AsyncIterator[Output]:
    """Yield what a task wrote, in the order it came; with ``follow`` until the task has ended.

    ``attempt`` 0 is the newest. Where a task is tried again while it is followed, the new attempt's output comes after.
    Where bytes are missing a line says how many.
    """
    reading, following = attempt, 0  # the attempt being read, and the first chunk that we do not have of it
    ends: dict[str, int] = {}  # what we have of each stream of it
    pinned = bool(attempt)  # whether we name the attempt, instead of having the pool go on from one to the next
    tries = pool.tries()
    while True:
        got = False
        request = calls.pb.GetTaskLogsRequest(
            task_id=task_id, follow=follow, attempt=reading if pinned else 0, from_sequence=following
        )
        try:
            with pool.open(pool.pool.GetTaskLogs(request)) as answers:
                async for answer in answers:
                    verdicts.legible(answer, "following tasks")
                    tries.worked()
                    got = True
                    if answer.attempt != reading:
                        reading, following, ends = answer.attempt, 0, {}
                    for chunk in answer.chunks:
                        if chunk.stream not in _STREAMS or not _is_new(chunk, following, ends):
                            continue
                        following = max(following, chunk.sequence + 1)
                        for output in _with_gap(chunk, ends, reading):
                            yield output
        except grpc.aio.AioRpcError as error:
            await tries.again(error, f"reading the output of {task_id}")
            pinned = pinned or bool(following)  # numbers of chunks mean something within their attempt alone
        else:
            if attempt or not (follow and pinned and got):
                return
            reading, following, ends = reading + 1, 0, {}  # the line broke in this attempt: is there one after it?


def _is_new(chunk: calls.pb.LogChunk, following: int, ends: Mapping[str, int]) -> bool:
    """Whether we do not have it: by its number, or by its place where it was put in before a later number."""
    if chunk.sequence >= following:
        return True
    stream = _STREAMS[chunk.stream]
    return stream != "system" and chunk.offset + bool(chunk.data) > ends.get(stream, 0)


def _with_gap(chunk: calls.pb.LogChunk, ends: dict[str, int], attempt: int) -> Iterator[Output]:
    """The chunk, after a line that says what is missing before it."""
    stream = _STREAMS[chunk.stream]
    missing = chunk.offset - ends.get(stream, 0)
    if stream != "system" and missing > 0:
        line = f"[hivemind: {missing} bytes of {stream} are missing here]\n".encode()
        yield Output("system", ends.get("system", 0), line, attempt, missing)
    ends[stream] = max(ends.get(stream, 0), chunk.offset + len(chunk.data))
    if chunk.data:
        yield Output(stream, chunk.offset, chunk.data, attempt)
