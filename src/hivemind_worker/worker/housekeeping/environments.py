"""Environments of sandboxes and the packages fetched for them: all of it can be made again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from hivemind_worker.runtime.sandbox import shelf, workspaces
from hivemind_worker.worker.housekeeping import disks, policy


class Environments:
    """The place of what lies in one cache folder."""

    name = "environments"

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._shelf = shelf.Shelf(cache)
        self._known: dict[str, shelf.Lying] = {}

    async def look(self) -> Sequence[policy.Thing]:
        """Tell of each environment and of the packages."""
        found = await asyncio.to_thread(self._shelf.environments)
        self._known = {str(each.folder): each for each in found}
        disk = await asyncio.to_thread(disks.of, self._cache)
        things = [
            policy.Thing(
                kind=policy.Kind.ENVIRONMENT,
                name=str(each.folder),
                size_bytes=each.size,
                last_used=each.last_used,
                disk=disk,
                held="a task runs in it" if each.in_use else "",
                contents=each.contents,
            )
            for each in found
        ]
        downloads = self._shelf.downloads
        if await asyncio.to_thread(downloads.exists):
            things.append(
                policy.Thing(
                    kind=policy.Kind.CACHE,
                    name=str(downloads),
                    size_bytes=await workspaces.size_of(downloads),
                    last_used=await asyncio.to_thread(_changed, downloads),
                    disk=disk,
                    held="an environment is being made" if await asyncio.to_thread(self._shelf.making) else "",
                )
            )
        return things

    async def remove(self, thing: policy.Thing) -> bool:
        """Remove one; false when somebody is in it."""
        if thing.kind is policy.Kind.CACHE:
            return await asyncio.to_thread(self._shelf.remove_downloads)
        return await asyncio.to_thread(self._shelf.remove, self._known[thing.name])


def _changed(downloads: Path) -> float:
    """When something was last added to one of its parts."""
    return max(path.stat().st_mtime for path in (downloads, *downloads.iterdir()))
