"""What an earlier life of this node left at the engine: found by our node's label, and only that, and removed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.runtime.docker import hardening


@dataclass(frozen=True, slots=True)
class Removed:
    """Names of what was removed."""

    containers: tuple[str, ...]
    volumes: tuple[str, ...]


async def remove(
    engine: engines.Engine,
    node_id: str,
    *,
    boot_id: str = "",
    all_boots: bool = False,
    spared: Collection[str] = (),
) -> Removed:
    """Remove this node's containers and volumes of other boots than `boot_id`; of every boot with `all_boots`.

    Those whose names are in `spared` stay: capsules of an earlier boot that are gone on with, and their workspaces.

    The program's volume, which all nodes of an engine share, bears no node's label. Raises EngineLost, engine.Refused.
    """
    label = f"{hardening.NODE_LABEL}={node_id}"
    containers = [
        found
        for found in await engine.containers(label)
        if (all_boots or _boot(found) != boot_id) and not _names(found) & set(spared)
    ]
    for container in containers:
        await engine.remove(container["Id"])
    volumes = [
        found["Name"]
        for found in await engine.volumes(label)
        if (all_boots or _boot(found) != boot_id) and found["Name"] not in spared
    ]
    gone = [volume for volume in volumes if await engine.remove_volume(volume)]
    return Removed(tuple(found["Id"] for found in containers), tuple(gone))


async def remove_unsure(engine: engines.Engine, node_id: str, boot_id: str) -> None:
    """Remove what this life of a node had made or removed without hearing how that went, as far as the engine has it.

    Raises EngineLost, engine.Refused.
    """
    unsure = engine.unsure.names
    if not unsure:
        return
    label = f"{hardening.NODE_LABEL}={node_id}"
    for found in await engine.containers(label):
        if _boot(found) == boot_id and (found["Id"] in unsure or not unsure.isdisjoint(_names(found))):
            await engine.remove(found["Id"])
    for found in await engine.volumes(label):
        if _boot(found) == boot_id and found["Name"] in unsure:
            await engine.remove_volume(found["Name"])


def _boot(found: Mapping[str, Any]) -> str:
    return str((found.get("Labels") or {}).get(f"{hardening.LABEL}.boot-id", ""))


def _names(found: Mapping[str, Any]) -> set[str]:
    return {name.removeprefix("/") for name in found.get("Names") or ()}
