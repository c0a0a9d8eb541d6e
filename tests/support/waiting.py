"""Waiting for what must come about, with a name for it: what tests use instead of sleeping."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
FIRST_PAUSE = 0.002
LONGEST_PAUSE = 0.1


async def wait_until(look: Callable[[], T | Awaitable[T]], *, description: str, seconds: float = 10) -> T:
    """Look again and again until what is seen is true, and return it.

    Args:
        look: asked at growing intervals, 2 ms to 100 ms; may be a coroutine function.
        description: what is waited for, as the failure shall name it.
        seconds: after so long it is a failure.

    Raises:
        AssertionError: it did not come about in time; tells what was seen last.
    """
    deadline = time.monotonic() + seconds
    pause = FIRST_PAUSE
    while True:
        answer = look()
        seen: T = await answer if inspect.isawaitable(answer) else answer
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s in vain for: {description}; last seen: {seen!r}")
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE)


def wait_for(look: Callable[[], T], *, description: str, seconds: float = 10) -> T:
    """As :func:`wait_until`, where there is no loop.

    Raises:
        AssertionError: it did not come about in time; tells what was seen last.
    """
    deadline = time.monotonic() + seconds
    pause = FIRST_PAUSE
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s in vain for: {description}; last seen: {seen!r}")
        time.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE)
