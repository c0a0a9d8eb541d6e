"""Puts finished log lines on standard error and into rotated files, from a thread of its own.

A full disk, a stuck terminal or a flood of events never holds up or breaks whoever logs: the queue is bounded, what
does not fit is counted, and the count is written as soon as there is room again.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from pathlib import Path

from hivemind_worker.filesystem import private_dir, private_file

# At a few hundred bytes a line this is some megabytes at worst, and a second of the fastest flood measured.
QUEUE_LIMIT = 10_000
COMPLAINT_SECONDS = 60.0


class RotatedFile(logging.handlers.RotatingFileHandler):
    """A log file that is put aside when it is full, and that says on standard error when it cannot be written."""

    def __init__(self, path: Path, size_bytes: int, count: int) -> None:
        super().__init__(path, maxBytes=size_bytes, backupCount=count, encoding="utf-8", delay=True)
        self._complain_after = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record; a folder that is missing is made, so that a log cleaned away comes back."""
        if self.stream is None:
            try:
                private_dir.make(Path(self.baseFilename).parent, spare_shared=True)
            except (OSError, private_dir.NotPrivate):
                self.handleError(record)
                return
        super().emit(record)

    def _open(self) -> TextIOWrapper:
        """Open the file, which is its user's alone also where the folder is everybody's."""
        return TextIOWrapper(private_file.open_binary(Path(self.baseFilename), "ab"), encoding=self.encoding)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802  (the name is logging's)
        """Tell of it once a minute at most; the next record tries the file again."""
        now = time.monotonic()
        if now < self._complain_after:
            return
        self._complain_after = now + COMPLAINT_SECONDS
        _say(f"hivemind: the log file {self.baseFilename} cannot be written ({sys.exc_info()[1]}); going on without it")


class ErrorStream(logging.StreamHandler):  # type: ignore[type-arg]  # generic in the stubs alone
    """Standard error; when nobody reads it any more, its lines are lost and the files have them."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (the name is logging's)
        """Nothing is left to say it on."""


class Writer(logging.Handler):
    """Takes every record at once, and hands them to the real handlers from one thread."""

    def __init__(self, handlers: Sequence[logging.Handler], lost: Callable[[int], logging.LogRecord]) -> None:
        super().__init__()
        self._handlers = tuple(handlers)
        self._lost = lost
        self._queue: queue.Queue[logging.LogRecord | None] = queue.Queue(QUEUE_LIMIT)
        self._dropped = 0
        self._counting = threading.Lock()
        self._closing = threading.Event()
        # A daemon: a terminal that never takes another byte must not keep the process alive.
        self._thread = threading.Thread(target=self._write_all, name="log writer", daemon=True)
        self._thread.start()

    def createLock(self) -> None:  # noqa: N802  (the name is logging's)
        """No lock: the queue is one."""
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record; count it if there is no room."""
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            with self._counting:
                self._dropped += 1

    def finish(self, seconds: float) -> bool:
        """Write what is queued, for so long at most; true if all of it was written."""
        self._closing.set()
        try:
            self._queue.put(None, timeout=seconds)  # wakes the thread
        except queue.Full:
            return False
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _write_all(self) -> None:
        while (record := self._queue.get()) is not None or not self._closing.is_set():
            if record is not None:
                self._write(record)
            with self._counting:
                dropped, self._dropped = self._dropped, 0
            if dropped:
                self._write(self._lost(dropped))
        for handler in self._handlers:
            with contextlib.suppress(OSError):  # a full disk: what it did not take is lost, as was told
                handler.close()

    def _write(self, record: logging.LogRecord) -> None:
        for handler in self._handlers:
            try:
                if record.levelno >= handler.level:
                    handler.handle(record)
            except Exception:  # noqa: BLE001  (one line that cannot be made must not end all others)
                handler.handleError(record)


def _say(line: str) -> None:
    try:
        sys.stderr.write(f"{line}\n")
    except (OSError, ValueError):
        return  # standard error is closed or full: there is nowhere left to say it
