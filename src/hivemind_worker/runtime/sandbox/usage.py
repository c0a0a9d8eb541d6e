"""What a sandbox uses where it has no control groups: the sum over its processes, as /proc shows them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from hivemind_worker.runtime.capsule import accounts

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def read(pid: int, proc: Path = Path("/proc")) -> accounts.Reading | None:
    """Add up the process `pid` and all that descend from it; None when it is gone. Blocks briefly.

    What children that have ended used is counted with whoever waited for them. Memory that processes share counts once
    for each: an upper bound.
    """
    cpu, memory, count = 0, 0, 0
    for each in _family(pid, proc):
        with contextlib.suppress(OSError, ValueError, IndexError):
            cpu += sum(int(word) for word in _fields(proc / str(each))[11:15])  # utime, stime, cutime, cstime
            memory += int((proc / str(each) / "statm").read_text().split()[1]) * _PAGE
            count += 1
    if not count:
        return None
    return accounts.Reading(cpu_seconds=cpu / _TICK, memory_bytes=memory, processes_now=count)


def _family(pid: int, proc: Path) -> Iterator[int]:
    waiting = [pid]
    while waiting:
        each = waiting.pop()
        yield each
        with contextlib.suppress(OSError):
            for thread in (proc / str(each) / "task").iterdir():
                waiting += map(int, (thread / "children").read_text().split())


def _fields(process: Path) -> list[str]:
    """The fields of its `stat` from the third on: the second, its name, may hold spaces and parentheses."""
    return (process / "stat").read_text().rpartition(")")[2].split()
