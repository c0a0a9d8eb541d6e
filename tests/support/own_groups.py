"""Control groups of a run's own, one in each hierarchy: all that it makes are below them, and go with them.

In a cgroup namespace they are the roots: a worker, and an engine inside, make theirs as on a machine of their own.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import secrets
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
PREFIX = "hivemind-chaos-"

GONE_SECONDS = 5.0
"""How long the kernel may take to see a group empty after its last process was killed."""

ENTER = 'for group in $1; do echo $$ > "$group/cgroup.procs"; done; shift; exec "$@"'
"""A shell's program that joins groups and becomes another program."""


def possible() -> bool:
    """Whether some can be made: by root, and not where v2 is alone.

    There a group that has processes cannot share out controllers, so an engine inside could limit nothing.
    """
    return os.geteuid() == 0 and not (MOUNT / "cgroup.controllers").exists() and any(_own())


def make() -> list[Path]:
    """Make one below our own in each hierarchy; none where that is not possible. Removes dead runs' first."""
    if not possible():
        return []
    name = f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
    groups = []
    for folder in _own():
        sweep(folder)
        with contextlib.suppress(OSError):
            group = folder / name
            group.mkdir()
            groups.append(group)
            for file in ("cpuset.cpus", "cpuset.mems"):  # empty in a new one, which then takes no process
                if (folder / file).exists():
                    (group / file).write_text((folder / file).read_text())
    return groups


def _own() -> Iterator[Path]:
    """Our group in each hierarchy that is mounted."""
    for row in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
        _, controllers, path = row.split(":", 2)
        # Several controllers of one hierarchy are mounted under the names of all, joined.
        mount = MOUNT / (controllers.removeprefix("name=") or "unified")
        if (mount / path.lstrip("/")).is_dir():
            yield mount / path.lstrip("/")


def sweep(folder: Path) -> None:
    """Remove what runs that are dead have left there."""
    for group in folder.glob(f"{PREFIX}*-*"):
        pid = group.name.removeprefix(PREFIX).partition("-")[0]
        if not Path(f"/proc/{pid}").exists():
            remove([group])


def joined(groups: Sequence[Path], command: Sequence[str]) -> list[str]:
    """The words that run a program in these groups."""
    return ["/bin/sh", "-c", ENTER, "sh", " ".join(map(str, groups)), *command] if groups else list(command)


def mount_of(group: Path) -> Path:
    """Where the hierarchy of a group is mounted."""
    return MOUNT / group.relative_to(MOUNT).parts[0]


def find(pattern: str) -> list[str]:
    """Every group of such a name there is. Others' come and go meanwhile, which `Path.rglob` would fail on."""
    return [f"{at}/{name}" for at, names, _ in os.walk(MOUNT) for name in fnmatch.filter(names, pattern)]


def below(roots: Sequence[Path]) -> set[str]:
    """Every group below these, by its path from there, each once for all hierarchies."""
    return {os.path.relpath(at, root) for root in roots for at, _, _ in os.walk(root)} - {"."}


def forget(pid: int) -> None:
    """End and remove what a worker of that number ran, as its machine would have gone with it: it never comes back."""
    remove(list(MOUNT.glob(f"*/hivemind-task-{pid}-*")))


def remove(groups: Sequence[Path]) -> list[str]:
    """Kill what is in them, remove them and all below; returns those that could not be."""
    left = []
    for group in groups:
        deadline = time.monotonic() + GONE_SECONDS
        while group.is_dir() and not _removed(group):
            if time.monotonic() > deadline:
                left.append(str(group))
                break
            time.sleep(0.02)
    return left


def _removed(group: Path) -> bool:
    """One try, deepest first."""
    for at, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            for pid in (Path(at) / "cgroup.procs").read_text(encoding="ascii").split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            os.rmdir(at)  # noqa: PTH106
    return not group.is_dir()
