"""Result files as they come from a capsule → artifacts in the store; every cap is kept here again, whole files only.

What a capsule says is hostile: names, sizes, counts, order. Nothing it says becomes a path here: files are written
under the store's own names, and a result's name is only carried along as text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from hivemind_worker import errors
from hivemind_worker.artifacts import store as stores
from hivemind_worker.artifacts import writing
from hivemind_worker.runtime.capsule import messages, paths
from hivemind_worker.tasks import outcome, plan

BATCH = 1024 * 1024
"""Bytes that wait for one turn of a thread: a turn costs 0.1 ms, so less would be felt."""

NAME_BYTES = 1024
"""Longest name of a result."""

FILE_COST_BYTES = 96
"""What a result takes of a report beside its name: its sum, its size, its mode."""

NAMES_BYTES = 2 * 1024 * 1024
"""All results of one attempt together, as a report names them: half of a message, so that an end with its output always
fits into one. It holds 10,000 names of 113 bytes, or 20,000 short ones; the rest is skipped."""

SKIPS = 100
"""Skipped files that are named; the others are only counted, in one last line."""

_OPEN_FILES = 64  # results written but not yet committed hold a file descriptor each
_MODE = 0o777  # setuid, setgid and sticky bits are not given back
_SHOWN = 200

_WHY = {
    messages.Skipped.SYMLINK: "symlink",
    messages.Skipped.FIFO: "fifo",
    messages.Skipped.SOCKET: "socket",
    messages.Skipped.DEVICE: "device",
    messages.Skipped.UNREADABLE: "unreadable",
    messages.Skipped.BYTES: "over cap: bytes",
    messages.Skipped.COUNT: "over cap: count",
    messages.Skipped.DEPTH: "over cap: depth",
    messages.Skipped.TIME: "over cap: time",
    messages.Skipped.NAME: "name",
}

_CAPPED = frozenset(
    {messages.Skipped.BYTES, messages.Skipped.COUNT, messages.Skipped.DEPTH, messages.Skipped.TIME}
)  # fmt: skip

ResultMessage = (
    messages.ResultBegin
    | messages.ResultData
    | messages.ResultEnd
    | messages.ResultDropped
    | messages.ResultSkipped
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Results:
    """What was taken and what was not; ``capped`` when a cap left something out."""

    files: tuple[outcome.ResultFile, ...] = ()
    skipped: tuple[outcome.SkippedFile, ...] = ()
    capped: bool = False


@dataclass(frozen=True, slots=True)
class Half:
    """A result file that has come in part: what was announced, where it lies, and how many bytes are on the disk."""

    path: bytes
    mode: int
    size: int
    staged_name: str
    written: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a receiver is, for another process to go on from: all that it names is on the disk."""

    files: tuple[outcome.ResultFile, ...] = ()
    skipped: tuple[outcome.SkippedFile, ...] = ()
    unnamed: int = 0
    capped: bool = False
    bytes: int = 0
    count: int = 0
    names: int = 0
    half: Half | None = None


class Receiver:
    """Takes the result messages of one attempt. `take` each, then `finish`, or `abort`: no file of ours stays open.

    ``after``: what an earlier process had taken. Raises NodeFault where that is gone.

    ``on_stored`` is called on the event loop with what has come into the store, also where no end will name it: by
    its return after `abort` or `suspend` everything was named. Content that is stored once more is named once more.
    """

    def __init__(
        self,
        store: stores.Store,
        caps: plan.Caps,
        after: Progress = Progress(),
        on_stored: Callable[[Collection[outcome.Artifact]], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._caps = caps
        self._waiting: list[ResultMessage] = []
        self._waiting_bytes = 0
        self._turn: asyncio.Task[None] | None = None
        self._begun: tuple[messages.ResultBegin, writing.Writer] | None = None
        self._ended: list[tuple[messages.ResultBegin, writing.Writer]] = []
        self._files: list[outcome.ResultFile] = list(after.files)
        self._on_stored = on_stored
        self._announced = 0
        self._skipped: list[outcome.SkippedFile] = list(after.skipped)
        self._unnamed = after.unnamed
        self._capped = after.capped
        self._bytes, self._count, self._names = after.bytes, after.count, after.names
        if half := after.half:
            try:
                writer = store.reopen(half.staged_name, half.written, half.size)
            except (FileNotFoundError, writing.WrongContent) as error:
                raise errors.NodeFault(f"what had come of a result file is gone: {error}") from error
            self._begun = (messages.ResultBegin(half.path, half.mode, half.size), writer)

    async def take(self, message: ResultMessage) -> None:
        """Take the next message; waits while the disk is busy. Raises OSError when the disk fails or is full."""
        self._waiting.append(message)
        self._waiting_bytes += len(message.data) if isinstance(message, messages.ResultData) else 0
        if self._waiting_bytes >= BATCH or len(self._waiting) >= 1000:
            await self._write_waiting()

    async def progress(self) -> Progress:
        """Put everything taken so far on the disk and tell how far that is. Raises OSError."""
        await self._write_waiting()
        await self._in_turn(self._commit)
        half = None
        if self._begun is not None:
            begin, writer = self._begun
            await self._store.on_thread(writer.sync)
            writer.promised = True
            half = Half(begin.path, begin.mode, begin.size, writer.path.name, writer.size)
        files, skipped = tuple(self._files), tuple(self._skipped)
        return Progress(files, skipped, self._unnamed, self._capped, self._bytes, self._count, self._names, half)

    async def finish(self) -> Results:
        """All has come: everything on disk, durable, in the store. Raises OSError."""
        await self._write_waiting()
        await self._in_turn(self._commit)
        skipped = tuple(self._skipped)
        if self._unnamed:
            skipped += (outcome.SkippedFile("…", f"{self._unnamed} more were skipped"),)
        return Results(tuple(self._files), skipped, self._capped)

    async def abort(self) -> None:
        """Throw away what is not committed; does nothing after `finish`.

        What `progress` named stays, for whoever goes on from there, until the end of the attempt is written down.
        """
        await self._end_turn()
        left = [*self._ended, *([self._begun] if self._begun else [])]
        self._ended, self._begun = [], None
        for _, writer in left:
            writer.abort()

    async def _write_waiting(self) -> None:
        await self._settled()  # one turn at a time: the order matters, and memory stays flat
        batch, self._waiting, self._waiting_bytes = self._waiting, [], 0
        if batch:
            self._turn = asyncio.create_task(self._store.on_thread(self._write, batch), name="write results")

    async def _in_turn(self, work: Callable[[], None]) -> None:
        """Have a thread do it. Where this is cancelled `abort` waits for the thread: it may store files yet."""
        await self._settled()
        self._turn = asyncio.create_task(self._store.on_thread(work), name="store results")
        await self._settled()

    async def _settled(self) -> None:
        if self._turn is not None:
            await asyncio.shield(self._turn)
            self._turn = None
        self._announce()

    async def _end_turn(self) -> None:
        if self._turn is not None:
            await asyncio.wait({self._turn})
        self._waiting.clear()
        self._announce()

    def _announce(self) -> None:
        new = self._files[self._announced :]
        self._announced += len(new)
        if new:
            self._on_stored({file.artifact for file in new})

    def _write(self, batch: Sequence[ResultMessage]) -> None:
        for message in batch:
            match message:
                case messages.ResultBegin():
                    self._begin(message)
                case messages.ResultData() if self._begun:
                    self._data(self._begun[1], message)
                case messages.ResultEnd() if self._begun:
                    begin, writer = self._begun
                    writer.skip_to(begin.size)
                    self._ended.append(self._begun)
                    self._begun = None
                    if len(self._ended) >= _OPEN_FILES:
                        self._commit()
                case messages.ResultDropped():
                    self._drop(message.why)
                case messages.ResultSkipped():
                    self._skip(message.path, _WHY[message.why], capped=message.why in _CAPPED)
                case _:
                    pass  # belongs to a file that was refused when it began

    def _begin(self, begin: messages.ResultBegin) -> None:
        why = self._refusal(begin)
        if why is not None:
            self._skip(begin.path, why, capped=why.startswith("over cap"))
            return
        self._count += 1
        self._bytes += begin.size
        self._names += len(begin.path) + FILE_COST_BYTES
        self._begun = (begin, self._store.writer(limit=begin.size))

    def _refusal(self, begin: messages.ResultBegin) -> str | None:
        unsafe = paths.problem(begin.path)
        checks = (
            (unsafe is not None, f"name: {unsafe}"),
            (_text(begin.path) is None, "name: not UTF-8"),
            (len(begin.path) > NAME_BYTES, f"name: longer than {NAME_BYTES} bytes"),
            (begin.path.count(b"/") >= self._caps.results_depth, "over cap: depth"),
            (self._count >= self._caps.results_count, "over cap: count"),
            (self._bytes + begin.size > self._caps.results_bytes, "over cap: bytes"),
            (self._names + len(begin.path) + FILE_COST_BYTES > NAMES_BYTES, "over cap: names"),
        )
        return next((why for wrong, why in checks if wrong), None)

    @staticmethod
    def _data(writer: writing.Writer, data: messages.ResultData) -> None:
        if data.offset > writer.size:
            writer.skip_to(data.offset)
        writer.write(data.data)

    def _drop(self, why: messages.Skipped) -> None:
        if self._begun is None:
            return
        begin, writer = self._begun
        self._begun = None
        writer.abort()
        self._skip(begin.path, _WHY[why], capped=why in _CAPPED)

    def _skip(self, path: bytes, why: str, *, capped: bool) -> None:
        self._capped = self._capped or capped
        if len(self._skipped) < SKIPS:
            self._skipped.append(outcome.SkippedFile(paths.rendered(path[:_SHOWN]), why))
        else:
            self._unnamed += 1

    def _commit(self) -> None:
        if not self._ended:
            return
        artifacts = self._store.commit([writer for _, writer in self._ended])
        for (begin, _), artifact in zip(self._ended, artifacts, strict=True):
            self._files.append(outcome.ResultFile(begin.path.decode(), artifact, begin.mode & _MODE))
        self._ended = []


def _text(path: bytes) -> str | None:
    try:
        return path.decode()
    except UnicodeDecodeError:
        return None
