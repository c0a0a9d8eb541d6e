"""One attempt's output on its way to the pool: numbered chunks in a file, so that neither a slow pool nor our end costs
them. Bounded: what does not fit is left out, and the offsets of what follows show it.

Written without waiting for the disk: it is the end of our process that must not cost anything. Where the machine itself
goes, the task goes with it. What a full disk does not take waits in memory, within bounds, until it does.
"""

from __future__ import annotations

import collections
import contextlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hivemind_worker.filesystem import private_file

LIMIT_BYTES = 16 * 1024 * 1024
"""Output of one attempt that may wait for the pool; as much as the pool itself keeps of it."""

AFRESH_BYTES = 1024 * 1024
"""A file whose chunks have all arrived is begun afresh from this size on."""

MEMORY_BYTES = 256 * 1024
"""Output of one attempt that waits in memory while the disk takes none: as much as one message to the pool."""

_HEADER = struct.Struct(">QQBI")  # sequence number, offset in its stream, stream, length
_RECORD_COST = _HEADER.size


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of one stream: ``offset`` in bytes within it. ``sequence`` counts the chunks of all streams."""

    sequence: int
    stream: int
    offset: int
    data: bytes


class Spool:
    """The output of one attempt. Calls block for as long as the page cache takes: microseconds.

    What an earlier process had put here is gone on with, all of it as not yet arrived; ``is_new``: there is none.
    Where the disk does not give it back everything is left out.
    """

    def __init__(self, path: Path, limit: int = LIMIT_BYTES, *, is_new: bool = False) -> None:
        self._path = path
        self._limit = limit
        self._fd = -1
        self._begin = self._end = 0
        self._next = 0
        self._ends: dict[int, int] = {}
        self._memory: collections.deque[Chunk] = collections.deque()  # all of it after what is in the file
        self._memory_bytes = 0
        self._has_file = not is_new and path.exists()
        self.left_out_bytes = 0
        if self._has_file:
            try:
                self._go_on()
            except OSError:
                # Nothing is numbered anew after what cannot be read. The end is told with as much as it has itself.
                self._begin = self._end = self._limit = 0

    @property
    def waiting_bytes(self) -> int:
        """How much waits for the pool, with 21 bytes beside each chunk."""
        return self._end - self._begin + self._memory_bytes

    def add(self, stream: int, offset: int, data: bytes) -> None:
        """Take output. What is here already is passed over: a capsule that is entered again repeats itself."""
        known = self._ends.get(stream, 0) - offset
        if known > 0:
            data, offset = data[known:], offset + known
        if not data:
            return
        chunk = Chunk(self._next, stream, offset, data)
        if self.waiting_bytes + len(data) + _RECORD_COST > self._limit or not self._take(chunk):
            self.left_out_bytes += len(data)
        else:
            self._next += 1
        self._ends[stream] = offset + len(data)

    def batch(self, most: int) -> list[Chunk]:
        """Return the oldest chunks that wait, about ``most`` bytes of them and at least one.

        Not from memory: a process after this one must find what the pool may have, or it would send that again.
        """
        self._empty_memory()
        found: list[Chunk] = []
        size = 0
        for chunk, _ in self._chunks(self._begin):
            size += len(chunk.data) + _RECORD_COST
            if found and size > most:
                break
            found.append(chunk)
        return found

    def arrived(self, following: int) -> None:
        """The pool has every chunk before number ``following``."""
        for chunk, after in self._chunks(self._begin):
            if chunk.sequence >= following:
                return
            self._begin = after
        if self._begin == self._end >= AFRESH_BYTES and not self._memory:
            self._afresh()

    def close(self) -> None:
        """Keep what waits for another process, as far as the disk takes it."""
        self._empty_memory()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def remove(self) -> None:
        """Nobody wants it any more. What a broken disk does not let go of is cleared away at the next start."""
        self._memory.clear()
        self._memory_bytes = 0
        self.close()
        if self._has_file:
            with contextlib.suppress(OSError):
                self._path.unlink()
            self._has_file = False

    def _open(self) -> int:
        if self._fd < 0:
            self._fd = private_file.open_fd(self._path, os.O_RDWR | os.O_CREAT)
            self._has_file = True
        return self._fd

    def _take(self, chunk: Chunk) -> bool:
        """Put a chunk into the file, after what waits in memory, else into memory; whether there was room."""
        self._empty_memory()
        if not self._memory and self._write(chunk):
            return True
        cost = len(chunk.data) + _RECORD_COST
        if self._memory_bytes + cost > MEMORY_BYTES:
            return False
        self._memory.append(chunk)
        self._memory_bytes += cost
        return True

    def _empty_memory(self) -> None:
        while self._memory and self._write(self._memory[0]):
            self._forget_first()

    def _forget_first(self) -> None:
        self._memory_bytes -= len(self._memory.popleft().data) + _RECORD_COST

    def _write(self, chunk: Chunk) -> bool:
        record = _HEADER.pack(chunk.sequence, chunk.offset, chunk.stream, len(chunk.data)) + chunk.data
        try:
            done = os.pwrite(self._open(), record, self._end)
        except OSError:
            return False  # a full disk: later output may fit again
        if done < len(record):
            return False  # written over by the next
        self._end += len(record)
        return True

    def _go_on(self) -> None:
        for chunk, after in self._chunks(0, os.fstat(self._open()).st_size):
            self._end = after
            self._next = chunk.sequence + 1
            self._ends[chunk.stream] = chunk.offset + len(chunk.data)

    def _chunks(self, begin: int, end: int | None = None) -> Iterator[tuple[Chunk, int]]:
        """The whole chunks from a place on, each with the place behind it."""
        end = self._end if end is None else end
        while begin + _HEADER.size <= end:
            sequence, offset, stream, length = _HEADER.unpack(os.pread(self._open(), _HEADER.size, begin))
            begin += _HEADER.size + length
            if begin > end:
                return
            yield Chunk(sequence, stream, offset, os.pread(self._open(), length, begin - length)), begin

    def _afresh(self) -> None:
        """Begin a new file that says no more than how far everything is: one empty chunk for each stream."""
        beside = self._path.with_name(self._path.name + ".new")
        marks = b"".join(_HEADER.pack(self._next - 1, end, stream, 0) for stream, end in self._ends.items())
        try:
            private_file.write(beside, marks)
            self.close()
            beside.replace(self._path)
        except OSError:
            return  # it goes on growing, within its limit
        self._begin = self._end = len(marks)
