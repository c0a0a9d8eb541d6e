"""Which of a run's output is missing: chunks beside what its report says that it wrote, and what the report can fill.

The bytes of a report's text are used where it is certain which they are: one stream alone, in text that was not
replaced. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hivemind_worker.pool.api import attempt_logs
from hivemind_worker.wire import calls, unparsed

PIECE_BYTES = 256 * 1024
"""Most of a report's text in one chunk: a sixteenth of the message limit."""

SMALL_BYTES = 64 * 1024
"""A report of less is read in the plain way."""

STDOUT = int(calls.pb.LOG_STREAM_STDOUT)
STDERR = int(calls.pb.LOG_STREAM_STDERR)

_REPLACED = "\N{REPLACEMENT CHARACTER}".encode()

_CUT = re.compile(rb"\[hivemind: (\d{1,18}) bytes of std(?:out|err) are not kept\]\n")
"""The line that a worker writes in the place of the middle of long output."""


@dataclass(frozen=True, slots=True)
class Reported:
    """What an accepted report says of output: ``totals`` in bytes by stream, and ``runs``: bytes at their offset."""

    totals: Mapping[int, int] = field(default_factory=dict)
    stream: int = STDOUT
    runs: tuple[tuple[int, bytes], ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether the report alone holds every byte."""
        return sum(len(data) for _, data in self.runs) == sum(self.totals.values())


def reported(result: calls.pb.TaskResult) -> Reported:
    """Read what a report says of its run's output."""
    totals = {STDOUT: max(0, result.stdout_bytes), STDERR: max(0, result.stderr_bytes)}
    stream = STDERR if not totals[STDOUT] else STDOUT
    runs: tuple[tuple[int, bytes], ...] = ()
    if any(totals.values()) and not (totals[STDOUT] and totals[STDERR]):
        text = output_of(result)
        runs = _runs(text, totals[stream]) if _REPLACED not in text else ()
    return Reported(totals, stream, runs)


def output_of(result: calls.pb.TaskResult) -> bytes:
    """Return a report's output as bytes: as text, one wide character makes four bytes of each."""
    if result.ByteSize() < SMALL_BYTES:
        return result.logs.encode()
    return unparsed.field_bytes(result.SerializeToString(), calls.pb.TaskResult.LOGS_FIELD_NUMBER)


def _runs(text: bytes, total: int) -> tuple[tuple[int, bytes], ...]:
    if len(text) == total:
        return ((0, text),) if total else ()
    for cut in _CUT.finditer(text):
        tail = len(text) - cut.end()
        # The line begins a line: a line break before it may be the worker's own. Nothing is copied until one fits: a
        # task may write 100,000 such lines.
        for head in (cut.start(), cut.start() - text.endswith(b"\n", 0, cut.start())):
            if head + int(cut[1]) + tail == total:
                return ((0, text[:head]), (total - tail, text[cut.end() :]))
    return ()


class Coverage:
    """Goes through the chunks of one run in their order, and tells what is missing before each and after the last."""

    def __init__(self, report: Reported | None = None) -> None:
        self.report = report
        self.missing_bytes = 0
        """Bytes so far that neither the chunks nor the report have."""
        self._ends = {STDOUT: 0, STDERR: 0}
        self._sequence = -1

    def chunk(self, chunk: attempt_logs.Chunk) -> list[attempt_logs.Chunk]:
        """Return what the report has of the bytes between this chunk and the one before it in its stream.

        It has the number of the chunk before: whoever goes on from a number gets it with the chunk that follows.
        """
        before: list[attempt_logs.Chunk] = []
        if chunk.stream in self._ends:
            before = self._fill(chunk.stream, chunk.offset)
            self._ends[chunk.stream] = max(self._ends[chunk.stream], chunk.offset + len(chunk.data))
        self._sequence = chunk.sequence
        return before

    def rest(self) -> list[attempt_logs.Chunk]:
        """Return what the report has after the last chunks; an empty chunk at a stream's end where bytes are missing.

        All of it once.
        """
        pieces = []
        for stream, total in (self.report.totals if self.report is not None else {}).items():
            pieces += self._fill(stream, total)
            covered = pieces[-1].offset + len(pieces[-1].data) if pieces and pieces[-1].stream == stream else 0
            if max(covered, self._ends[stream]) < total:
                pieces.append(attempt_logs.Chunk(self._sequence, stream, total, b""))
            self._ends[stream] = max(self._ends[stream], total)
        return pieces

    def _fill(self, stream: int, until: int) -> list[attempt_logs.Chunk]:
        begin = self._ends[stream]
        if until <= begin:
            return []
        runs = self.report.runs if self.report is not None and self.report.stream == stream else ()
        pieces = [
            attempt_logs.Chunk(self._sequence, stream, at, data[at - start : min(until, at + PIECE_BYTES) - start])
            for start, data in runs
            for at in range(max(begin, start), min(until, start + len(data)), PIECE_BYTES)
        ]
        self.missing_bytes += until - begin - sum(len(piece.data) for piece in pieces)
        return pieces


def missing_bytes(chunks: Iterable[attempt_logs.Chunk], report: Reported) -> int:
    """Count what neither the chunks nor the report have of a run's output."""
    seen = Coverage(report)
    for chunk in chunks:
        seen.chunk(chunk)
    seen.rest()
    return seen.missing_bytes
