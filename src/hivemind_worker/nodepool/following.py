"""Following a task's output: what is kept of it now, and with patience what comes, through every attempt to its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from hivemind_worker.nodepool import attempt_logs, changes, telling
from hivemind_worker.nodepool.store import records, store
from hivemind_worker.wire import budget, calls

pb = calls.pb

PAGE_BYTES = 1024**2
"""About how much output goes into one message."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whose output, from which chunk on. ``attempt`` 0: the newest, and each that comes after it."""

    task_id: str
    attempt: int = 0
    from_sequence: int = 0


async def output(
    kept: store.Store, logs: attempt_logs.AttemptLogs, wanted: Wanted, follower: changes.Follower | None
) -> AsyncIterator[pb.GetTaskLogsResponse]:
    """Yield output, page by page; with a ``follower`` go on until the task has ended.

    Raises :class:`errors.NoSuchTask`.
    """
    (task,) = await kept.tasks([wanted.task_id])
    attempt = wanted.attempt or task.attempt
    following, place = wanted.from_sequence, (0, 0)
    while True:
        page = attempt_logs.Page((), place)
        assigned = await kept.assignment(task.id, attempt)
        if assigned is not None:
            key = key_of(task.id, attempt, assigned)
            page = await asyncio.to_thread(logs.read, key, following, PAGE_BYTES, place)
        place = page.end
        if page.chunks:
            following = page.chunks[-1].sequence + 1
            chunks = [_chunk(chunk) for chunk in page.chunks]
            while chunks:  # of many small ones their numbers take more than their content
                fitting = budget.page(chunks, PAGE_BYTES + calls.CHUNK_BYTES)
                del chunks[: len(fitting)]
                yield pb.GetTaskLogsResponse(chunks=fitting, attempt=attempt)
            continue
        over = task.ended or attempt < task.attempt
        if over and following == 0:
            for answer in _reported(task, attempt):
                yield answer
        # A new attempt's output comes after the old one's.
        if attempt < task.attempt and not wanted.attempt:
            attempt, following, place = task.attempt, 0, (0, 0)
            continue
        if over or follower is None or follower.closed:
            return
        await follower.changed()
        (task,) = await kept.tasks([wanted.task_id])


def key_of(task_id: str, attempt: int, assigned: records.Assignment) -> attempt_logs.Key:
    """Return whose output an attempt's is: that of the run that it is bound to."""
    if assigned.legacy_logs:
        return attempt_logs.Key(task_id, attempt)
    return attempt_logs.Key(task_id, attempt, assigned.epoch, assigned.run_id)


_STREAMS = {int(known): known for known in (pb.LOG_STREAM_STDOUT, pb.LOG_STREAM_STDERR, pb.LOG_STREAM_SYSTEM)}


def _reported(task: records.Task, attempt: int) -> list[pb.GetTaskLogsResponse]:
    """The output in the result, of a node that sent none while the task ran."""
    data = telling.result(task).logs.encode()
    if attempt != task.attempt or not data:
        return []
    return [
        pb.GetTaskLogsResponse(
            chunks=[
                pb.LogChunk(
                    stream=pb.LOG_STREAM_STDOUT,
                    offset=start,
                    data=data[start : start + PAGE_BYTES],
                    sequence=start // PAGE_BYTES,
                )
            ],
            attempt=attempt,
        )
        for start in range(0, len(data), PAGE_BYTES)
    ]


def _chunk(chunk: attempt_logs.Chunk) -> pb.LogChunk:
    return pb.LogChunk(
        stream=_STREAMS.get(chunk.stream, pb.LOG_STREAM_STDOUT),
        offset=chunk.offset,
        data=chunk.data,
        sequence=chunk.sequence,
    )
