"""Files of tasks in the node's store: those that nobody needs any more, and transfers that nobody went on with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from hivemind_worker.artifacts import store
from hivemind_worker.worker.housekeeping import disks, policy


class Artifacts:
    """The place of artifacts. ``needed`` tells the sums of those that a task or the pool still waits for.

    ``since`` is when this process began (Unix seconds): what is older and still there was kept on purpose at its start,
    to be delivered, and stays until that is done.
    """

    name = "artifacts"

    def __init__(
        self, folder: Path, files: store.Store, needed: Callable[[], Collection[str]], since: float = 0.0
    ) -> None:
        self._folder = folder
        self._files = files
        self._needed = needed
        self._since = since

    async def look(self) -> Sequence[policy.Thing]:
        """Tell of every file in the store."""
        needed = frozenset(self._needed())
        return await asyncio.to_thread(self._look, needed)

    async def remove(self, thing: policy.Thing) -> bool:
        """Remove one; false when it is needed after all."""
        if thing.name in self._needed():
            return False
        return await asyncio.to_thread(self._remove, thing)

    def _look(self, needed: Collection[str]) -> list[policy.Thing]:
        disk = disks.of(self._folder)
        return [
            policy.Thing(
                kind=policy.Kind.ARTIFACT,
                name=kept.name,
                size_bytes=kept.size,
                last_used=kept.written_at,
                disk=disk,
                held=self._held(kept, needed),
            )
            for kept in self._files.kept()
        ]

    def _held(self, kept: store.Kept, needed: Collection[str]) -> str:
        unneeded = kept.name.endswith((".upload", ".damaged"))
        if kept.name.removesuffix(".upload") in needed:
            return "a task, or the pool, waits for it"
        return "an earlier process left it to be delivered" if kept.written_at < self._since and not unneeded else ""

    def _remove(self, thing: policy.Thing) -> bool:
        return self._files.discard(store.Kept(thing.name, thing.size_bytes, thing.last_used))
