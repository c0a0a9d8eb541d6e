"""Following a task's output: what is kept of it now, and with patience what comes, through every attempt to its end."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from hivemind_worker.nodepool import attempt_logs, changes, coverage, streams, telling
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


class Reports:
    """The accepted report of the task that is followed. It has up to 4 MiB: what is kept of it counts until the end."""

    def __init__(self, kept: store.Store, room: Callable[[int], Awaitable[streams.Room]]) -> None:
        self.store = kept
        self._room = room
        self._rooms = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rooms.close()

    async def task(self, task_id: str) -> records.Task:
        """Return the task without its report. Raises :class:`errors.NoSuchTask`."""
        (task,) = await self.store.tasks([task_id], max_result_bytes=0)
        return task

    async def of(self, task: records.Task, attempt: int) -> pb.TaskResult | None:
        """Return the report of this attempt; ``None`` before it is there, and for attempts before the last.

        Raises :class:`errors.Unavailable` for lack of room.
        """
        if not task.ended or attempt != task.attempt:
            return None
        self._rooms.close()
        self._rooms.enter_context(await self._room(2 * task.result_bytes))
        (whole,) = await self.store.tasks([task.id])
        return telling.result(whole)


async def output(
    reports: Reports, logs: attempt_logs.AttemptLogs, wanted: Wanted, follower: changes.Follower | None
) -> AsyncIterator[pb.GetTaskLogsResponse]:
    """Yield output, page by page; with a ``follower`` go on until the task has ended.

    What never came is put in from the task's accepted report, as far as that has it, with the number of the chunk
    before. An empty chunk behind the last byte of its stream says that bytes are missing before it.

    Raises :class:`errors.NoSuchTask`, :class:`errors.Unavailable`.
    """
    task = await reports.task(wanted.task_id)
    attempt, first = wanted.attempt or task.attempt, wanted.from_sequence
    # Read from the first chunk on, whatever is wanted: what is missing shows by what is there.
    following, place, seen = 0, (0, 0), coverage.Coverage()
    while True:
        if seen.report is None and (report := await reports.of(task, attempt)) is not None:
            seen.report, report = coverage.reported(report), None
        page = attempt_logs.Page((), place)
        assigned = await reports.store.assignment(task.id, attempt)
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
            if following:
                rest: Iterable[pb.GetTaskLogsResponse] = _pages([_chunk(chunk) for chunk in seen.rest()], attempt)
            else:
                rest = _reported(await reports.of(task, attempt), attempt) if first == 0 else ()
            for answer in rest:
                yield answer
        # A new attempt's output comes after the old one's.
        if attempt < task.attempt and not wanted.attempt:
            attempt, following, place, seen, first = task.attempt, 0, (0, 0), coverage.Coverage(), 0
            continue
        if over or follower is None or follower.closed:
            return
        await follower.changed()
        task = await reports.task(wanted.task_id)


def key_of(task_id: str, attempt: int, assigned: records.Assignment) -> attempt_logs.Key:
    """Return whose output an attempt's is: that of the run that it is bound to."""
    if assigned.legacy_logs:
        return attempt_logs.Key(task_id, attempt)
    return attempt_logs.Key(task_id, attempt, assigned.epoch, assigned.run_id)


_STREAMS = {int(known): known for known in (pb.LOG_STREAM_STDOUT, pb.LOG_STREAM_STDERR, pb.LOG_STREAM_SYSTEM)}


_AS_REPORTED = (
    b"[hivemind: the output is lost but for what its report has: both streams in one, and only what is text]\n"
)


def _pages(chunks: list[pb.LogChunk], attempt: int) -> Iterator[pb.GetTaskLogsResponse]:
    while chunks:  # of many small ones their numbers take more than their content
        fitting = budget.page(chunks, PAGE_BYTES + calls.CHUNK_BYTES)
        del chunks[: len(fitting)]
        yield pb.GetTaskLogsResponse(chunks=fitting, attempt=attempt)


def _reported(result: pb.TaskResult | None, attempt: int) -> Iterable[pb.GetTaskLogsResponse]:
    """The output in the result, where no chunk of it is here: a node may have sent none while the task ran."""
    if result is None:
        return []
    report, data = coverage.reported(result), coverage.output_of(result)
    del result
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
