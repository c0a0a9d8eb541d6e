"""What the kernel's accounts of a capsule say: control group files, v1 and v2, as numbers. No I/O.

The files are described in the kernel's `admin-guide/cgroup-v1` and `admin-guide/cgroup-v2.rst`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

CONTROLLERS = ("memory", "cpuacct", "cpu", "pids", "blkio")
"""Folders of v1; in v2 all lie in one."""

_NANO, _MICRO = 1e-9, 1e-6


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """Amounts in bytes and seconds; None where nobody counted. The two counts are events since the capsule began."""

    peak_memory_bytes: int | None = None
    cpu_seconds: float | None = None
    throttled_seconds: float | None = None
    processes: int | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None
    memory_kills: int | None = None
    """Processes killed because the capsule's memory was used up: the one proof of `oom`."""
    forks_refused: int | None = None
    """Times that a new process was refused because of the limit of processes."""


def read(text: Callable[[str, str], str | None]) -> Reading:
    """Make a reading. `text(controller, file)` gives a file's content, None if there is none; controller "" is v2."""
    throttled = _times(_table(text("cpu", "cpu.stat")).get("throttled_time"), _NANO)
    one = _table(text("", "cpu.stat"))
    moved = _io(text("blkio", "blkio.throttle.io_service_bytes"), text("", "io.stat"))
    kills = _table(text("memory", "memory.oom_control")).get("oom_kill")
    v2_kills = _table(text("", "memory.events")).get("oom_kill")
    refused = _table(text("pids", "pids.events")).get("max")
    v2_refused = _table(text("", "pids.events")).get("max")
    return Reading(
        peak_memory_bytes=_first(text("memory", "memory.max_usage_in_bytes"), text("", "memory.peak")),
        cpu_seconds=_either(
            _times(_first(text("cpuacct", "cpuacct.usage")), _NANO), _times(one.get("usage_usec"), _MICRO)
        ),
        throttled_seconds=_either(throttled, _times(one.get("throttled_usec"), _MICRO)),
        processes=_first(text("pids", "pids.peak"), text("", "pids.peak")),
        read_bytes=moved.get("read"),
        written_bytes=moved.get("write"),
        memory_kills=v2_kills if kills is None else kills,
        forks_refused=v2_refused if refused is None else refused,
    )


def _table(text: str | None) -> Mapping[str, int]:
    """Lines of `name number`."""
    rows = (line.split() for line in (text or "").splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}


def _io(v1: str | None, v2: str | None) -> Mapping[str, int]:
    if v1 is not None:
        rows = [line.split() for line in v1.splitlines()]
        found = [(row[1].lower(), int(row[2])) for row in rows if len(row) == 3]
    elif v2 is not None:
        words = [word.partition("=") for line in v2.splitlines() for word in line.split()[1:]]
        names = {"rbytes": "read", "wbytes": "write"}
        found = [(names[name], int(value)) for name, _, value in words if name in names]
    else:
        return {}
    return {kind: sum(value for name, value in found if name == kind) for kind in ("read", "write")}


def _first(*texts: str | None) -> int | None:
    return next((int(text) for text in texts if text is not None and text.strip().isdigit()), None)


def _times(value: int | None, unit: float) -> float | None:
    return None if value is None else value * unit


def _either(first: float | None, second: float | None) -> float | None:
    return second if first is None else first
