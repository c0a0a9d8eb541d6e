"""Appends records: what comes together goes to the disk together, and whoever waits is told when it is there."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from pathlib import Path

from hivemind_worker.journal import compaction, reader, records
from hivemind_worker.task import errors


class JournalBroken(errors.NodeFault):
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


class Journal:
    """One journal file, for one process and one event loop. `open` first; what is held is in `holdings`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._size = 0
        self._waiting: list[tuple[bytes, records.Record, asyncio.Future[None]]] = []
        self._flushing: asyncio.Task[None] | None = None
        self.holdings = records.Holdings()
        self.broken = ""
        """Why the disk takes nothing now; empty when it does."""

    async def open(self) -> Recovered:
        """Read what is there, set aside what cannot be read, and make ready to append. Raises OSError."""
        return await asyncio.to_thread(self._open)

    def _open(self) -> Recovered:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        found = reader.read(self._path)
        self.holdings = found.holdings
        set_aside = None
        if found.strange or found.damaged:
            set_aside = self._path.with_name(f"{self._path.name}.damaged-{time.time_ns()}")
            set_aside.write_bytes(self._path.read_bytes())
        if found.strange or found.damaged or found.torn or not self._path.exists() or self._due():
            compaction.rewrite(self._path, self.holdings)
        self._reopen()
        why = found.strange or ("lines are damaged" if found.damaged else "")
        return Recovered(found.holdings, len(found.damaged), set_aside, why)

    def _due(self) -> bool:
        return compaction.worth_it(self.holdings)

    def _reopen(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._size = os.fstat(self._fd).st_size

    async def append(self, record: records.Record) -> None:
        """Write a record and return when the disk has it. Raises :class:`JournalBroken`: then it was not written.

        Many at once share one wait for the disk.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((records.encode(record), record, done))
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush(), name="journal")
        # The write goes on when whoever waits is cancelled: others share it.
        await asyncio.shield(done)

    async def close(self) -> None:
        """Write what waits and let go of the file."""
        if self._flushing is not None:
            await asyncio.wait({self._flushing})
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    async def _flush(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                await asyncio.to_thread(self._write, b"".join(line for line, _, _ in batch))
            except OSError as error:
                self.broken = f"{self._path} cannot be written: {error.strerror or error}"
                for _, _, done in batch:
                    if not done.cancelled():
                        done.set_exception(JournalBroken(self.broken))
                continue
            self.broken = ""
            for _, record, done in batch:
                self.holdings.take(record)
                if not done.cancelled():
                    done.set_result(None)
            if self._due():
                await self._compact()

    def _write(self, data: bytes) -> None:
        """All of it, on the disk, or none of it: a part would be taken for a torn tail with more behind it."""
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
            os.fdatasync(self._fd)
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        self._size += len(data)

    async def _compact(self) -> None:
        try:
            await asyncio.to_thread(self._rewrite)
        except OSError:
            return  # the old one still stands, and is tried again with the next record

    def _rewrite(self) -> None:
        compaction.rewrite(self._path, self.holdings)
        self.holdings.lines = sum(len(held.records()) for held in self.holdings.attempts.values())
        self._reopen()
