"""How full the disks are on which our things lie: each told once, however many folders of ours are on it."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import Iterable
from pathlib import Path

from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.worker.housekeeping import policy
from hivemind_worker.worker.machine import capacity


def of(folder: Path) -> str:
    """Return the name of the disk a folder lies on, or will: where it is mounted. Empty where nobody can tell."""
    try:
        there = capacity.existing(folder).resolve()
        device = there.stat().st_dev
        while there.parent != there and there.parent.stat().st_dev == device:
            there = there.parent
    except OSError:
        return ""
    return str(there)


async def of_engine(engine: engines.Engine) -> str:
    """Return the disk that an engine, connected, keeps its things on; empty where this process cannot see that.

    Raises EngineLost, engine.Refused.
    """
    if not engine.local:
        return ""
    root = str((await engine.info()).get("DockerRootDir", ""))
    if root and (found := await asyncio.to_thread(_of_existing, Path(root))):
        return found
    try:  # we may be in a container of that very engine: then our own root lies on its disk
        await engine.inspect(socket.gethostname())
    except engines.Refused:
        return ""
    return "/"


def _of_existing(folder: Path) -> str:
    return of(folder) if folder.exists() else ""


async def measure(names: Iterable[str]) -> dict[str, policy.Disk]:
    """Return how full each of these disks is; those that cannot be asked are left out."""
    return await asyncio.to_thread(_measure, tuple(names))


def _measure(names: Iterable[str]) -> dict[str, policy.Disk]:
    found = {}
    for name in set(names):
        try:
            usage = shutil.disk_usage(name)
        except (OSError, ValueError):
            continue
        found[name] = policy.Disk(name, usage.used, usage.free)
    return found
