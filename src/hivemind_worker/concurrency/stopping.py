"""Drain, cancel or kill: a request to stop that only ever grows, with a reason and a deadline.

    DRAIN    take nothing new; finish what is at hand
    CANCEL   end what is at hand, in order: the polite signal, the grace time, the last report
    KILL     at once; nothing is waited for that can be done later

A `Stop` may be made anywhere (it holds nothing of asyncio until somebody waits). `request` is an ordinary call: safe
from the loop's signal handlers and callbacks; from another thread go through `loop.call_soon_threadsafe`.
"""

# ruff: noqa: SLF001  (a stop and its children are one mechanism, and look into each other)

from __future__ import annotations

import asyncio
import contextlib
import enum
import weakref
from collections.abc import Coroutine
from typing import Any, TypeVar

from hivemind_worker.concurrency import clock

T = TypeVar("T")


class StopLevel(enum.IntEnum):
    """How urgently to stop. Ordered, so `stop.level >= StopLevel.CANCEL` reads as it means."""

    RUN = 0
    DRAIN = 1
    CANCEL = 2
    KILL = 3


class Stopped(Exception):
    """Raised where work was given up because a stop had reached the level that ends it."""

    def __init__(self, level: StopLevel, reason: str) -> None:
        super().__init__(f"stopped ({level.name.lower()}): {reason}")
        self.level = level
        self.reason = reason


class Stop:
    """One thing that can be told to stop, and the things inside it.

    A child made with `child()` gets every request of its parent, past and future; what is asked of the child alone
    does not touch the parent. Children are held weakly: a task that ended needs no unregistering.
    """

    def __init__(self, parent: Stop | None = None) -> None:
        self._parent = parent  # a strong way up, so that a grandchild keeps the chain to the top alive
        self._level = StopLevel.RUN
        self._deadline: float | None = None
        self._reasons: dict[StopLevel, str] = {}
        self._waiters: set[tuple[StopLevel, asyncio.Future[None]]] = set()
        self._children: weakref.WeakSet[Stop] = weakref.WeakSet()
        if parent is not None:
            parent._children.add(self)
            for level in sorted(parent._reasons):  # with each level's own reason, as if we had been there
                self._take(level, parent._reasons[level], None)
            self._deadline = parent._deadline

    def child(self) -> Stop:
        """A stop for something inside: it inherits every request made here."""
        return Stop(self)

    def request(self, level: StopLevel, reason: str, deadline_seconds: float | None = None) -> bool:
        """Ask to stop; true if that changed anything.

        A lower level than the one in force is ignored, and the first reason given for a level stays. The deadline
        counts from now and only ever comes nearer. Raises ValueError for RUN: a stop cannot be taken back.
        """
        if level is StopLevel.RUN:
            raise ValueError("a stop cannot be taken back: RUN is no request")
        deadline = None if deadline_seconds is None else clock.now() + deadline_seconds
        return self._take(level, reason, deadline)

    @property
    def level(self) -> StopLevel:
        """The highest level asked for so far."""
        return self._level

    @property
    def requested(self) -> bool:
        """Whether any stop was asked for."""
        return self._level > StopLevel.RUN

    @property
    def reason(self) -> str:
        """Why the level in force was asked for; empty while running."""
        return self._reasons.get(self._level, "")

    @property
    def deadline(self) -> float | None:
        """When patience ends, on `clock.now()`'s scale (monotonic seconds); None if nobody said."""
        return self._deadline

    def reason_for(self, level: StopLevel) -> str:
        """Why at least this level was reached first: a kill after the grace time keeps the cancel's reason here."""
        reached = [known for known in self._reasons if known >= level]
        return self._reasons[min(reached)] if reached else ""

    def remaining(self) -> float | None:
        """Seconds until the deadline, never below 0; None without one."""
        return None if self._deadline is None else max(0.0, self._deadline - clock.now())

    async def wait(self, level: StopLevel = StopLevel.DRAIN, timeout: float | None = None) -> bool:  # noqa: ASYNC109
        """Wait until this level is reached (true), or for `timeout` seconds at most (false): a sleep that can end."""
        if self._level >= level:
            return True
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = (level, future)
        self._waiters.add(waiter)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await future
        finally:
            self._waiters.discard(waiter)
        return self._level >= level

    async def until(self, level: StopLevel, work: Coroutine[Any, Any, T]) -> T:
        """Do the work and return what it gives, unless this level is reached first: then it is cancelled.

        Raises `Stopped` in that case, after the work has ended its own cleaning up.
        """
        if self._level >= level:
            work.close()
            raise Stopped(self._level, self.reason_for(level))
        task = asyncio.create_task(work, name=getattr(work, "__qualname__", "work"))
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = (level, reached)
        self._waiters.add(waiter)
        first: set[asyncio.Future[Any]] = {task, reached}
        try:
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._waiters.discard(waiter)
            await settle(task)
        if task.cancelled() and self._level >= level:
            raise Stopped(self._level, self.reason_for(level))
        return task.result()

    def _take(self, level: StopLevel, reason: str, deadline: float | None) -> bool:
        if level < self._level:
            return False
        grew = level > self._level
        nearer = deadline is not None and (self._deadline is None or deadline < self._deadline)
        if grew:
            self._level = level
            self._reasons[level] = reason
        if nearer:
            self._deadline = deadline
        for wanted, future in tuple(self._waiters):
            if wanted <= self._level and not future.done():
                future.set_result(None)
        for inside in tuple(self._children):
            inside._take(level, reason, deadline)
        return grew or nearer

    def __repr__(self) -> str:
        said = f"{self._level.name.lower()}: {self.reason}" if self.requested else "running"
        return f"<Stop {said}>"


async def settle(*tasks: asyncio.Task[Any]) -> None:
    """Cancel these tasks and wait until each has really ended, even if we are cancelled meanwhile (raised after)."""
    interrupted: asyncio.CancelledError | None = None
    for task in tasks:
        task.cancel()
    while waiting := {task for task in tasks if not task.done()}:
        try:
            await asyncio.wait(waiting)
        except asyncio.CancelledError as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted
