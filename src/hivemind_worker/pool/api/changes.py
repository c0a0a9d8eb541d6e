"""Who waits for a task to change: each follower is woken by what it follows, and by nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from hivemind_worker.pool.store import records
from hivemind_worker.tasks import state

MAX_GOING_ON = 10_000
"""Tasks of which it is remembered that they go on, of some 100 bytes each; of others the store is asked."""

MAX_WHOLE = 64
"""Whole tasks that wait for one follower, of some 20 KB each; of more it is told the ids."""


class Follower:
    """One who follows some tasks. What changed while it looked away is still there when it looks again.

    ``ended_only``: nothing but the end of a task is a change to it.
    """

    def __init__(self, task_ids: Iterable[str], *, ended_only: bool = False) -> None:
        self.task_ids = frozenset(task_ids)
        self.ended_only = ended_only
        self._changed: set[str] = set()
        self._whole: dict[str, records.Task] = {}
        self._more = asyncio.Event()
        self.closed = False

    async def changed(self) -> frozenset[str]:
        """Wait until something changed, and return what: empty once nothing will change any more."""
        await self._more.wait()
        self._more.clear()
        found = frozenset(self._changed)
        self._changed.clear()
        if self.closed:
            self._more.set()
        return found

    def tell(self, task_id: str, task: records.Task | None = None) -> None:
        """Take note of a change; ``task``: how it stands since."""
        self._changed.add(task_id)
        self._whole.pop(task_id, None)
        if task is not None and len(self._whole) < MAX_WHOLE:
            self._whole[task_id] = task
        self._more.set()

    def take(self, task_id: str) -> records.Task | None:
        """Return how a changed task stands, once, where that was told with its change; ``None``: it must be read."""
        return self._whole.pop(task_id, None)

    def close(self) -> None:
        """Nothing more will come: the pool stops."""
        self.closed = True
        self._more.set()


class Followers:
    """All who follow tasks, by task."""

    def __init__(self) -> None:
        self._of: dict[str, set[Follower]] = {}
        self._going_on: dict[str, None] = {}
        """In the order in which they were first heard of."""
        self._closed = False

    @contextmanager
    def follow(self, task_ids: Iterable[str], *, ended_only: bool = False) -> Iterator[Follower]:
        """Follow these tasks within the block. Look at them once inside it, so that no change falls between."""
        follower = Follower(task_ids, ended_only=ended_only)
        for task_id in follower.task_ids:
            self._of.setdefault(task_id, set()).add(follower)
        if self._closed:
            follower.close()
        try:
            yield follower
        finally:
            for task_id in follower.task_ids:
                self._of[task_id].discard(follower)
                if not self._of[task_id]:
                    del self._of[task_id]

    def heard(self, changes: Sequence[records.Change]) -> None:
        """Tell the followers of what the store has committed."""
        for change in changes:
            ended = change.state in state.ENDED
            if ended:
                self._going_on.pop(change.task_id, None)
            else:
                self._going_on[change.task_id] = None
                if len(self._going_on) > MAX_GOING_ON:
                    del self._going_on[next(iter(self._going_on))]
            self.tell(change.task_id, ended=ended, task=change.task)

    def goes_on(self, task_id: str) -> bool:
        """Whether a task is known to be there and not to have ended, by the last that was heard of it.

        Whoever follows it already is told of its end, and need not read how it stands to learn that it has not.
        """
        return task_id in self._going_on

    def tell(self, task_id: str, *, ended: bool = False, task: records.Task | None = None) -> None:
        """Tell the followers of one task; ``ended``: that it has ended; ``task``: how it stands since."""
        for follower in self._of.get(task_id, ()):
            if ended or not follower.ended_only:
                follower.tell(task_id, task)

    def close(self) -> None:
        """End every following, present and future."""
        self._closed = True
        for followers in self._of.values():
            for follower in followers:
                follower.close()
