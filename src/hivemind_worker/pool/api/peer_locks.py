"""One piece of work at a time for each caller, so that one with many streams leaves time for all others."""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import AsyncIterator


class PeerLocks:
    """A lock for each caller's address, in the order of the asking. Nothing of a caller stays once it has none."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._users: collections.Counter[str] = collections.Counter()

    @contextlib.asynccontextmanager
    async def lock(self, peer: str) -> AsyncIterator[None]:
        """Wait until no other block of this caller runs, then run this one."""
        peer_lock = self._locks.setdefault(peer, asyncio.Lock())
        self._users[peer] += 1
        try:
            async with peer_lock:
                yield
        finally:
            self._users[peer] -= 1
            if not self._users[peer]:
                del self._users[peer], self._locks[peer]

    def __len__(self) -> int:
        """Count the callers whose blocks run or wait."""
        return len(self._locks)
