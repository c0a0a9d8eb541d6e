"""Packages that the engine keeps for the next environment: one volume, which can be filled again."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from hivemind_worker.containers import engine as engines
from hivemind_worker.containers import environments, hardening
from hivemind_worker.housekeeping import disks, policy


class Packages:
    """The place of that volume at one engine. Opens and closes its own line to the engine with every look."""

    name = "packages"

    def __init__(self, engine: engines.Engine) -> None:
        self._engine = engine

    async def look(self) -> Sequence[policy.Thing]:
        """Tell of the volume, if there is one that bears our name and our label."""
        await self._engine.connect()
        try:
            there = await self._there()
            if not there:
                return []
            sizes = await self._engine.volume_sizes()
            disk = await disks.of_engine(self._engine)
        finally:
            await self._engine.close()
        return [
            policy.Thing(
                kind=policy.Kind.CACHE,
                name=environments.CACHE_VOLUME,
                size_bytes=sizes.get(environments.CACHE_VOLUME, 0),
                last_used=_moment(there[0]),
                disk=disk,
            )
        ]

    async def remove(self, thing: policy.Thing) -> bool:
        """Remove it; false while an environment is being made with it: the engine refuses then."""
        await self._engine.connect()
        try:
            return bool(await self._there()) and await self._engine.remove_volume(thing.name)
        finally:
            await self._engine.close()

    async def _there(self) -> list[Mapping[str, Any]]:
        labelled = await self._engine.volumes(f"{hardening.ROLE_LABEL}=packages")
        return [volume for volume in labelled if volume["Name"] == environments.CACHE_VOLUME]


def _moment(volume: Mapping[str, Any]) -> float:
    """When it was made: the engine does not tell when a volume was used last."""
    try:
        return dt.datetime.fromisoformat(str(volume.get("CreatedAt", ""))).timestamp()
    except ValueError:
        return 0.0
