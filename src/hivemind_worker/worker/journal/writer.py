"""Appends records: what comes together is written together, and whoever waits is told when it will outlive a crash.

An end has to outlive the machine: its writer waits for the disk. What is written before a task begins has to outlive
this process: a worker that is killed, or updated, must not run it again. That takes a write to the kernel's memory and
no wait. Should the machine itself go down, the reader sees another boot id of the kernel than the journal's first line
names, and takes whatever was accepted for begun. Where the boot id is not known, everything waits for the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from pathlib import Path
from typing import TypeVar

from hivemind_worker import errors
from hivemind_worker.filesystem import private_dir, private_file
from hivemind_worker.worker.journal import compaction, former_boot, reader, records

T = TypeVar("T")

SYNC_SECONDS = 1.0
"""How long what has to outlive this process alone waits for the disk at most: so long, and no longer, a disk that goes
while the machine stays (unplugged, failing) can take it along."""

INLINE_BYTES = 64 * 1024
"""Records that wait for no disk, and are no longer than this together, are written by the event loop itself: 25 µs for
1.3 KB (median of 300, ext4), where the way to a thread and back takes 200."""

PROBE_BYTES = 256 * 1024
"""Room for some dozen tasks and their ends: before it is there again, nothing is begun."""


class JournalBroken(errors.NoRoom):
    """The disk does not take the journal: nothing may be begun until it does."""


Place = tuple[int, int]
"""Where a line lies in the file, and its length, in bytes."""

_Entry = tuple[bytes, records.Record, asyncio.Future[None]]
"""A record's line, the record, and what is done when it will outlive what it must."""


class Journal:
    """One journal file, for one process and one event loop. `open` first.

    What still counts is remembered by its place in the file: a task may be of 4 MiB, and there may be hundreds.
    The disk is waited for on a thread of its own: whatever else the process waits for does not hold up a record.
    The file belongs to that thread while ``_is_writing``, else to the event loop.
    """

    def __init__(self, path: Path, boot_id: str = "") -> None:
        """``boot_id`` names this run of the machine's kernel; empty: it is not known."""
        self._path = path
        self._boot_id = boot_id
        self._thread = futures.ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._file = _File()
        self._unsynced_name = False
        self._waiting: list[_Entry] = []
        self._is_writing = False
        """Whether the thread works on the file."""
        self._sync_timer: asyncio.TimerHandle | None = None
        self._later: asyncio.Handle | None = None
        self._due = 0.0
        """When that is due. Not every loop's handle can be asked: uvloop's of a call at once has no time."""
        self.broken = ""
        """Why the disk took something not, until ``mend`` finds that there is room again; empty when it does."""

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self._path

    async def open(self) -> reader.Recovered:
        """Read what is there, set aside what cannot be read, and make ready to append. Raises OSError."""
        recovered = await self.on_thread(self._open)
        self._sync_later()
        return recovered

    def _open(self) -> reader.Recovered:
        private_dir.make(self._path.parent)
        compaction.discard(self._path)  # of a process that was killed meanwhile
        found = reader.read(self._path, self._boot_id)
        held = tuple(found.holdings.records())
        why = found.strange or ("lines are damaged" if found.damaged else "")
        set_aside = self._path.with_name(f"{self._path.name}.damaged-{time.time_ns()}") if why else None
        former = former_boot.keep(self._path, found.boot_id)
        if why or found.outdated or not self._path.exists() or compaction.is_worth_it(self._path, found.holdings):
            compaction.rewrite(self._path, map(records.encode, held), self._boot_id, set_aside)
        elif found.torn:
            os.truncate(self._path, self._path.stat().st_size - len(found.torn))  # needs no room
            if not found.holdings.lines and self._path.stat().st_size < len(records.header(self._boot_id)):
                compaction.rewrite(self._path, (), self._boot_id)
        self._file.close()
        self._file = _opened(self._path)
        return reader.Recovered(found.holdings, len(found.damaged), set_aside, why, former)

    def forget_former_boot(self) -> None:
        """Begin to forget it: the pool has heard of the present boot of the machine."""
        self._thread.submit(former_boot.forget, self._path)

    async def append(self, record: records.Record, within: float = 0.0) -> None:
        """Write a record and return when it will outlive a crash. Raises :class:`JournalBroken`: it was not written.

        Of this process, and where it says how an attempt ended, of the machine. Many at once share one write and one
        wait for the disk; they stand in the file in the order in which this was called. ``within`` so many seconds
        another record is expected, with which this one is written.
        """
        await self.begin(record, within)  # the write goes on when whoever waits is cancelled

    def begin(self, record: records.Record, within: float = 0.0) -> asyncio.Future[None]:
        """Begin to write a record, as :meth:`append`; return what is done when that would return.

        Shield it where several wait for it.
        Nobody need look at how it went: what is not looked at is not warned of.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._waiting.append((records.encode(record), record, done))
        if within <= 0 and not self._must_sync(record):
            self._flush()
            return done
        due = loop.time() + within
        if self._later is None or due < self._due:
            if self._later is not None:
                self._later.cancel()
            self._later, self._due = loop.call_at(due, self._flush), due
        return done

    def _must_sync(self, record: records.Record) -> bool:
        """Whether it has to outlive the machine. A lost start is presumed from the boot id, a lost close told again."""
        return not self._boot_id or isinstance(record, records.Ended)

    def _flush(self) -> None:
        """Write all that waits; what comes while the thread has the file is written when that is done."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if not self._waiting or self._is_writing:
            return
        batch, self._waiting = self._waiting, []
        sync = any(self._must_sync(record) for _, record, _ in batch)
        if sync or self._is_unsound or sum(len(line) for line, _, _ in batch) > INLINE_BYTES:
            self._hand_over(batch, sync=sync)
        else:
            self._written(batch, self._write(batch, sync=False))

    @property
    def _is_unsound(self) -> bool:
        """Whether the file needs work, with waits for the disk, before anything is written to it."""
        return self._unsynced_name or self._file.in_doubt

    def _hand_over(self, batch: list[_Entry], *, sync: bool) -> None:
        self._is_writing = True
        self._thread.submit(self._work, batch, asyncio.get_running_loop(), sync=sync)

    def _sync_later(self) -> None:
        if self._file.unsynced and self._sync_timer is None:
            self._sync_timer = asyncio.get_running_loop().call_later(SYNC_SECONDS, self._sync)

    def _sync(self) -> None:
        self._sync_timer = None
        if self._is_writing:
            self._sync_later()
        elif self._file.unsynced:
            self._hand_over([], sync=True)

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
        """Write what waits, to the disk, and let go of the file."""
        while True:
            self._flush()
            await self.on_thread(lambda: None)  # behind what is being written
            if not self._waiting and not self._is_writing:
                break
        if self._sync_timer is not None:
            self._sync_timer.cancel()
        with contextlib.suppress(OSError):  # the kernel goes on trying
            await self.on_thread(self._file.sync)
        self._file.close()
        self._thread.shutdown()

    async def on_thread(self, work: Callable[[], T]) -> T:
        """Do it on the journal's own thread, in its turn: what makes a record must not wait for others' work."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _work(self, batch: list[_Entry], loop: asyncio.AbstractEventLoop, *, sync: bool) -> None:
        """On the thread: write, and write the file anew where that is worth it, behind the acknowledgement."""
        error = self._write(batch, sync=sync)
        if error is None and self._is_worth_rewriting:
            _say(loop, self._acknowledge, batch, None)
            batch = []
            try:
                self._rewrite()
            except OSError:
                self._file.rewrite_from = self._file.written.size + PROBE_BYTES  # what stood still stands
            except records.Damaged:
                self._file.in_doubt = True
        _say(loop, self._written, batch, error)

    def _write(self, batch: list[_Entry], *, sync: bool) -> Exception | None:
        """All of it, or none, and why: a part would be taken for a torn tail with more behind it."""
        try:
            if self._unsynced_name:
                compaction.sync_folder(self._path.parent)
                self._unsynced_name = False
            if self._file.in_doubt:
                self._rewrite()
            self._file.write(b"".join(line for line, _, _ in batch), sync=sync)
            for line, record, _ in batch:
                self._file.take(record, len(line))
        except Exception as failure:  # noqa: BLE001  (whatever it is, those who wait must hear of it)
            return failure
        return None

    @property
    def _is_worth_rewriting(self) -> bool:
        written, least = self._file.written, self._file.rewrite_from
        return written.is_long and written.size >= least and compaction.worth_it(written, self._file.live)

    def _written(self, batch: list[_Entry], error: Exception | None) -> None:
        """On the loop, which has the file again."""
        self._is_writing = False
        self._acknowledge(batch, error)
        self._sync_later()
        self._flush()
        if error is None and not self._is_writing and batch and self._is_worth_rewriting:
            self._hand_over([], sync=False)  # written here: the thread writes the file anew

    def _acknowledge(self, batch: list[_Entry], error: Exception | None) -> None:
        if error is not None:
            reason = error.strerror if isinstance(error, OSError) else None
            self.broken = f"{self._path} cannot be written: {reason or error}"
        for _, _, done in batch:
            if error is None and not done.cancelled():
                done.set_result(None)
            elif error is not None and not done.cancelled():
                done.set_exception(JournalBroken(self.broken))
                done.exception()  # whoever stopped waiting misses nothing

    def _probe(self) -> None:
        """Whether there is room for more than the last corner of a page."""
        beside = self._path.with_name(self._path.name + ".probe")
        try:
            with private_file.open_binary(beside, "wb") as file:
                file.write(bytes(PROBE_BYTES))
                file.flush()
                os.fsync(file.fileno())
        finally:
            beside.unlink(missing_ok=True)

    def _rewrite(self) -> None:
        """Take a shorter file in the place of ours: read and open before it has its name, so that no failure is half.

        Until the disk has the name, nothing is acknowledged: a crash of the machine might bring back the older file.
        """
        prepared = compaction.prepare(self._path, self._file.living(), self._boot_id)
        with contextlib.ExitStack() as undo:
            undo.callback(compaction.discard, self._path)
            shorter = _opened(prepared)
            undo.callback(shorter.close)
            prepared.replace(self._path)
            undo.pop_all()
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
        self.unsynced = fd >= 0
        """Whether the disk may lack something of it: what an earlier process wrote, too."""
        self.in_doubt = False
        """Whether a wait for the disk has failed, so that earlier lines may be lost: it has to be written anew."""
        self.lines = 0
        self.rewrite_from = 0
        """The size from which on it may be written anew: more than at the last try, which failed."""
        self._live: dict[records.Key, dict[type[records.Record], Place]] = {}

    @property
    def written(self) -> compaction.Extent:
        """How much stands in it."""
        return compaction.Extent(self.lines, self._size)

    @property
    def live(self) -> compaction.Extent:
        """How much of it still counts; found one by one."""
        places = [place for places in self._live.values() for place in places.values()]
        return compaction.Extent(len(places), sum(length for _, length in places))

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
        """Yield the lines that still count; of a file in doubt what those say that can still be read."""
        for places in self._live.values():
            lines = (self._line(*place) for place in places.values())
            yield from compaction.salvaged(lines) if self.in_doubt else lines

    def _line(self, at: int, length: int) -> bytes:
        try:
            return os.pread(self._fd, length, at)
        except OSError:
            if not self.in_doubt:
                raise
            return b""

    def write(self, data: bytes, *, sync: bool) -> None:
        """Append it, and wait for the disk. Raises OSError; what is left of it the next write cuts off."""
        if self._torn:
            os.ftruncate(self._fd, self._size)
            self._torn = False
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
            self.unsynced = self.unsynced or bool(data)
            if sync:
                self.sync()
        except OSError:
            self._torn = True
            os.ftruncate(self._fd, self._size)
            self._torn = False
            raise

    def sync(self) -> None:
        """Wait for the disk. Raises OSError: then the kernel may have forgotten what it had not written."""
        if not self.unsynced:
            return
        try:
            os.fdatasync(self._fd)
        except OSError:
            self.in_doubt = True
            raise
        self.unsynced = False

    def close(self) -> None:
        """Let go of it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _opened(path: Path) -> _File:
    """Open a journal that holds whole records alone, and learn what stands in it. Raises OSError."""
    fd = private_file.open_fd(path, os.O_RDWR | os.O_APPEND)
    file = _File(fd)
    try:
        with path.open("rb") as lines:
            file.load(lines)
    except BaseException:
        file.close()
        raise
    return file


def _say(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *arguments: object) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is gone: its process ends, and nobody waits
        loop.call_soon_threadsafe(callback, *arguments)
