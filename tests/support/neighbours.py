"""Processes that keep the cores busy next to a chaos run, as another service's slice on the same machine does.

The run and they have a control group each, with weights by which the spinners get two thirds of what both have while
the run has enough to do for all cores, as under systemd a crowded slice and a service share it; of a core on which the
run has one process they get half, as groups are weighed for each core. In the run's own group each of 60 would weigh as
much as each process of it: that left it a thirtieth of two cores, and 40 tasks took 5,000 s.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import own_groups

WEIGHT = 2
"""Of the spinners together, where the run weighs 1."""

SPINNER = "import os, sys\nparent = int(sys.argv[1])\nwhile os.getppid() == parent: pass"
"""It ends with its parent, whatever ends that."""


class Spinners:
    """So many processes that spin. ``group``: their control group; none where they weigh as much as anybody else."""

    def __init__(self, count: int, group: Path | None) -> None:
        """Start them."""
        self.group = group
        self._since = time.monotonic()
        self._before = _children_seconds()
        self._seconds = 0.0
        words = [sys.executable, "-I", "-S", "-c", SPINNER, str(os.getpid())]
        self.processes: list[subprocess.Popen[bytes]] = []
        for _ in range(count):
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL)
            self.processes.append(process)
            if group is not None:
                _enter(group, process.pid)

    def end(self) -> None:
        """End them."""
        self._seconds += _seconds(self.processes)
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()

    @property
    def text(self) -> str:
        """What they have had of the machine, and all others that this process started and that have ended."""
        spun = self._seconds + _seconds(self.processes)
        run = _children_seconds() - self._before - self._seconds
        machine = (time.monotonic() - self._since) * (os.cpu_count() or 1)
        where = "in a control group next to the run's" if self.group else "in no group of their own"
        return (
            f"{spun:7.0f}  seconds of the processor that {len(self.processes)} spinners had, {where}\n"
            f"{run:7.0f}  seconds of the processor that the run had\n"
            f"{machine:7.0f}  seconds of the processor that there were"
        )


def _seconds(processes: Sequence[subprocess.Popen[bytes]]) -> float:
    return sum(cpu_seconds(process.pid) for process in processes if process.poll() is None)


def _children_seconds() -> float:
    """What all children that were waited for, and theirs, have computed."""
    times = os.times()
    return times.children_user + times.children_system


def cpu_seconds(pid: int) -> float:
    """How long a process has computed, in seconds, by the kernel's account (`man 5 proc`, fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def spinning(count: int) -> Iterator[Spinners]:
    """Have so many spin within this block. This process, and what it starts meanwhile, has a group next to theirs."""
    with _weighed((1, WEIGHT) if count else ()) as groups:
        spinners = Spinners(count, groups[1] if groups else None)
        try:
            yield spinners
        finally:
            spinners.end()


@contextlib.contextmanager
def _weighed(weights: Sequence[int]) -> Iterator[list[Path]]:
    """Make groups of these weights for the processor, with this process in the first; none where that cannot be."""
    groups: list[Path] = []
    before = next(_own(), None)
    for parent in _parents() if weights else ():
        groups = _made(parent, weights)
        if groups:
            break
    try:
        if groups:
            _enter(groups[0], os.getpid())
        yield groups
    finally:
        if groups and before is not None:
            _enter(before, os.getpid())  # first: whatever is in a group that is removed is killed
        for group in own_groups.remove(groups):
            print(f"!! control group {group} cannot be removed", file=sys.stderr)  # noqa: T201


def _own() -> Iterator[Path]:
    """Our group in the hierarchy that shares out the processor, where one is mounted."""
    for row in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
        _, controllers, path = row.split(":", 2)
        names = "" if (own_groups.MOUNT / "cgroup.controllers").exists() else "cpu"
        if names in controllers.split(","):
            mount = own_groups.MOUNT / controllers
            yield mount / path.lstrip("/") if (mount / path.lstrip("/")).is_dir() else mount


def _parents() -> Iterator[Path]:
    """Where groups may be made, closest to ours first. In v2 none but the root shares out while it has processes."""
    root = own_groups.MOUNT
    for own in _own():
        if not (root / "cgroup.controllers").exists():
            yield own
            continue
        yield from (folder for folder in own.parents if folder.is_relative_to(root) and folder != root)
        with contextlib.suppress(OSError):
            (root / "cgroup.subtree_control").write_text("+cpu", encoding="ascii")
        yield root


def _made(parent: Path, weights: Sequence[int]) -> list[Path]:
    """One group for each weight; none where one of them cannot be made or weighed."""
    own_groups.sweep(parent)
    groups = []
    try:
        for weight in weights:
            group = parent / f"{own_groups.PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
            group.mkdir()
            groups.append(group)
            v1 = group / "cpu.shares"
            file, usual = (v1, 1_024) if v1.exists() else (group / "cpu.weight", 100)
            with file.open("r+", encoding="ascii") as text:
                text.write(str(usual * weight))
    except OSError:
        own_groups.remove(groups)
        return []
    return groups


def _enter(group: Path, pid: int) -> None:
    (group / "cgroup.procs").write_text(str(pid), encoding="ascii")
