"""The loop that lets go of what is kept in memory for speed, while the machine is short of memory."""

from __future__ import annotations

import ctypes
import gc
import math
from collections.abc import Callable, Mapping
from typing import Final

from hivemind_worker.concurrency import clock, periodic, stopping
from hivemind_worker.telemetry import logs

log = logs.StructuredLogger(__name__)

PAUSE_SECONDS: Final = 60.0
"""At least so long between two times: what was let go has to be made again, and gains less the second time."""


def due(percent: float, allowed: float, since: float) -> bool:
    """Whether to let go now: memory use above what is allowed, and the last time ``since`` seconds ago. Pure."""
    return percent > allowed and since >= PAUSE_SECONDS


def let_go_of_heap() -> None:
    """Give back what Python and the C library hold of memory that nothing uses: garbage in cycles, free heap pages."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # the C library's of most distributions, not of musl
    if trim is not None:
        trim(0)


class Memory:
    """Looks every ``interval`` seconds at ``readings`` and acts when their memory_percent is above ``allowed``.

    ``kept`` names what is kept for speed, each with the function that lets go of it.
    """

    def __init__(
        self,
        readings: Callable[[], Mapping[str, float]],
        *,
        allowed: float,
        interval: float = 5.0,
        kept: Mapping[str, Callable[[], None]] | None = None,
    ) -> None:
        self._readings = readings
        self._allowed = allowed
        self._interval = interval
        self._kept = dict(kept or {}) | {"heap": let_go_of_heap}
        self._last = -math.inf

    async def run(self, stop: stopping.Stop) -> None:
        """Look, and let go where that is due, until the stop."""
        async for _ in periodic.every(self._interval, stop, jitter=0.1):
            self.look()

    def look(self) -> bool:
        """Look once; whether something was let go. Takes some ten milliseconds then, else a tenth of one."""
        before = self._readings()
        percent = before.get("memory_percent", 0.0)
        if not due(percent, self._allowed, clock.now() - self._last):
            return False
        self._last = clock.now()
        for let_go in self._kept.values():
            let_go()
        after = self._readings()
        said = {
            "memory_percent": percent,
            "allowed": self._allowed,
            "what": sorted(self._kept),
            "worker_bytes_before": int(before.get("worker_memory_bytes", 0)),
            "worker_bytes_after": int(after.get("worker_memory_bytes", 0)),
        }
        log.log_system_event("memory_let_go", said)
        return True
