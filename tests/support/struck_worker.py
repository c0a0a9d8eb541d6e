"""The worker's command, struck at a named point of its life: STRIKE=module:Class.method:before|after|hold[:number].

`kill -9`, by itself, as that call begins or when it has returned (the number-th time); of a generator after that many
pieces. With `hold` the call begins once the file that HELD names, which is made then, has been removed. Without STRIKE
it is the command as it is. What a worker does to try its defences, before it takes tasks, does not count.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import importlib
import inspect
import itertools
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import waiting

from hivemind_worker import __main__
from hivemind_worker.runtime import proving


def die() -> None:
    """At once, as the kernel does it."""
    os.kill(os.getpid(), signal.SIGKILL)


async def hold() -> None:
    """Wait for the test."""
    held = Path(os.environ["HELD"])
    await asyncio.to_thread(held.touch)
    await waiting.wait_until(lambda: not held.exists(), description="the test lets go", seconds=60)


TRIAL = contextvars.ContextVar("TRIAL", default=False)
"""Whether it is the worker's own trial that calls."""


def leave_trials_alone() -> None:
    """Have all that is called for a trial of the defences know that it is."""
    prove = proving.prove

    @functools.wraps(prove)
    async def in_trial(*given: Any, **named: Any) -> Any:
        token = TRIAL.set(True)
        try:
            return await prove(*given, **named)
        finally:
            TRIAL.reset(token)

    proving.prove = in_trial


def strike(where: str) -> None:
    """Have the process end at that point."""
    leave_trials_alone()
    module, path, when, *rest = where.split(":")
    number = int(rest[0]) if rest else 1
    owner: Any = importlib.import_module(f"hivemind_worker.{module}")
    *outer, name = path.split(".")
    for each in outer:
        owner = getattr(owner, each)
    called = getattr(owner, name)
    calls = itertools.count(1)

    @functools.wraps(called)
    async def struck(*given: Any, **named: Any) -> Any:
        meant = not TRIAL.get() and next(calls) == number
        if meant and when == "before":
            die()
        if meant and when == "hold":
            await hold()
        answer = await called(*given, **named)
        if meant and when == "after":
            die()
        return answer

    @functools.wraps(called)
    async def struck_generator(*given: Any, **named: Any) -> AsyncIterator[Any]:
        pieces = itertools.count(1)
        async for piece in called(*given, **named):
            yield piece
            if next(pieces) == number:
                die()

    setattr(owner, name, struck_generator if inspect.isasyncgenfunction(called) else struck)


if __name__ == "__main__":
    if point := os.environ.get("STRIKE", ""):
        strike(point)
    __main__.main()
