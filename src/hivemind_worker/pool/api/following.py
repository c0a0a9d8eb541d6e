"""Following a task's output: what is kept of it now, and with patience what comes, through every attempt to its end."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from hivemind_worker.pool.api import attempt_logs, changes, coverage, streams, telling
from hivemind_worker.pool.store import records, store
from hivemind_worker.wire import budget, calls

pb = calls.pb

PAGE_BYTES = 1024**2
"""About how much output goes into one message."""

PAGE_FACTOR = 3
"""How often a page is in memory until it is a message: as it is read, in its chunks' messages, and in its own."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whose output, from which chunk on. ``attempt`` 0: the newest, and each that comes after it."""

    task_id: str
    attempt: int = 0
    from_sequence: int = 0


class Reports:
    """The accepted report of the task that is followed. It has up to 4 MiB: what is kept of it counts until the end.

    What ``peer`` has of it, and of pages of output, counts in ``budgets``.
    """

    def __init__(self, kept: store.Store, budgets: streams.Streams, peer: str) -> None:
        self.store = kept
        self._budgets = budgets
        self._peer = peer
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

    async def page_room(self, size: int) -> streams.Room:
        """Count a page of output until it is sent. Raises :class:`errors.Unavailable` for lack of room."""
        return await self._budgets.downloads.take(self._peer, PAGE_FACTOR * size)

    async def of(self, task: records.Task, attempt: int) -> pb.TaskResult | None:
        """Return the report of this attempt; ``None`` before it is there, and for attempts before the last.

        Raises :class:`errors.Unavailable` for lack of room.
        """
        if not task.ended or attempt != task.attempt:
            return None
        self._rooms.close()
        self._rooms.enter_context(await self._budgets.open.take(self._peer, 2 * task.result_bytes))
        (whole,) = await self.store.tasks([task.id])
        return telling.result(whole)


async def output(
    reports: Reports, logs: attempt_logs.AttemptLogs, wanted: Wanted, follower: changes.Follower | None
) -> AsyncGenerator[pb.GetTaskLogsResponse, None]:
    """Yield output, page by page, keeping none; with a ``follower`` go on until the task has ended.

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
        with contextlib.ExitStack() as room:
            if assigned is not None:
                key = key_of(task.id, attempt, assigned)
                size = min(PAGE_BYTES, await logs.on_thread(logs.unread_bytes, key, place))
                room.enter_context(await reports.page_room(size))
                page = await logs.on_thread(logs.read, key, following, size, place)
            place = page.end
            if page.chunks:
                following = page.chunks[-1].sequence + 1
                answers = _pages(_from(first, page.chunks, seen), attempt)
                page = attempt_logs.Page((), place)
                while box := list(itertools.islice(answers, 1)):
                    yield box.pop()
                continue
        over = task.ended or attempt < task.attempt
        if over:
            if following:
                rest: Iterable[pb.GetTaskLogsResponse] = _pages([_chunk(chunk) for chunk in seen.rest()], attempt)
            else:
                rest = _reported(await reports.of(task, attempt), attempt) if first == 0 else ()
            answers = iter(rest)
            del rest
            while box := list(itertools.islice(answers, 1)):
                yield box.pop()
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


def _from(first: int, chunks: Sequence[attempt_logs.Chunk], seen: coverage.Coverage) -> list[pb.LogChunk]:
    """Messages of these chunks from number ``first`` on, each behind what is missing before it."""
    whole = ([*seen.chunk(chunk), chunk] for chunk in chunks)
    return [_chunk(each) for run in whole if run[-1].sequence >= first for each in run]


def _pages(chunks: list[pb.LogChunk], attempt: int) -> Iterator[pb.GetTaskLogsResponse]:
    while chunks:  # of many small ones their numbers take more than their content
        box = [pb.GetTaskLogsResponse(chunks=budget.page(chunks, PAGE_BYTES + calls.CHUNK_BYTES), attempt=attempt)]
        del chunks[: len(box[0].chunks)]
        yield box.pop()


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
