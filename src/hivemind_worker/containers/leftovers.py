"""What an earlier life of this node left at the engine: found by our node's label, and only that, and removed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hivemind_worker.containers import engine as engines
from hivemind_worker.containers import hardening


@dataclass(frozen=True, slots=True)
class Removed:
    """Names of what was removed."""

    containers: tuple[str, ...]
    volumes: tuple[str, ...]


async def remove(engine: engines.Engine, node_id: str, *, boot_id: str = "", all_boots: bool = False) -> Removed:
    """Remove this node's containers and volumes of other boots than `boot_id`; of every boot with `all_boots`.

    The program's volume, which all nodes of an engine share, bears no node's label. Raises EngineLost, engine.Refused.
    """
    label = f"{hardening.NODE_LABEL}={node_id}"
    containers = [found for found in await engine.containers(label) if all_boots or _boot(found) != boot_id]
    for container in containers:
        await engine.remove(container["Id"])
    volumes = [found["Name"] for found in await engine.volumes(label) if all_boots or _boot(found) != boot_id]
    gone = [volume for volume in volumes if await engine.remove_volume(volume)]
    return Removed(tuple(found["Id"] for found in containers), tuple(gone))


def _boot(found: Mapping[str, Any]) -> str:
    return str((found.get("Labels") or {}).get(f"{hardening.LABEL}.boot-id", ""))
