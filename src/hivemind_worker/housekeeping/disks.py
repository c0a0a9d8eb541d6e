"""How full the disks are on which our things lie: each told once, however many folders of ours are on it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable
from pathlib import Path

from hivemind_worker.host import capacity
from hivemind_worker.housekeeping import policy


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
