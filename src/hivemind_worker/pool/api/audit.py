"""The output of a run as its end is taken: forced to the disk, compared with the report, flagged where it is short."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent import futures
from typing import TypeVar

from hivemind_worker.pool.api import attempt_logs, coverage
from hivemind_worker.tasks import outcome
from hivemind_worker.telemetry import logs

T = TypeVar("T")

MAX_SECONDS = 5.0
"""How long an end waits for the disk of the output; as long as a worker waits to send the last of it."""

log = logs.StructuredLogger(__name__)


class Audit:
    """Looks after the output of ``files``. Its threads are its own: a slow log disk holds up nothing else."""

    def __init__(self, files: attempt_logs.AttemptLogs) -> None:
        self._files = files
        self._threads = futures.ThreadPoolExecutor(4, thread_name_prefix="log-sync")

    async def settle(self, key: attempt_logs.Key, report: coverage.Reported) -> outcome.Flag | None:
        """Force a run's output to the disk before its end is taken; return what deserves a flag. Never raises.

        A report that holds every byte itself needs neither: it is as durable as the end.
        """
        if report.is_whole:
            return None
        try:
            return await self._on_thread(lambda: self._settle(key, report))
        except (OSError, TimeoutError) as error:
            reason = str(error) or f"the pool's log disk was busy for {MAX_SECONDS:g} s"
            log.log_task_event("output_not_synced", key.task_id, {"why": reason}, level="error")
            return outcome.Flag.OUTPUT_INCOMPLETE

    async def is_incomplete(self, key: attempt_logs.Key, report: coverage.Reported) -> bool:
        """Whether bytes are missing now: the last of the output may have come after the end. Never raises."""
        try:
            return await self._on_thread(lambda: self._flag(key, report)) is outcome.Flag.OUTPUT_INCOMPLETE
        except (OSError, TimeoutError):
            return True

    def close(self) -> None:
        """Let go of the threads; what they do goes on."""
        self._threads.shutdown(wait=False)

    async def _on_thread(self, work: Callable[[], T]) -> T:
        async with asyncio.timeout(MAX_SECONDS):
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _settle(self, key: attempt_logs.Key, report: coverage.Reported) -> outcome.Flag | None:
        self._files.sync(key)
        return self._flag(key, report)

    def _flag(self, key: attempt_logs.Key, report: coverage.Reported) -> outcome.Flag | None:
        extent = self._files.extent(key)
        short = any(extent.ends.get(stream, 0) < total for stream, total in report.totals.items())
        if short or extent.missing_bytes:
            # Where the middle was given up the output is longer than what any report holds.
            if extent.is_cut or coverage.missing_bytes(self._files.chunks(key), report):
                return outcome.Flag.OUTPUT_INCOMPLETE
            return None
        return outcome.Flag.OUTPUT_TRUNCATED if extent.is_cut else None
