"""Room for attempts: who waits for it, whether the node takes more, and an event for whenever that changes."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Hashable

from hivemind_worker.node import admission
from hivemind_worker.task import resources


class Room:
    """Hands out reservations in order of arrival: a large task is not overtaken for ever by small ones."""

    def __init__(self, reservations: admission.Admission) -> None:
        self.reservations = reservations
        self.changed = asyncio.Event()
        self._waiting: collections.OrderedDict[Hashable, tuple[resources.Resources, asyncio.Future[None]]] = (
            collections.OrderedDict()
        )
        self._closed: set[str] = set()

    def take_now(self, key: Hashable, needs: resources.Resources) -> bool:
        """Reserve ``needs`` for ``key`` if they fit and nobody waits; false if not."""
        return not self._waiting and self.reservations.reserve(key, needs)

    async def take(self, key: Hashable, needs: resources.Resources) -> None:
        """Wait until ``needs`` are reserved for ``key``; give them back with ``leave``.

        They must be able to fit at all (`Admission.never`), or this waits for ever.
        """
        if self.take_now(key, needs):
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[key] = (needs, granted)
        try:
            await granted
        finally:
            self._waiting.pop(key, None)

    def leave(self, key: Hashable) -> None:
        """Give back what ``key`` has, if anything, and let those in who wait."""
        self.reservations.release(key)
        for waiting, (needs, granted) in list(self._waiting.items()):
            if granted.done():
                continue
            if not self.reservations.reserve(waiting, needs):
                break
            granted.set_result(None)
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
        """Whether no task should come now: closed, full, or some wait already."""
        return self.closed or bool(self._waiting) or self.reservations.full
