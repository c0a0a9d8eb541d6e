"""Kills every process of a capsule from outside, by its control group: freeze, kill each, thaw; `cgroup.kill` on v2.

A frozen group starts no process while it is being killed, so none is missed. Used by both drivers beside their own way
(the engine's kill, the death of a PID namespace with its first process), since either may fail alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

FREEZE_SECONDS: Final = 0.2
"""A process in the kernel may take long to freeze; those that are frozen by then are killed, and the rest as well."""

_LOOK_SECONDS: Final = 0.005
_V2: Final = ""
_FREEZER: Final = "freezer"


def kill(folders: Mapping[str, Path]) -> None:
    """Send SIGKILL to every process in the groups in ``folders``, by controller ("" is v2). Blocks for a moment.

    Never raises: a group may vanish meanwhile. Whether all have died is for `processes` to say.
    """
    if _V2 in folders and _written(folders[_V2] / "cgroup.kill", "1"):
        return
    is_frozen = _freeze(folders)
    try:
        for pid in processes(folders):
            _kill_one(pid, folders)
    finally:
        if is_frozen:
            _thaw(folders)


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


def _freeze(folders: Mapping[str, Path]) -> bool:
    if _FREEZER in folders:
        state, frozen = folders[_FREEZER] / "freezer.state", "FROZEN"
        was_asked = _written(state, "FROZEN")
    elif _V2 in folders:
        state, frozen = folders[_V2] / "cgroup.events", "frozen 1"
        was_asked = _written(folders[_V2] / "cgroup.freeze", "1")
    else:
        return False
    if not was_asked:
        return False
    until = time.monotonic() + FREEZE_SECONDS
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            if frozen in state.read_text().splitlines():
                break
        time.sleep(_LOOK_SECONDS)
    return True


def _thaw(folders: Mapping[str, Path]) -> None:
    if _FREEZER in folders:
        _written(folders[_FREEZER] / "freezer.state", "THAWED")
    elif _V2 in folders:
        _written(folders[_V2] / "cgroup.freeze", "0")


def _kill_one(pid: int, folders: Mapping[str, Path]) -> None:
    """Kill the very process that is in the group: what took its number since is not in it."""
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(pid)
        try:
            if pid in processes(folders):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)


def _written(file: Path, text: str) -> bool:
    try:
        file.write_text(text)
    except OSError:
        return False
    return True
