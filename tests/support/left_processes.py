"""Every process that workers of a node have left on this machine, by what the kernel shows alone."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path


def of_node(node_id: str, state_dir: Path | None = None) -> dict[int, str]:
    """Return the processes that bear the node's mark, or its state folder in their command line: number → command.

    The mark is in the command line of each sandbox's program and in the environment of the first process inside.
    Containers are the engine's children, and bear labels instead.
    """
    mark = b"hivemind-life-" + hashlib.sha256(node_id.encode()).hexdigest()[:16].encode() + b"-"
    folder = None if state_dir is None else os.fsencode(state_dir)
    found = {}
    for place in Path("/proc").iterdir():
        if not place.name.isdigit() or int(place.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            command = (place / "cmdline").read_bytes()
            environment = b""
            with contextlib.suppress(PermissionError):
                environment = (place / "environ").read_bytes()
            if mark in command or mark in environment or (folder is not None and folder in command.split(b"\0")):
                found[int(place.name)] = command.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


def of_folder(folder: Path) -> dict[int, str]:
    """Return the processes that name this folder, or what is in it, on their command line or in their environment."""
    name, found = os.fsencode(folder), {}
    for place in Path("/proc").iterdir():
        if place.name.isdigit() and int(place.name) != os.getpid():
            with contextlib.suppress(OSError):
                command = (place / "cmdline").read_bytes()
                if name in command or name in (place / "environ").read_bytes():
                    found[int(place.name)] = command.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


def age_seconds(pid: int) -> float:
    """For how long a process has been there; 0 where it has ended."""
    with contextlib.suppress(OSError):
        fields = (Path("/proc") / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return 0.0


def end(pids: Iterable[int]) -> None:
    """Kill them; one that is gone already is passed over."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
