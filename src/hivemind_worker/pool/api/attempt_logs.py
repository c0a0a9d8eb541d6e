"""The output of attempts, as it comes: files of bounded size, each chunk once, the middle given up when it grows long.

    root/ab/<name of the run>/0 1 7 8     segments of about 4 MiB; the first two and the last two are kept

The name is a hash of the store's epoch, the task, the attempt and the run: no output of another run is ever taken for
this one's, and nothing that a task may choose becomes a path. Chunks are not forced to the disk as they come: whoever
takes a run's end calls `sync` before. All of it blocks on the disk; on an event loop use a thread.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import os
import shutil
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from hivemind_worker.filesystem import private_dir, private_file

T = TypeVar("T")

SEGMENT_BYTES = 4 * 1024**2
"""A segment that has reached this size is ended: four of them bound an attempt's output to 16 MiB and one batch."""

THREADS = 2
"""One reads or writes at a time; another may wait for it and go on at once."""

HEAD = 2
TAIL = 2

MAX_CHUNKS = 20_000
"""Most chunks of one page: a task may write byte by byte, and each chunk takes its room in memory and in a message."""

# sequence, offset, stream, length of the data that follows
_HEADER = struct.Struct("<QQBI")


@dataclass(frozen=True, slots=True)
class Key:
    """Whose output: one run of one attempt. Without ``run_id`` it is what came before the run began.

    Without ``epoch`` it is an attempt of before stores had epochs, whose output has the older name.
    """

    task_id: str
    attempt: int
    epoch: str = ""
    run_id: str = ""

    @property
    def folder_name(self) -> str:
        """The name of its folder: 40 hexadecimal characters."""
        parts = [self.task_id, str(self.attempt)]
        if self.epoch:
            parts = [self.epoch, *parts, self.run_id]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of bytes of one stream (1 standard output, 2 standard error), at its ``offset`` there."""

    sequence: int
    stream: int
    offset: int
    data: bytes


Place = tuple[int, int]
"""A segment's number and a byte in it."""


@dataclass(frozen=True, slots=True)
class Page:
    """Chunks that were read together, and the place behind them."""

    chunks: tuple[Chunk, ...]
    end: Place


@dataclass(frozen=True, slots=True)
class Extent:
    """How much there is of a run's output. ``ends``: the first byte of each stream behind its last chunk.

    ``missing_bytes`` never came, before those; ``is_cut``: the middle was given up here, as the output grew long.
    """

    ends: Mapping[int, int]
    missing_bytes: int
    is_cut: bool


@dataclass(slots=True)
class _Tail:
    """Where an attempt's output stands: the segment being written and the first sequence number not there.

    ``unsynced``: segments that were written since they were last forced to the disk.
    """

    segment: int
    size: int
    next_sequence: int
    unsynced: set[int] = field(default_factory=set)
    ends: dict[int, int] = field(default_factory=dict)
    missing_bytes: int = 0
    is_cut: bool = False

    def count(self, chunk: Chunk, *, after_cut: bool = False) -> None:
        """Take note of a chunk's bytes; what lies before it is missing, unless it was given up here."""
        self.next_sequence = chunk.sequence + 1
        end = self.ends.get(chunk.stream, 0)
        if not after_cut:
            self.missing_bytes += max(0, chunk.offset - end)
        self.ends[chunk.stream] = max(end, chunk.offset + len(chunk.data))


class AttemptLogs:
    """The output of all attempts under one folder. Safe for many threads."""

    def __init__(self, root: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._root = root
        self._segment_bytes = segment_bytes
        self._tails: dict[Path, _Tail] = {}
        self._joined: dict[Path, Path] = {}
        self._lock = threading.Lock()
        # Threads of its own: output waits for no upload, nor anybody for it.
        self._threads = concurrent.futures.ThreadPoolExecutor(THREADS, thread_name_prefix="pool-logs")

    async def on_thread(self, work: Callable[..., T], *values: object) -> T:
        """Do one of the below in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *values)

    def close(self) -> None:
        """Let go of the threads, once no call is under way."""
        self._threads.shutdown(wait=False)

    def append(self, key: Key, chunks: Sequence[Chunk]) -> int:
        """Add what is new of ``chunks``; return the first sequence number that is not here.

        What is here already is passed over. A gap in the numbers is accepted: what is missing was lost on the way, and
        the offsets show it. The first output of a run goes on with what came before it had begun. Raises OSError.
        """
        with self._lock:
            folder = self._joined_folder(key)
            tail = self._tail(folder)
            new = [chunk for chunk in sorted(chunks, key=_sequence) if chunk.sequence >= tail.next_sequence]
            if new:
                private_dir.make_sub(folder)
            for chunk in new:
                if chunk.sequence >= tail.next_sequence:  # not a second one of the same number
                    self._write(folder, tail, chunk)
            return tail.next_sequence

    def next_sequence(self, key: Key) -> int:
        """Return the first sequence number that is not here."""
        with self._lock:
            return self._tail(self._folder(key)).next_sequence

    def extent(self, key: Key) -> Extent:
        """Return how much there is of a run's output."""
        with self._lock:
            tail = self._tail(self._folder(key))
            return Extent(dict(tail.ends), tail.missing_bytes, tail.is_cut)

    def chunks(self, key: Key) -> Iterator[Chunk]:
        """Yield all chunks of a run, page by page."""
        start, place = 0, (0, 0)
        while (page := self.read(key, start, SEGMENT_BYTES, place)).chunks:
            yield from page.chunks
            start, place = page.chunks[-1].sequence + 1, page.end

    def sync(self, key: Key) -> None:
        """Force a run's output to the disk, as far as that was not done. Appends go on meanwhile. Raises OSError."""
        with self._lock:
            folder = self._folder(key)
            unsynced = self._tail(folder).unsynced
            segments, is_new = sorted(unsynced), 0 in unsynced
            unsynced.clear()
        try:
            for segment in segments:
                with contextlib.suppress(FileNotFoundError):  # the middle, given up meanwhile
                    _sync(folder / str(segment))
            if segments:
                for path in (folder, folder.parent, self._root, self._root.parent) if is_new else (folder,):
                    _sync(path)
        except OSError:
            with self._lock:
                self._tail(folder).unsynced.update(segments)
            raise

    def read(self, key: Key, start: int, most_bytes: int, since: Place = (0, 0)) -> Page:
        """Return chunks from sequence number ``start`` on, about ``most_bytes`` of them.

        ``since`` is the place that the page before ended at, so that a follower does not read the same bytes again.
        """
        found: list[Chunk] = []
        size = 0
        place = since
        with self._lock:
            for segment in _segments(self._folder(key)):
                number = int(segment.name)
                if number < since[0]:
                    continue
                begin = since[1] if number == since[0] else 0
                place = (number, begin)
                for chunk, after in _chunks(segment, begin):
                    if chunk.sequence >= start:
                        size += len(chunk.data)
                        if found and (size > most_bytes or len(found) == MAX_CHUNKS):
                            return Page(tuple(found), place)
                        found.append(chunk)
                    place = (number, after)
        return Page(tuple(found), place)

    def unread_bytes(self, key: Key, since: Place) -> int:
        """Return what a page from place ``since`` on may have at most, with what stands around its chunks."""
        with self._lock:
            segments = [(int(segment.name), segment.stat().st_size) for segment in _segments(self._folder(key))]
        return sum(size - (since[1] if number == since[0] else 0) for number, size in segments if number >= since[0])

    def remove(self, key: Key) -> None:
        """Forget a run's output."""
        with self._lock:
            folder = self._folder(key)
            self._tails.pop(folder, None)
            shutil.rmtree(folder, ignore_errors=True)

    def path(self, key: Key) -> Path:
        """Return the folder that holds, or would hold, a run's output."""
        return self._root / key.folder_name[:2] / key.folder_name

    def path_of_output(self, key: Key) -> Path:
        """Return where a run's output is now: under its own name, or still under that of what came before it."""
        with self._lock:
            return self._folder(key)

    def _folder(self, key: Key) -> Path:
        folder = self.path(key)
        before = self._before(key)
        return before if before is not None and not folder.exists() and before.exists() else folder

    def _before(self, key: Key) -> Path | None:
        return self.path(dataclasses.replace(key, run_id="")) if key.epoch and key.run_id else None

    def _joined_folder(self, key: Key) -> Path:
        """The folder to append to. One stream may have begun before the run had a name: it goes on with the run."""
        folder = self.path(key)
        if not key.run_id:
            return self._joined.get(folder, folder)
        before = self._before(key)
        if before is None or before in self._joined:
            return folder
        if not folder.exists() and before.exists():
            private_dir.make_sub(folder.parent)
            before.rename(folder)
            self._tails.pop(before, None)
            self._tails.pop(folder, None)
        if len(self._joined) >= 10_000:  # only a stream that is open since before the run began needs it
            self._joined.clear()
        self._joined[before] = folder
        return folder

    def _tail(self, folder: Path) -> _Tail:
        if folder not in self._tails:
            if len(self._tails) >= 10_000:  # a cache: what is dropped is read again from the files
                self._tails.clear()
            self._tails[folder] = _recover(folder)
        return self._tails[folder]

    def _write(self, folder: Path, tail: _Tail, chunk: Chunk) -> None:
        if tail.size >= self._segment_bytes:
            tail.segment, tail.size = tail.segment + 1, 0
            given_up = tail.segment - TAIL
            if given_up >= HEAD:
                tail.is_cut = True
                (folder / str(given_up)).unlink(missing_ok=True)
        record = _HEADER.pack(chunk.sequence, chunk.offset, chunk.stream, len(chunk.data)) + chunk.data
        try:
            with private_file.open_binary(folder / str(tail.segment), "ab") as file:
                file.write(record)
        except OSError:
            del self._tails[folder]
            # Part of it may be there. What cannot be cut off now is cut off by the next call, which looks.
            with contextlib.suppress(OSError):
                os.truncate(folder / str(tail.segment), tail.size)
                self._tails[folder] = tail
            raise
        tail.size += len(record)
        tail.unsynced.add(tail.segment)
        tail.count(chunk)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sequence(chunk: Chunk) -> int:
    return chunk.sequence


def _segments(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir(), key=lambda path: int(path.name))
    except FileNotFoundError:
        return []


def _recover(folder: Path) -> _Tail:
    """What a crash has left: a torn chunk at the end is cut off."""
    segments = _segments(folder)
    if not segments:
        return _Tail(0, 0, 0)
    tail = _Tail(-1, 0, 0)
    begun: set[int] = set()
    for segment in segments:
        if int(segment.name) != tail.segment + 1:
            tail.is_cut, begun = True, set()
        tail.segment, tail.size = int(segment.name), 0
        tail.unsynced.add(tail.segment)  # as far as anybody knows
        for chunk, after in _chunks(segment):
            tail.size = after
            tail.count(chunk, after_cut=tail.is_cut and chunk.stream not in begun)
            begun.add(chunk.stream)
    if segments[-1].stat().st_size > tail.size:
        with private_file.open_binary(segments[-1], "r+b") as file:
            file.truncate(tail.size)
    return tail


def _chunks(segment: Path, begin: int = 0) -> Iterator[tuple[Chunk, int]]:
    """The whole chunks of a segment from a byte on, each with the byte behind it."""
    with segment.open("rb") as file:
        file.seek(begin)
        while len(header := file.read(_HEADER.size)) == _HEADER.size:
            sequence, offset, stream, length = _HEADER.unpack(header)
            data = file.read(length)
            if len(data) < length:
                return
            begin += len(header) + length
            yield Chunk(sequence, stream, offset, data), begin
