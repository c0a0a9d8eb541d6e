"""In which order ends are told to the pool: the oldest first; while the pool is away, one at a time tries.

A failure while nothing else was heard of the pool means that the pool is away: then only the oldest is tried, and its
pauses are everyone's. A failure beside calls that work is that one's own trouble, and holds up no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterator

from hivemind_worker import errors
from hivemind_worker.concurrency import backoff, clock, stopping

AT_ONCE = 4
"""Deliveries with result files at once: each holds a chunk of 1 MiB or its inline files, so this bounds the memory."""

BARE_AT_ONCE = 4
"""Deliveries without files at once: each holds one message. Uploads that stand still hold up none of them."""

CAP_SECONDS = 15.0
"""Longest mean gap between two tries is half of this: how late a result may come once the pool is back."""

LEAST_SECONDS = 1.0
"""While the pool is away: never more than one try a second, however many wait."""


class Turns:
    """Hands out turns. ``heard`` tells when the pool last answered any call (monotonic seconds)."""

    def __init__(self, heard: Callable[[], float]) -> None:
        self._heard = heard
        self._numbers = itertools.count()
        self._waiting: dict[int, tuple[asyncio.Future[None], bool]] = {}
        self._active: dict[int, bool] = {}
        """Whether each has files."""
        self._away_since: float | None = None
        self._resting: asyncio.TimerHandle | None = None
        self._pauses = _pauses()

    @contextlib.contextmanager
    def place(self) -> Iterator[Place]:
        """Take a place in the order, for as long as the block lasts."""
        number = next(self._numbers)
        try:
            yield Place(self, number)
        finally:
            self.leave(number)

    async def enter(self, number: int, *, with_files: bool) -> None:
        """Wait for this place's turn."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting[number] = turn, with_files
        self._let_in()
        try:
            await turn
        finally:
            self._waiting.pop(number, None)

    def leave(self, number: int) -> None:
        """This place needs no turn now."""
        self._active.pop(number, None)
        self._let_in()

    def worked(self) -> None:
        """The pool has answered."""
        self._away_since = None
        self._pauses.reset()
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None

    def failed(self, began: float) -> bool:
        """Take note that a try begun at ``began`` found no pool; false where others do find it."""
        since = began if self._away_since is None else self._away_since
        if self._heard() > since:
            self._away_since = None
            return False
        self._away_since = since
        if self._resting is None:
            self._resting = asyncio.get_running_loop().call_later(self._pauses.next_delay(), self._rested)
        return True

    def _rested(self) -> None:
        self._resting = None
        self._let_in()

    def _let_in(self) -> None:
        if self._resting is not None:
            return
        for number in sorted(self._waiting):
            turn, with_files = self._waiting[number]
            if not turn.done() and self._may_enter(with_files=with_files):
                self._active[number] = with_files
                turn.set_result(None)

    def _may_enter(self, *, with_files: bool) -> bool:
        if self._away_since is not None:
            return not self._active
        active = sum(each is with_files for each in self._active.values())
        return active < (AT_ONCE if with_files else BARE_AT_ONCE)


class Place:
    """One place in the order."""

    def __init__(self, turns: Turns, number: int) -> None:
        self._turns = turns
        self._number = number
        self._own = _pauses()

    @contextlib.asynccontextmanager
    async def turn(self, *, with_files: bool = True) -> AsyncIterator[None]:
        """Try within this block, when it is our turn. Raises what the block does, after the pause that it earns.

        ``with_files``: result files go before the report.
        """
        await self._turns.enter(self._number, with_files=with_files)
        began = clock.now()
        pause = 0.0
        try:
            yield
            self._turns.worked()
        except errors.Unavailable:
            if not self._turns.failed(began):
                pause = self._own.next_delay()
            raise
        finally:
            self._turns.leave(self._number)
            if pause:
                await asyncio.sleep(pause)

    async def rest(self) -> None:
        """Pause for longer each time, while others go on."""
        await asyncio.sleep(self._own.next_delay())


def _pauses() -> backoff.Backoff:
    # Ended by cancellation alone: whoever delivers knows how long a report may take.
    return backoff.Backoff(stopping.Stop(), base=2 * LEAST_SECONDS, cap=CAP_SECONDS, least=LEAST_SECONDS)
