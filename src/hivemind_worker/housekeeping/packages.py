"""What the engine keeps for the next environment: packages, wheels of this machine, uv. All can be had again."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Final

from hivemind_worker.containers import engine as engines
from hivemind_worker.containers import environments, hardening, stocked
from hivemind_worker.housekeeping import disks, policy

_ROLES: Final = (environments.CACHE_ROLE, environments.TOOLS_ROLE, environments.WHEELS_ROLE)
_OURS: Final = "hivemind-"


class Packages:
    """The place of those volumes at one engine. Opens and closes its own line to the engine with every look."""

    name = "packages"

    def __init__(self, engine: engines.Engine) -> None:
        self._engine = engine

    async def look(self) -> Sequence[policy.Thing]:
        """Tell of the volumes that bear our labels."""
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
                name=each["Name"],
                size_bytes=sizes.get(each["Name"], 0),
                last_used=_moment(each),
                disk=disk,
            )
            for each in there
        ]

    async def remove(self, thing: policy.Thing) -> bool:
        """Remove it; false while an environment is being made with it: the engine refuses then."""
        await self._engine.connect()
        try:
            if thing.name not in {each["Name"] for each in await self._there()}:
                return False
            await self._engine.remove_volume(f"{thing.name}{stocked.WHOLE}")  # what is not marked so is filled again
            return await self._engine.remove_volume(thing.name)
        finally:
            await self._engine.close()

    async def _there(self) -> list[Mapping[str, Any]]:
        found = [each for role in _ROLES for each in await self._engine.volumes(f"{hardening.ROLE_LABEL}={role}")]
        return [each for each in found if each["Name"].startswith(_OURS) and not each["Name"].endswith(stocked.WHOLE)]


def _moment(volume: Mapping[str, Any]) -> float:
    """When it was made: the engine does not tell when a volume was used last."""
    try:
        return dt.datetime.fromisoformat(str(volume.get("CreatedAt", ""))).timestamp()
    except ValueError:
        return 0.0
