"""How long to wait before trying again: full jitter under a growing cap, ended at once by a stop."""

from __future__ import annotations

import random

from hivemind_worker.concurrency import stopping

BASE_SECONDS = 0.5
CAP_SECONDS = 60.0
# 2**64 times any base is past any cap; beyond it the power would only overflow.
LARGEST_EXPONENT = 64

RANDOM = random.Random()  # noqa: S311  (spreads load; nothing secret hangs on it)
"""One for all pauses that no test has made its own for: a new one costs a seed each time."""


def delay(
    attempt: int,
    rng: random.Random,
    *,
    base: float = BASE_SECONDS,
    cap: float = CAP_SECONDS,
    least: float = 0.0,
) -> float:
    """Seconds to wait after failure number `attempt` (0 for the first): uniform between `least` and the ceiling.

    The ceiling is `base * 2**attempt`, at most `cap`, at least `least`. Full jitter keeps a thousand workers that
    lost one pool from coming back together; `least` bounds the rate of tries (1.0: never more than one a second).
    """
    if attempt < 0:
        raise ValueError(f"attempt counts from 0, got {attempt}")
    ceiling = min(cap, base * 2.0 ** min(attempt, LARGEST_EXPONENT))
    return rng.uniform(least, max(least, ceiling))


class Backoff:
    """Failures in a row, and the pause that each one earns.

    `await pause()` sleeps and is true; it is false as soon as the stop reaches `level`, so a loop reads
    `while await backoff.pause(): try …`. `reset()` after a success.
    """

    def __init__(
        self,
        stop: stopping.Stop,
        *,
        base: float = BASE_SECONDS,
        cap: float = CAP_SECONDS,
        least: float = 0.0,
        level: stopping.StopLevel = stopping.StopLevel.DRAIN,
        rng: random.Random | None = None,
    ) -> None:
        self.attempt = 0
        self._stop = stop
        self._level = level
        self._base, self._cap, self._least = base, cap, least
        self._rng = rng or RANDOM

    def next_delay(self) -> float:
        """The seconds that the next failure earns; counts it."""
        seconds = delay(self.attempt, self._rng, base=self._base, cap=self._cap, least=self._least)
        self.attempt += 1
        return seconds

    async def pause(self) -> bool:
        """Sleep for the next delay; false if the stop ended it."""
        return not await self._stop.wait(self._level, timeout=self.next_delay())

    def reset(self) -> None:
        """It worked: the next failure is again the first."""
        self.attempt = 0
