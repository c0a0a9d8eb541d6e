"""Every so many seconds until a stop, on a fixed grid: it neither drifts nor piles up.

    async for tick in periodic.every(30, stop, jitter=0.1):
        await send_heartbeat()

There is no sleep to forget and no error to hide here: what the work raises leaves the loop.
"""

from __future__ import annotations

import math
import random
from typing import Self

from hivemind_worker.concurrency import clock, stopping


class every:  # noqa: N801  (read as a word: `async for tick in periodic.every(30, stop)`)
    """Ticks 0, 1, 2, … at start + n * interval, each a random part of `jitter * interval` later.

    The grid is fixed at the first tick, so slow work and jitter add up to nothing. Work longer than the interval
    skips the ticks it missed: the number given counts the grid, so a gap in it tells how many. The first tick
    comes at once (`at_once=False`: after one interval). Ends when the stop reaches `level`.

    Raises ValueError for an interval that is not above 0 or a jitter outside 0 … 1 (a part of the interval).
    """

    def __init__(
        self,
        interval: float,
        stop: stopping.Stop,
        *,
        jitter: float = 0.0,
        level: stopping.StopLevel = stopping.StopLevel.DRAIN,
        at_once: bool = True,
        rng: random.Random | None = None,
    ) -> None:
        if not (interval > 0 and math.isfinite(interval)):
            raise ValueError(f"the interval must be above 0 seconds, got {interval}")
        if not 0 <= jitter <= 1:
            raise ValueError(f"jitter is a part of the interval, 0 to 1, got {jitter}")
        self._interval, self._jitter = interval, jitter
        self._stop, self._level = stop, level
        self._rng = rng or random.Random()  # noqa: S311  (spreads load; nothing secret hangs on it)
        self._next = 0 if at_once else 1
        self._start: float | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> int:
        """The next tick's number, when it is due."""
        now = clock.now()
        if self._start is None:
            self._start = now
            tick = self._next
        else:
            # The first grid point not before now: late by less than one interval still runs, older ones are skipped.
            tick = max(self._next, math.floor((now - self._start) / self._interval))
        late = self._rng.uniform(0, self._jitter * self._interval) if tick else 0.0
        due = self._start + tick * self._interval + late
        if await self._stop.wait(self._level, timeout=max(0.0, due - now)):
            raise StopAsyncIteration
        self._next = tick + 1
        return tick
