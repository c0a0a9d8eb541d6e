"""Work that many want at once and that is done once: all are told how far it is; the last to leave ends it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from hivemind_worker.concurrency import stopping

T = TypeVar("T")
Tell = Callable[[str], None]


@dataclass(slots=True)
class _Work(Generic[T]):
    listeners: list[Tell] = field(default_factory=list)
    last: str = ""
    task: asyncio.Task[T] | None = None

    def say(self, text: str) -> None:
        self.last = text
        for listener in tuple(self.listeners):
            listener(text)


class Shared(Generic[T]):
    """Pieces of work by key. One event loop."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._under_way: dict[str, _Work[T]] = {}
        self._tasks: set[asyncio.Task[T]] = set()

    @property
    def keys(self) -> frozenset[str]:
        """What is being done now."""
        return frozenset(self._under_way)

    async def get(self, key: str, begin: Callable[[Tell], Coroutine[Any, Any, T]], tell: Tell) -> T:
        """Return the result of the work of that name, begun unless it is under way; raise what it raises.

        Who comes late is told the last that was said. When nobody waits any more the work is cancelled, and goes on
        cleaning up by itself; who asks after that begins anew.
        """
        work = self._under_way.get(key)
        if work is None:
            work = self._under_way[key] = _Work()
            work.task = asyncio.create_task(begin(work.say), name=f"{self.name}/{key}")
            self._tasks.add(work.task)
            work.task.add_done_callback(functools.partial(self._ended, key, work))
        assert work.task is not None
        work.listeners.append(tell)
        if work.last:
            tell(work.last)
        try:
            return await asyncio.shield(work.task)
        finally:
            work.listeners.remove(tell)
            if not work.listeners and not work.task.done():
                self._forget(key, work)
                work.task.cancel()

    async def close(self) -> None:
        """Cancel all work and wait until it has cleaned up."""
        await stopping.settle(*self._tasks)

    def _ended(self, key: str, work: _Work[T], task: asyncio.Task[T]) -> None:
        self._forget(key, work)
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # those who waited have it; nobody may have been left

    def _forget(self, key: str, work: _Work[T]) -> None:
        if self._under_way.get(key) is work:
            del self._under_way[key]
