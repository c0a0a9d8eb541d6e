"""Processes known for sure, by pidfd: waiting for their end, whoever their parent is. Used as sandboxes are ended."""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import Sequence


async def ended(files: Sequence[int], seconds: float) -> bool:
    """Wait until all these processes have ended, or for so long. No thread waits, and none need be our child."""
    loop, changed = asyncio.get_running_loop(), asyncio.Event()
    waiting = [file for file in files if not _has_ended(file)]
    for file in waiting:
        loop.add_reader(file, changed.set)
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not all(_has_ended(file) for file in waiting):
                    await changed.wait()
                    changed.clear()
                    for file in filter(_has_ended, waiting):
                        loop.remove_reader(file)
        return all(_has_ended(file) for file in waiting)
    finally:
        for file in waiting:
            loop.remove_reader(file)


def _has_ended(file: int) -> bool:
    poll = select.poll()
    poll.register(file, select.POLLIN)
    return bool(poll.poll(0))
