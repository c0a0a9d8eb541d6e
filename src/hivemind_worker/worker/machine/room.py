"""Room for attempts: who waits for it, whether the node takes more, and an event for whenever that changes."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

from hivemind_worker import errors
from hivemind_worker.tasks import resources
from hivemind_worker.worker.machine import admission

REST_SECONDS = 1.0
"""As long as the pool lets a node rest after its first such attempt."""

WAIT_SECONDS = 300.0
"""How long an attempt waits for room where nobody says: the reference document's own number."""


@dataclass(frozen=True, slots=True)
class _Undead:
    """The key of what stays reserved for an attempt that has ended, whose own key is ``of``."""

    of: Hashable


class Room:
    """Hands out reservations in order of arrival: a large task is not overtaken for ever by small ones.

    ``wait_seconds`` is how long one waits at most.
    """

    def __init__(self, reservations: admission.Admission, wait_seconds: float = WAIT_SECONDS) -> None:
        self.reservations = reservations
        self.changed = asyncio.Event()
        self.holds: Mapping[str, str] = {}
        self.has_backlog: Callable[[], bool] = lambda: False
        """Whether so much waits for the pool that no task should come; `changed` is set when that changes."""
        self._wait_seconds = wait_seconds
        self._waiting: collections.OrderedDict[Hashable, tuple[resources.Resources, asyncio.Future[None]]] = (
            collections.OrderedDict()
        )
        self._closed: set[str] = set()
        self._undead: set[Hashable] = set()
        self._rest: asyncio.TimerHandle | None = None

    def take_now(self, key: Hashable, needs: resources.Resources) -> bool:
        """Reserve ``needs`` for ``key`` if they fit, nobody waits and the node is fit; false if not."""
        return not self._waiting and not self.holds and self.reservations.reserve(key, needs)

    def keep(self, key: Hashable, needs: resources.Resources, devices: Sequence[str] = ()) -> None:
        """Reserve for what runs already."""
        self.reservations.keep(key, needs, devices)
        self.changed.set()

    async def take(self, key: Hashable, needs: resources.Resources) -> None:
        """Wait until ``needs`` are reserved for ``key``; give them back with ``leave``.

        Raises :class:`errors.NoRoom`, with the reason, when that has taken too long.
        """
        if self.take_now(key, needs):
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[key] = (needs, granted)
        try:
            async with asyncio.timeout(self._wait_seconds):
                await granted
        except TimeoutError:
            if not granted.done() or granted.cancelled():
                raise errors.NoRoom(
                    f"insufficient resources: waited {self._wait_seconds:g} s for room: {self.why(needs)}"
                ) from None
        finally:
            self._waiting.pop(key, None)
            self._let_in()

    def why(self, needs: resources.Resources) -> str:
        """Say why ``needs`` must wait now."""
        return "; ".join(self.holds.values()) or self.reservations.lacking(needs) or "others came first"

    def leave(self, key: Hashable) -> None:
        """Give back what ``key`` has, if anything, and let those in who wait."""
        self.reservations.release(key)
        self._let_in()
        self.changed.set()

    def resize(self, now: resources.Resources) -> None:
        """Say what of the node's capacity there is at present, and let those in who fit."""
        if now.at_most(self.reservations.capacity) != self.reservations.now:
            self.reservations.resize(now)
            self._let_in()

    def adopt(self, capacity: resources.Resources, max_tasks: int, wait_seconds: float) -> None:
        """Be a room of another size from now on, for whoever comes; those who are in stay in."""
        self.reservations.adopt(capacity, max_tasks)
        self._wait_seconds = wait_seconds
        self._let_in()
        self.changed.set()

    def hold(self, holds: Mapping[str, str]) -> None:
        """Let nobody in for as long as there are such reasons, by cause; none lets them in again."""
        news = bool(holds) is not bool(self.holds)
        self.holds = dict(holds)
        if news:
            self._let_in()
            self.changed.set()

    def suspend(self, unready_reasons: Mapping[str, str]) -> None:
        """Let nobody in for these reasons, by cause, until the next look at the node (`hold`) finds them gone."""
        if unready_reasons:
            self.hold({**self.holds, **unready_reasons})

    def rest(self) -> None:
        """Ask for nothing for a moment: an attempt has failed by this node's own fault, and the next would as well.

        A node whose disk is full or whose engine is gone fails attempts in milliseconds, and would take a queue's worth
        of them before its first report came through.
        """
        if self._rest is None:
            self._rest = asyncio.get_running_loop().call_later(REST_SECONDS, self._rested)
            self.changed.set()

    def _rested(self) -> None:
        self._rest = None
        self.changed.set()

    def keep_undead(self, needs: Mapping[Hashable, tuple[resources.Resources, Sequence[str]]]) -> None:
        """Have what cannot be killed keep its resources and GPUs, and give back those of what is gone, by its key."""
        for key in self._undead - needs.keys():
            self.reservations.release(_Undead(key))
        for key in needs.keys() - self._undead:
            self.reservations.keep(_Undead(key), *needs[key])
        if self._undead != needs.keys():
            self._undead = set(needs)
            self._let_in()
            self.changed.set()

    def close(self, why: str) -> None:
        """Take no further tasks, for as long as this reason holds."""
        if why not in self._closed:
            self._closed.add(why)
            self.changed.set()

    def reopen(self, why: str) -> None:
        """That reason holds no more."""
        if why in self._closed:
            self._closed.remove(why)
            self.changed.set()

    @property
    def closed(self) -> bool:
        """Whether the node drains, for whatever reason."""
        return bool(self._closed)

    @property
    def paused(self) -> bool:
        """Whether no task should come now: closed, not fit, at rest, full, or some wait already."""
        return (
            self.closed
            or self._rest is not None
            or bool(self.holds)
            or bool(self._waiting)
            or self.reservations.full
            or self.has_backlog()
        )

    def _let_in(self) -> None:
        if self.holds:
            return
        for waiting, (needs, granted) in list(self._waiting.items()):
            if granted.done():
                continue
            if not self.reservations.reserve(waiting, needs):
                break
            granted.set_result(None)
