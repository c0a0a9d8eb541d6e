"""What running capsules use: all looked at together from the kernel's files; what only the engine tells, one by one."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable, Mapping

from hivemind_worker.concurrency import supervision
from hivemind_worker.runtime.capsule import accounts

Key = tuple[str, int]
"""Task and attempt."""

Read = Callable[[], accounts.Reading | None]
Ask = Callable[[], Awaitable[accounts.Reading | None]]


@dataclasses.dataclass(slots=True)
class _Watched:
    read: Read
    ask: Ask | None
    limit: int
    last: accounts.Usage | None = None
    disk: int | None = None

    def take(self, found: accounts.Reading) -> accounts.Usage:
        self.last = dataclasses.replace(accounts.usage(found, time.time(), self.last, self.limit), disk_bytes=self.disk)
        return self.last


class Live:
    """The capsules that run, and what was last known of each."""

    def __init__(self, jobs: supervision.Jobs) -> None:
        self._jobs = jobs
        self._watched: dict[Key, _Watched] = {}
        self._asking: asyncio.Task[None] | None = None

    def begin(self, key: Key, limit: int, read: Read, ask: Ask | None = None) -> None:
        """Watch a capsule with so many bytes of memory. `read` blocks briefly; `ask` may take long."""
        self._watched[key] = _Watched(read, ask, limit)

    def measuring(self, key: Key, size: Callable[[], Awaitable[int]]) -> Callable[[], Awaitable[int]]:
        """Return `size`, the measuring of its workspace, so that what it finds is taken note of here too."""

        async def told() -> int:
            found = await size()
            if (watched := self._watched.get(key)) is not None:
                watched.disk = found
            return found

        return told

    def end(self, key: Key) -> accounts.Reading | None:
        """Stop watching it, and return what was last known."""
        watched = self._watched.pop(key, None)
        return None if watched is None or watched.last is None else watched.last.now

    async def usage(self) -> Mapping[Key, accounts.Usage]:
        """Look at all; of those that only the engine can tell about, return what it said last."""
        looked = dict(self._watched)
        found = await asyncio.to_thread(lambda: {key: watched.read() for key, watched in looked.items()})
        untold = []
        for key, watched in looked.items():
            if (reading := found[key]) is not None:
                watched.take(reading)
            elif watched.ask is not None:
                untold.append(watched)
        if untold and (self._asking is None or self._asking.done()):
            # The engine needs up to a second for each: never more than one question at a time.
            longest = min(untold, key=lambda each: each.last.timestamp if each.last is not None else 0.0)
            self._asking = self._jobs.start("ask what a capsule uses", self._ask(longest))
        return {key: watched.last for key, watched in looked.items() if watched.last is not None}

    async def _ask(self, watched: _Watched) -> None:
        assert watched.ask is not None
        if (said := await watched.ask()) is not None:
            watched.take(said)
