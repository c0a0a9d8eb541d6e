"""Keeps the deadlines of one conversation with a capsule (`deadlines`) on the loop's clock, for `capsule_run`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from hivemind_worker.concurrency import clock
from hivemind_worker.runtime import deadlines

T = TypeVar("T")


class Watchdog:
    """The deadline in force. Moving it also moves it for what is being waited for at that moment."""

    def __init__(self, times: deadlines.Times) -> None:
        self._deadline = deadlines.Deadline.first(times, clock.now())
        self._timer: asyncio.Timeout | None = None

    @property
    def state(self) -> deadlines.State:
        """What the conversation waits for."""
        return self._deadline.state

    @property
    def remaining(self) -> float:
        """Seconds until the deadline, never below 0."""
        return max(0.0, self._deadline.at - clock.now())

    @property
    def expiry(self) -> str:
        """What the end of the wait means in this state."""
        return f"nothing was heard in time ({self.state.value}: {deadlines.TABLE[self.state].text})"

    async def in_time(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do the work before the deadline. Raises TimeoutError.

        A deadline that has passed wins over what lies in a buffer: a capsule that never pauses is read no further.
        """
        if self._deadline.passed(clock.now()):
            raise TimeoutError
        try:
            async with asyncio.timeout_at(self._deadline.at) as self._timer:
                return await work()
        finally:
            self._timer = None

    def enter(self, state: deadlines.State) -> None:
        """Enter a state of the conversation; entering the one in force changes nothing."""
        if state is not self.state:
            self._move(self._deadline.enter(state, clock.now()))

    def progress(self, own_seconds: float = 0.0) -> None:
        """The capsule did something; the worker itself took ``own_seconds`` of the time since the last."""
        self._move(self._deadline.progress(clock.now(), own_seconds))

    def stop(self, grace: float) -> None:
        """The capsule is told to stop within ``grace`` seconds."""
        self._move(self._deadline.stop(clock.now(), grace))

    def reattach(self, began: float | None, *, by_other_process: bool) -> None:
        """The task was running already when the conversation began; see `deadlines.Deadline.reattach`."""
        self._move(self._deadline.reattach(clock.now(), began, by_other_process=by_other_process))

    def _move(self, deadline: deadlines.Deadline) -> None:
        self._deadline = deadline
        if self._timer is not None and not self._timer.expired():
            self._timer.reschedule(deadline.at)
