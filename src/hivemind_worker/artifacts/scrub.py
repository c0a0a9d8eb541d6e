"""Reads every stored file again, slowly and for ever: what the disk has damaged is set aside.

    loops.add("scrub", "all", scrub.Scrub(store, bytes_per_second).run)

A file that nobody reads tells nobody that it is damaged, and by the time that somebody wants it whoever had the content
may be gone. One round goes over all files in the order of their names; the rate bounds what it takes from the disk.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading

from hivemind_worker.artifacts import store as stores
from hivemind_worker.concurrency import stopping
from hivemind_worker.telemetry import logs

BYTES_PER_SECOND = 4 * 1024**2
"""The default rate: 330 GiB a day, and a twentieth of what the slowest disk in use reads."""

MIN_ROUND_SECONDS = 3600.0
"""From one round to the next at least: a small store need not be read all day."""

FILE_COST_BYTES = 4096
"""What a file counts beside its content: opening many small ones is work, too."""

log = logs.StructuredLogger(__name__)


class _Stopped(Exception):
    """The loop was asked to stop in the middle of a file."""


class Scrub:
    """One loop over one store. ``bytes_per_second`` of 0: it does nothing; ``min_round_seconds`` between two rounds."""

    def __init__(
        self,
        store: stores.Store,
        bytes_per_second: int = BYTES_PER_SECOND,
        min_round_seconds: float = MIN_ROUND_SECONDS,
    ) -> None:
        self.read_bytes = 0
        """Bytes read since the process began."""
        self.rounds = 0
        """Rounds completed since then."""
        self._store = store
        self._rate = bytes_per_second
        self._min_round_seconds = min_round_seconds
        self._stopping = threading.Event()

    async def run(self, stop: stopping.Stop) -> None:
        """Read on until the stop. A disk that fails is logged, once a round, and tried again with the next."""
        if self._rate <= 0:
            await stop.wait()
            return
        # A thread of its own: a round takes days, and nobody else may wait for it.
        with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="scrub") as thread:
            self._stopping.clear()
            running = asyncio.get_running_loop().run_in_executor(thread, self._rounds)
            try:
                await stop.wait()
            finally:
                self._stopping.set()
                await running

    def _rounds(self) -> None:
        while not self._stopping.is_set():
            try:
                self._round()
            except _Stopped:
                return
            except OSError as error:
                log.log_system_event("scrub_failed", level="warning", error=error)
            self.rounds += 1
            self._stopping.wait(self._min_round_seconds)

    def _round(self) -> None:
        for shard in range(256):
            for sha256 in self._store.names(f"{shard:02x}"):
                self._pace(FILE_COST_BYTES)
                self._store.verify(sha256, self._read)

    def _read(self, size: int) -> None:
        self.read_bytes += size
        self._pace(size)

    def _pace(self, size: int) -> None:
        if self._stopping.wait(size / self._rate):
            raise _Stopped
