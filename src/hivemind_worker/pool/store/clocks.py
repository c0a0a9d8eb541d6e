"""The store's two clocks: the wall's, which is only shown, and one for leases that no step of the wall's can move.

The second is to stand still while its process does: what was sent meanwhile is answered before anybody can look for how
long that was, and must not be judged by it. So it is driven: it runs on for `max_gap` seconds at most from one tick to
the next, and whoever ticks is told the whole time that has passed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class Clocks:
    """Made, and continued from what was stored, by the store; read on any thread.

    ``monotonic`` counts seconds and is never set back. ``wall`` is seconds since the Unix epoch and goes where NTP or
    the machine's owner sets it.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._offset = -monotonic()

    def now(self) -> float:
        """Return seconds since the Unix epoch: for what is shown, never for what is due."""
        return self._wall()

    def lease_time(self) -> float:
        """Return seconds for which this store has been open, in all its lives: what leases and rests are due by."""
        return self._offset + self._monotonic()

    def continue_from(self, seconds: float) -> None:
        """Go on from where the lease clock stood when the store was closed."""
        self._offset = seconds - self._monotonic()


class RunningTime:
    """Seconds for which this process has run, as far as somebody ticks: a ``monotonic`` for :class:`Clocks`.

    ``max_gap``: how many seconds may lie between two ticks; what is beyond is left out. Before the first tick it runs
    on as ``monotonic`` does. Read on any thread, and never set back; ticked on one.
    """

    def __init__(self, max_gap: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._max_gap = max_gap
        self._tick = (monotonic(), 0.0, math.inf)
        """When the last tick was, what this clock showed then, and for how long it runs on."""

    def __call__(self) -> float:
        """Return the seconds so far."""
        # The tick is read first: a later one may come between, and has counted at least as much by then.
        at, shown, max_gap = self._tick
        return shown + min(self._monotonic() - at, max_gap)

    def tick(self) -> float:
        """Go on. Return how many seconds have passed since the tick before, however many of them count."""
        at, shown, max_gap = self._tick
        now = self._monotonic()
        self._tick = (now, shown + min(now - at, max_gap), self._max_gap)
        return now - at
