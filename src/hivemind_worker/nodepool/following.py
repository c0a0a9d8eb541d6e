"""Following a task's output: what is kept of it now, and with patience what comes, through every attempt to its end."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass

from hivemind_worker.nodepool import attempt_logs, changes, coverage, telling
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

    What never came is put in from the task's accepted report, as far as that has it, with the number of the chunk
    before. An empty chunk behind the last byte of its stream says that bytes are missing before it.

    Raises :class:`errors.NoSuchTask`.
    """
    (task,) = await kept.tasks([wanted.task_id])
    attempt, first = wanted.attempt or task.attempt, wanted.from_sequence
    # Read from the first chunk on, whatever is wanted: what is missing shows by what is there.
    following, place, seen = 0, (0, 0), coverage.Coverage()
    while True:
        seen.report = seen.report or _report(task, attempt)
        page = attempt_logs.Page((), place)
        assigned = await kept.assignment(task.id, attempt)
        if assigned is not None:
            key = key_of(task.id, attempt, assigned)
            page = await logs.on_thread(logs.read, key, following, PAGE_BYTES, place)
        place = page.end
        if page.chunks:
            following = page.chunks[-1].sequence + 1
            whole = [[*seen.chunk(chunk), chunk] for chunk in page.chunks]
            for answer in _pages([_chunk(each) for run in whole if run[-1].sequence >= first for each in run], attempt):
                yield answer
            continue
        over = task.ended or attempt < task.attempt
        if over:
            rest = _pages([_chunk(chunk) for chunk in seen.rest()], attempt) if following else _reported(task, attempt)
            for answer in rest if following or first == 0 else ():
                yield answer
        # A new attempt's output comes after the old one's.
        if attempt < task.attempt and not wanted.attempt:
            attempt, following, place, seen, first = task.attempt, 0, (0, 0), coverage.Coverage(), 0
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


_AS_REPORTED = (
    b"[hivemind: the output is lost but for what its report has: both streams in one, and only what is text]\n"
)


def _report(task: records.Task, attempt: int) -> coverage.Reported | None:
    """What the accepted report says of this attempt's output; ``None`` before it is there."""
    return coverage.reported(telling.result(task)) if task.ended and attempt == task.attempt else None


def _pages(chunks: list[pb.LogChunk], attempt: int) -> Iterator[pb.GetTaskLogsResponse]:
    while chunks:  # of many small ones their numbers take more than their content
        fitting = budget.page(chunks, PAGE_BYTES + calls.CHUNK_BYTES)
        del chunks[: len(fitting)]
        yield pb.GetTaskLogsResponse(chunks=fitting, attempt=attempt)


def _reported(task: records.Task, attempt: int) -> Iterable[pb.GetTaskLogsResponse]:
    """The output in the result, where no chunk of it is here: a node may have sent none while the task ran."""
    report = _report(task, attempt)
    if report is None:
        return []
    data = telling.result(task).logs.encode()
    if report.runs or (any(report.totals.values()) and not data):
        pieces = coverage.Coverage(report).rest()
        numbered = (dataclasses.replace(piece, sequence=number) for number, piece in enumerate(pieces))
        return _pages([_chunk(piece) for piece in numbered], attempt)
    chunks = [
        pb.LogChunk(stream=pb.LOG_STREAM_STDOUT, offset=start, data=data[start : start + PAGE_BYTES])
        for start in range(0, len(data), PAGE_BYTES)
    ]
    if any(report.totals.values()):
        chunks.insert(0, pb.LogChunk(stream=pb.LOG_STREAM_SYSTEM, data=_AS_REPORTED))
    for number, chunk in enumerate(chunks):
        chunk.sequence = number
    return _pages(chunks, attempt)


def _chunk(chunk: attempt_logs.Chunk) -> pb.LogChunk:
    return pb.LogChunk(
        stream=_STREAMS.get(chunk.stream, pb.LOG_STREAM_STDOUT),
        offset=chunk.offset,
        data=chunk.data,
        sequence=chunk.sequence,
    )
