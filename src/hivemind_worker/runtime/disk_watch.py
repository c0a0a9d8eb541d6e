"""Keeps the disk limit of workspaces on a disk, where no file system does: look now and then, end what is over.

Between two looks a task may overshoot; a single file cannot (RLIMIT_FSIZE), and files in memory are capped exactly.
Not seen: space of files that were deleted while still open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from hivemind_worker import errors
from hivemind_worker.concurrency import clock, stopping

INTERVAL_SECONDS: Final = 2.0
"""At 200 MB/s, what this kind of machine writes, an overshoot of 400 MB."""

SHARE: Final = 20.0
"""A look that takes long is made more rarely: it may cost a twentieth of the time."""


async def keep(limit: int, measure: Callable[[], Awaitable[int]], stop: stopping.Stop) -> int:
    """Measure until `limit` bytes are exceeded; then kill through `stop` and return what was measured.

    A look that fails is made again later: the engine that cannot say has other ways to be found lost.
    """
    pause = INTERVAL_SECONDS  # most tasks have ended by then
    while True:
        await asyncio.sleep(pause)
        began = clock.now()
        try:
            size = await measure()
        except (errors.NodeFault, OSError):
            size = 0
        if size > limit:
            stop.request(stopping.StopLevel.KILL, f"its workspace has {size} bytes; the disk limit is {limit}")
            return size
        pause = max(INTERVAL_SECONDS, SHARE * (clock.now() - began))


def verdict(watch: asyncio.Task[int] | None, stop: stopping.Stop) -> str:
    """Say what `keep` found, once its task has ended: why it killed, or nothing."""
    over = watch is not None and not watch.cancelled() and watch.exception() is None
    return stop.reason if over else ""
