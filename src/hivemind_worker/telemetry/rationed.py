"""Events that may come by the thousand, when a pool flaps: so many a minute of each kind, the rest is counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hivemind_worker.telemetry import logs

MOST = 5
SECONDS = 60.0
"""Five in a minute show that something flaps, and how; the thousandth says no more."""


@dataclass(slots=True)
class _Window:
    began: float
    told: int = 0
    left_out: int = 0


class RationedLogger:
    """Says system events as ``log`` does, but of each kind at most ``most`` in ``seconds``.

    The first of the next window says in ``left_out`` how many were not told.
    """

    def __init__(
        self,
        log: logs.StructuredLogger,
        *,
        most: int = MOST,
        seconds: float = SECONDS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._most = most
        self._seconds = seconds
        self._now = now
        self._windows: dict[str, _Window] = {}

    def log_system_event(
        self, event_type: str, details: Mapping[str, Any] | None = None, *, level: logs.Level = "info"
    ) -> None:
        """Say it, or count it."""
        now = self._now()
        window = self._windows.get(event_type)
        left_out = 0
        if window is None or now - window.began >= self._seconds:
            left_out = window.left_out if window is not None else 0
            window = self._windows[event_type] = _Window(now)
        if window.told >= self._most:
            window.left_out += 1
            return
        window.told += 1
        said = {**(details or {}), **({"left_out": left_out} if left_out else {})}
        self._log.log_system_event(event_type, said, level=level)
