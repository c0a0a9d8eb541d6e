"""The one clock: the running loop's own time, so that a test loop with virtual time moves everything at once.

Everything here measures and sleeps by the event loop (`loop.time()`, `call_later`, `asyncio.timeout`), never by
`time.sleep` or a clock of its own. On an ordinary loop that is `time.monotonic()`. A test that runs its coroutine on
a loop whose time is virtual therefore needs no patching anywhere.
"""

from __future__ import annotations

import asyncio
import time


def now() -> float:
    """Monotonic seconds: the running loop's time, or `time.monotonic()` where no loop runs (the same clock)."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:  # no loop runs in this thread
        return time.monotonic()


def boottime() -> float:
    """Return `now` plus the seconds for which the machine was suspended since its boot: a lease runs on meanwhile."""
    suspended = time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
    return now() + max(suspended, 0.0)
