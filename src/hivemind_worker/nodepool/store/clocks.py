"""The store's two clocks: the wall's, which is only shown, and one for leases that no step of the wall's can move."""

from __future__ import annotations

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
