"""Workspaces of sandboxes on a disk: those whose worker has died, told by the lock that it held."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from hivemind_worker.runtime.sandbox import workspaces
from hivemind_worker.worker.housekeeping import disks, policy


class Workspaces:
    """The place of workspaces below one folder. One younger than ``young_seconds`` counts as in use."""

    name = "workspaces"

    def __init__(self, scratch: Path, young_seconds: float = workspaces.YOUNG_SECONDS) -> None:
        self._scratch = scratch
        self._young_seconds = young_seconds

    async def look(self) -> Sequence[policy.Thing]:
        """Tell of all there are, those in use too."""
        found = await asyncio.to_thread(workspaces.there, self._scratch, self._young_seconds)
        disk = await asyncio.to_thread(disks.of, self._scratch)
        return [
            policy.Thing(
                kind=policy.Kind.WORKSPACE,
                name=str(each.folder),
                size_bytes=await workspaces.size_of(each.folder) if each.abandoned else 0,
                last_used=each.changed_at,
                disk=disk,
                held="" if each.abandoned else "a task runs in it, or it belongs to somebody else",
                abandoned="the worker that made it has died" if each.abandoned else "",
            )
            for each in found
        ]

    async def remove(self, thing: policy.Thing) -> bool:
        """Remove one; false when somebody has it locked."""
        folder = Path(thing.name)
        there = await asyncio.to_thread(workspaces.there, self._scratch, self._young_seconds)
        if not any(each.folder == folder and each.abandoned for each in there):
            return False
        return await workspaces.remove_abandoned(folder)
