"""Appends records: what comes together goes to the disk together, and whoever waits is told when it is there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from hivemind_worker.journal import compaction, reader, records
from hivemind_worker.task import errors

T = TypeVar("T")

PROBE_BYTES = 256 * 1024
"""Room for some dozen tasks and their ends: before it is there again, nothing is begun."""


class JournalBroken(errors.NoRoom):
    """The disk does not take the journal: nothing may be begun until it does."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What an earlier process of this node left: what it held, and what of its journal could not be read.

    ``set_aside`` names the file with the part that could not; ``lost_lines`` how many records that were.
    """

    holdings: records.Holdings
    lost_lines: int = 0
    set_aside: Path | None = None
    why: str = ""


Place = tuple[int, int]
"""Where a line lies in the file, and its length, in bytes."""

_Entry = tuple[bytes, records.Record, asyncio.Future[None]]
"""A record's line, the record, and what is done when the disk has it."""


class Journal:
    """One journal file, for one process and one event loop. `open` first.

    What still counts is remembered by its place in the file: a task may be of 4 MiB, and there may be hundreds.
    The disk is waited for on a thread of its own: whatever else the process waits for does not hold up a record.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = futures.ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._file = _File()
        self._unsynced_name = False
        self._waiting: list[_Entry] = []
        self._is_writing = False
        """Whether a batch is with the thread."""
        self._later: asyncio.Handle | None = None
        self._due = 0.0
        """When that is due. Not every loop's handle can be asked: uvloop's of a call at once has no time."""
        self.broken = ""
        """Why the disk took something not, until ``mend`` finds that there is room again; empty when it does."""

    async def open(self) -> Recovered:
        """Read what is there, set aside what cannot be read, and make ready to append. Raises OSError."""
        return await self.on_thread(self._open)

    def _open(self) -> Recovered:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = reader.read(self._path)
        held = tuple(found.holdings.records())
        why = found.strange or ("lines are damaged" if found.damaged else "")
        set_aside = self._path.with_name(f"{self._path.name}.damaged-{time.time_ns()}") if why else None
        if set_aside is not None and found.strange:
            self._path.rename(set_aside)  # needs no room
        elif set_aside is not None:
            set_aside.write_bytes(self._path.read_bytes())
        worth_it = compaction.worth_it(found.holdings.lines, len(held))
        if why or found.older or not self._path.exists() or worth_it:
            compaction.rewrite(self._path, map(records.encode, held))
        elif found.torn:
            os.truncate(self._path, self._path.stat().st_size - len(found.torn))  # so does this
            if not found.holdings.lines and self._path.stat().st_size < len(records.HEADER):
                compaction.rewrite(self._path, ())
        self._file.close()
        self._file = _opened(self._path)
        return Recovered(found.holdings, len(found.damaged), set_aside, why)

    async def append(self, record: records.Record, within: float = 0.0) -> None:
        """Write a record and return when the disk has it. Raises :class:`JournalBroken`: then it was not written.

        Many at once share one wait for the disk; they stand in the file in the order in which this was called.
        ``within`` so many seconds another record is expected, with which this one shares the wait.
        """
        await self.begin(record, within)  # the write goes on when whoever waits is cancelled

    def begin(self, record: records.Record, within: float = 0.0) -> asyncio.Future[None]:
        """Begin to write a record, as :meth:`append`; return what is done when the disk has it.

        Shield it where several wait for it.
        Nobody need look at how it went: what is not looked at is not warned of.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._waiting.append((records.encode(record), record, done))
        due = loop.time() + within
        if self._later is None or due < self._due:
            if self._later is not None:
                self._later.cancel()
            self._later, self._due = loop.call_at(due, self._flush), due
        return done

    def _flush(self) -> None:
        """Give the thread all that waits; what comes meanwhile is given to it when that is on the disk."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._waiting and not self._is_writing:
            batch, self._waiting = self._waiting, []
            self._is_writing = True
            self._thread.submit(self._write, batch, asyncio.get_running_loop())

    async def mend(self) -> str:
        """Where the disk took nothing the last time, try again; why it takes nothing now, empty where it does."""
        if self.broken:
            try:
                await self.on_thread(self._probe)
            except OSError as error:
                self.broken = f"{self._path} cannot be written: {error.strerror or error}"
            else:
                self.broken = ""
        return self.broken

    async def close(self) -> None:
        """Write what waits and let go of the file."""
        while True:
            self._flush()
            await self.on_thread(lambda: None)  # behind what is being written
            if not self._waiting and not self._is_writing:
                break
        self._file.close()
        self._thread.shutdown()

    async def on_thread(self, work: Callable[[], T]) -> T:
        """Do it on the journal's own thread, in its turn: what makes a record must not wait for others' work."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _write(self, batch: list[_Entry], loop: asyncio.AbstractEventLoop) -> None:
        """On the thread: all of it on the disk, or none: a part would be taken for a torn tail with more behind it."""
        error: Exception | None = None
        try:
            if self._unsynced_name:
                compaction.sync_folder(self._path.parent)
                self._unsynced_name = False
            self._file.write(b"".join(line for line, _, _ in batch))
            for line, record, _ in batch:
                self._file.take(record, len(line))
        except Exception as failure:  # noqa: BLE001  (whatever it is, those who wait must hear of it)
            error = failure
        with contextlib.suppress(RuntimeError):  # the loop is gone: its process ends, and nobody waits
            loop.call_soon_threadsafe(self._written, batch, error)
        if error is None and compaction.worth_it(self._file.lines, self._file.live):
            with contextlib.suppress(OSError):  # what stood still stands, and is tried again with the next record
                self._rewrite()

    def _written(self, batch: list[_Entry], error: Exception | None) -> None:
        self._is_writing = False
        if error is not None:
            reason = error.strerror if isinstance(error, OSError) else None
            self.broken = f"{self._path} cannot be written: {reason or error}"
        for _, _, done in batch:
            if done.cancelled():
                continue
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(JournalBroken(self.broken))
                done.exception()  # whoever stopped waiting misses nothing
        self._flush()

    def _probe(self) -> None:
        """Whether there is room for more than the last corner of a page."""
        beside = self._path.with_name(self._path.name + ".probe")
        try:
            with beside.open("wb") as file:
                file.write(bytes(PROBE_BYTES))
                file.flush()
                os.fsync(file.fileno())
        finally:
            beside.unlink(missing_ok=True)

    def _rewrite(self) -> None:
        """Take a shorter file in the place of ours: read and open before it has its name, so that no failure is half.

        Until the disk has the name, nothing is acknowledged: a crash of the machine might bring back the older file.
        """
        prepared = compaction.prepare(self._path, self._file.living())
        shorter = _opened(prepared)
        try:
            prepared.replace(self._path)
        except BaseException:
            shorter.close()
            raise
        before, self._file = self._file, shorter
        self._unsynced_name = True
        before.close()
        compaction.sync_folder(self._path.parent)
        self._unsynced_name = False


class _File:
    """An open journal file, and where in it everything lies that still counts."""

    def __init__(self, fd: int = -1) -> None:
        self._fd = fd
        self._size = 0
        self._torn = False
        self.lines = 0
        self._live: dict[records.Key, dict[type[records.Record], Place]] = {}

    @property
    def live(self) -> int:
        """How many records still count."""
        return sum(map(len, self._live.values()))

    def load(self, lines: Iterable[bytes]) -> None:
        """Learn what stands in it, from its own lines; the first is its header."""
        for number, line in enumerate(lines):
            if number == 0:
                self._size = len(line)
            else:
                self.take(records.decode(line[:-1]), len(line))

    def take(self, record: records.Record, length: int) -> None:
        """Note a line that stands behind all others."""
        key = records.key_of(record)
        if isinstance(record, records.Closed):
            self._live.pop(key, None)
        else:
            self._live.setdefault(key, {})[type(record)] = (self._size, length)
        self._size += length
        self.lines += 1

    def living(self) -> Iterator[bytes]:
        """Yield the lines that still count."""
        for places in self._live.values():
            for at, length in places.values():
                yield os.pread(self._fd, length, at)

    def write(self, data: bytes) -> None:
        """Append it and wait for the disk. Raises OSError; what is left of it the next write cuts off."""
        if self._torn:
            os.ftruncate(self._fd, self._size)
            self._torn = False
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
            os.fdatasync(self._fd)
        except OSError:
            self._torn = True
            os.ftruncate(self._fd, self._size)
            self._torn = False
            raise

    def close(self) -> None:
        """Let go of it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _opened(path: Path) -> _File:
    """Open a journal that holds whole records alone, and learn what stands in it. Raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    file = _File(fd)
    try:
        with path.open("rb") as lines:
            file.load(lines)
    except BaseException:
        file.close()
        raise
    return file
