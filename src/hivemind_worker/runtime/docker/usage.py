"""What a container used and which limits it ran into: from its control groups where readable, else from the engine.

Its files cost 0.1 ms; the engine's own statistics up to a second each, even when asked for one reading alone (Docker
20.10). Control groups are found by the container's id, which no other machine's container shares, so a remote engine's
are never mistaken for ours.
"""

from __future__ import annotations

import contextlib
import dataclasses
import string
import time
from collections.abc import Mapping
from pathlib import Path

from hivemind_worker import errors
from hivemind_worker.runtime.capsule import accounts
from hivemind_worker.runtime.docker import engine as engines

_ROOT = Path("/sys/fs/cgroup")
# cgroupfs and systemd as the engine's driver; before each, v1 has the controller's name.
_PLACES = ("docker/{id}", "system.slice/docker-{id}.scope")


class ContainerMonitor:
    """What running containers use. ``root`` and ``proc`` are where the kernel shows it."""

    def __init__(self, engine: engines.Engine, root: Path = _ROOT, proc: Path = Path("/proc")) -> None:
        self._engine = engine
        self._root = root
        self._proc = proc

    async def monitor_container(self, container: str, before: accounts.Usage | None = None) -> accounts.Usage | None:
        """Return what a container uses now, with its rates since ``before``; None where nobody can tell."""
        found = read(container, self._root, self._proc) or await ask(self._engine, container)
        return None if found is None else accounts.usage(found, time.time(), before)


def groups(container: str, root: Path = _ROOT) -> Mapping[str, Path]:
    """Return the control groups of a container by controller ("" is v2), as far as they can be seen from here."""
    if not container or set(container) - set(string.hexdigits):
        return {}
    return {
        controller: folder
        for controller in ("", *accounts.CONTROLLERS, accounts.FREEZER)
        for place in _PLACES
        if (folder := root / controller / place.format(id=container)).is_dir()
    }


def read(container: str, root: Path = _ROOT, proc: Path = Path("/proc")) -> accounts.Reading | None:
    """Read the control groups of a container that runs; None where they cannot be seen from here. Blocks briefly."""
    folders = groups(container, root)

    def text(controller: str, file: str) -> str | None:
        with contextlib.suppress(OSError, KeyError):
            return (folders[controller] / file).read_text()
        return None

    if not folders:
        return None
    found = accounts.read(text)
    with contextlib.suppress(OSError, IndexError, ValueError):
        # Its network is that of any of its processes; seen from a worker in a container of its own there are none.
        first = (text(next(iter(folders)), "cgroup.procs") or "").split()[0]
        received, sent = accounts.traffic((proc / first / "net/dev").read_text())
        found = dataclasses.replace(found, network_received_bytes=received, network_sent_bytes=sent)
    return found


async def ask(engine: engines.Engine, container: str) -> accounts.Reading | None:
    """Ask the engine instead; None when it has nothing to say."""
    with contextlib.suppress(errors.NodeFault):
        return accounts.of_engine(await engine.stats(container))
    return None


async def killed_for_memory(engine: engines.Engine, container: str) -> bool:
    """The engine's own record, which it makes when the container has ended: out of memory or not."""
    with contextlib.suppress(errors.NodeFault):
        await engine.wait(container, seconds=10.0)
        return bool((await engine.inspect(container)).get("State", {}).get("OOMKilled"))
    return False
