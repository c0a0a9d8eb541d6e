"""The network of tasks with egress: found by name, made where there is none, used by its id.

By id, since an engine may hold two networks of one name, and then refuses to start anything by that name. Tasks on it
cannot reach each other; what they can reach beyond is the owner's firewall's to say.
"""

from __future__ import annotations

import asyncio

from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.runtime.docker import hardening


class Egress:
    """One network by its name; `id` looks it up or makes it, once."""

    def __init__(self, *, engine: engines.Engine, name: str) -> None:
        self._engine = engine
        self._name = name
        self._id = ""
        self._lock = asyncio.Lock()

    async def id(self) -> str:
        """Return its id; empty where the owner allows no egress (no name). Raises EngineLost, engine.Refused."""
        if not self._name:
            return ""
        async with self._lock:
            if not self._id:
                self._id = await self._find() or await self._make()
            return self._id

    async def _find(self) -> str:
        found = [each for each in await self._engine.networks(self._name) if each["Name"] == self._name]
        oldest = sorted(found, key=lambda network: str(network.get("Created", "")))
        return str(oldest[0]["Id"]) if oldest else ""

    async def _make(self) -> str:
        return await self._engine.create_network(
            {
                "Name": self._name,
                "Driver": "bridge",
                "CheckDuplicate": True,
                "Options": {"com.docker.network.bridge.enable_icc": "false"},
                "Labels": {hardening.ROLE_LABEL: "network"},
            }
        )
