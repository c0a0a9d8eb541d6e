"""Kills every process of a capsule from outside, by its control group; `cgroup.kill` on v2.

Elsewhere: kill each, and only where new ones come (a fork bomb) freeze, kill each, thaw. A frozen group starts no
process while it is being killed, so none is missed. But on v1 no signal ends a frozen process: a worker that is killed
between freezing and thawing leaves it for ever. So what dies without is not frozen, and `limits.sweep` thaws the rest.
Used by both drivers beside their own way (the engine's kill, the death of a PID namespace with its first process),
since either may fail alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from hivemind_worker.runtime.capsule import freezer

DIE_SECONDS: Final = 0.2
"""How long killed processes may take to die before it is looked whether new ones came; usually milliseconds."""

_LOOK_SECONDS: Final = 0.005
_V2: Final = ""


def kill(folders: Mapping[str, Path]) -> None:
    """Send SIGKILL to every process in the groups in ``folders``, by controller ("" is v2). Blocks for a moment.

    Never raises: a group may vanish meanwhile. Whether all have died is for `processes` to say.
    """
    if _V2 in folders:
        with contextlib.suppress(OSError):
            (folders[_V2] / "cgroup.kill").write_text("1")
            return
    killed = _kill_each(folders)
    if _have_died(folders):
        return
    if processes(folders) <= killed:  # they die slowly, as on a busy machine, or somebody has frozen them
        freezer.thaw(folders)
        return
    is_frozen = freezer.freeze(folders)
    try:
        _kill_each(folders)
    finally:
        if is_frozen:
            freezer.thaw(folders)


def processes(folders: Mapping[str, Path]) -> frozenset[int]:
    """Return the processes in these groups and those below them, as this process sees their numbers."""
    found = set[int]()
    for folder in folders.values():
        for group in _tree(folder):
            with contextlib.suppress(OSError, ValueError):
                found |= {int(line) for line in (group / "cgroup.procs").read_text().split()}
    return frozenset(found - {0, os.getpid()})  # 0: of a PID namespace that is not ours to see


def _tree(folder: Path) -> Iterator[Path]:
    yield folder
    with contextlib.suppress(OSError):
        for child in folder.iterdir():
            if child.is_dir():
                yield from _tree(child)


def _have_died(folders: Mapping[str, Path]) -> bool:
    """Whether all have, within DIE_SECONDS."""
    until = time.monotonic() + DIE_SECONDS
    while processes(folders):
        if time.monotonic() > until:
            return False
        time.sleep(_LOOK_SECONDS)
    return True


def _kill_each(folders: Mapping[str, Path]) -> frozenset[int]:
    """Kill those that are there now; which these were."""
    found = processes(folders)
    for pid in found:
        _kill_one(pid, folders)
    return found


def _kill_one(pid: int, folders: Mapping[str, Path]) -> None:
    """Kill the very process that is in the group: what took its number since is not in it."""
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(pid)
        try:
            if pid in processes(folders):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)
