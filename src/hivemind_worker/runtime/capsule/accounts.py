"""What the kernel's accounts of a capsule say: control group files, v1 and v2, as numbers. No I/O.

The files are described in the kernel's `admin-guide/cgroup-v1` and `admin-guide/cgroup-v2.rst`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

CONTROLLERS = ("memory", "cpuacct", "cpu", "pids", "blkio")
"""Folders of v1; in v2 all lie in one."""

FREEZER = "freezer"
"""The one of v1 that counts nothing: it holds processes still while they are killed."""

_NANO, _MICRO = 1e-9, 1e-6

# cgroup v1 says "no limit" with a number near 2**63; no machine has so much.
_NO_LIMIT = 2**60


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
    """Processes killed for want of memory, the capsule's own or the machine's."""
    forks_refused: int | None = None
    """Times that a new process was refused because of the limit of processes."""
    memory_bytes: int | None = None
    """In use now, less what the kernel could take back at once (files read and no longer needed)."""
    memory_limit_bytes: int | None = None
    processes_now: int | None = None
    network_received_bytes: int | None = None
    network_sent_bytes: int | None = None
    limit_hits: int | None = None
    """Times that memory was refused at the capsule's own limit, where the kernel counts them."""

    def at_least(self, seen: Reading | None) -> Reading:
        """Return it with what only ever grows taken from `seen`, an earlier reading, where this one cannot tell."""
        if seen is None:
            return self
        grows = ("cpu_seconds", "throttled_seconds", "read_bytes", "written_bytes", "peak_memory_bytes", "processes",
                 "memory_kills", "limit_hits", "forks_refused")  # fmt: skip
        known = {name: getattr(seen, name) for name in grows if getattr(self, name) is None}
        peak, at_once = (self.peak_memory_bytes, seen.memory_bytes), (self.processes, seen.processes_now)
        # Kernels that keep no peak: the most that was ever looked at.
        known["peak_memory_bytes"] = _most(known.get("peak_memory_bytes"), *peak)
        known["processes"] = _most(known.get("processes"), *at_once)
        return dataclasses.replace(self, **known)


@dataclasses.dataclass(frozen=True, slots=True)
class Usage:
    """What a running capsule uses now: the two rates since the reading before, the amounts at `timestamp` (epoch).

    `cpu_percent`: 100 is one core. None where nobody can tell.
    """

    timestamp: float
    now: Reading
    cpu_percent: float | None = None
    memory_limit_bytes: int | None = None
    disk_bytes: int | None = None
    """Of its workspace, where that is on a disk and has been measured."""

    @property
    def memory_percent(self) -> float | None:
        """Of its limit."""
        if self.now.memory_bytes is None or not self.memory_limit_bytes:
            return None
        return 100.0 * self.now.memory_bytes / self.memory_limit_bytes

    def numbers(self) -> dict[str, float]:
        """Return what is known, by the names of the wire."""
        now = self.now
        found = {
            "cpu_seconds": now.cpu_seconds,
            "peak_memory_bytes": now.peak_memory_bytes,
            "read_bytes": now.read_bytes,
            "written_bytes": now.written_bytes,
            "processes": now.processes_now,
            "throttled_seconds": now.throttled_seconds,
            "cpu_percent": self.cpu_percent,
            "memory_bytes": now.memory_bytes,
            "memory_limit_bytes": self.memory_limit_bytes,
            "disk_bytes": self.disk_bytes,
            "network_received_bytes": now.network_received_bytes,
            "network_sent_bytes": now.network_sent_bytes,
        }
        return {name: value for name, value in found.items() if value is not None}

    def as_json(self) -> dict[str, float | None]:
        """Return the reference document's keys, and after them what else is known."""
        now = self.now
        return {
            "cpu_percent": self.cpu_percent,
            "memory_usage": now.memory_bytes,
            "memory_limit": self.memory_limit_bytes,
            "memory_percent": self.memory_percent,
            "network_rx": now.network_received_bytes,
            "network_tx": now.network_sent_bytes,
            "timestamp": self.timestamp,
            "memory_peak": now.peak_memory_bytes,
            "cpu_seconds": now.cpu_seconds,
            "throttled_seconds": now.throttled_seconds,
            "read_bytes": now.read_bytes,
            "written_bytes": now.written_bytes,
            "processes": now.processes_now,
            "disk_usage": self.disk_bytes,
        }


TOO_CLOSE = 0.1
"""Seconds. The kernel books the CPU time of what runs tick by tick (10 ms at 100 Hz), so that over one millisecond a
single busy core can look like five; over ten ticks it is off by a tenth at most."""


def usage(now: Reading, at: float, before: Usage | None, limit: int | None = None) -> Usage:
    """Compare two readings of one capsule. `limit` in bytes, where the kernel does not say it.

    Two readings closer together than `TOO_CLOSE` tell no rate: the one known before stands.
    """
    percent = None
    if before is not None and now.cpu_seconds is not None and before.now.cpu_seconds is not None:
        seconds = at - before.timestamp
        used = max(now.cpu_seconds - before.now.cpu_seconds, 0.0)
        percent = 100.0 * used / seconds if seconds >= TOO_CLOSE else before.cpu_percent
    said = now.memory_limit_bytes or limit
    seen = None if before is None else before.now
    return Usage(at, now.at_least(seen), percent, min(said, limit) if said and limit else said)


def read(text: Callable[[str, str], str | None]) -> Reading:
    """Make a reading. `text(controller, file)` gives a file's content, None if there is none; controller "" is v2."""
    throttled = _times(_table(text("cpu", "cpu.stat")).get("throttled_time"), _NANO)
    one = _table(text("", "cpu.stat"))
    moved = _io(text("blkio", "blkio.throttle.io_service_bytes"), text("", "io.stat"))
    kills = _table(text("memory", "memory.oom_control")).get("oom_kill")
    v2_kills = _table(text("", "memory.events")).get("oom_kill")
    hits = [_first(text("memory", file)) for file in ("memory.failcnt", "memory.memsw.failcnt")]
    v2_hits = _table(text("", "memory.events")).get("max")
    refused = _table(text("pids", "pids.events")).get("max")
    v2_refused = _table(text("", "pids.events")).get("max")
    used = _first(text("memory", "memory.usage_in_bytes"), text("", "memory.current"))
    idle = _table(text("memory", "memory.stat")).get("total_inactive_file")
    v2_idle = _table(text("", "memory.stat")).get("inactive_file")
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
        limit_hits=_sum(*hits, v2_hits),
        forks_refused=v2_refused if refused is None else refused,
        memory_bytes=_less(used, v2_idle if idle is None else idle),
        memory_limit_bytes=_limit(_first(text("memory", "memory.limit_in_bytes"), text("", "memory.max"))),
        processes_now=_first(text("pids", "pids.current"), text("", "pids.current")),
    )


def of_engine(said: Mapping[str, Any]) -> Reading | None:
    """What a container engine's statistics say (`GET /containers/ID/stats`); None where it says nothing.

    Every part may be missing: memory of a container that has ended, `networks` where it has none, the peak and the
    cores one by one with control groups v2.
    """
    memory, cpu = said.get("memory_stats") or {}, said.get("cpu_stats") or {}
    used = (cpu.get("cpu_usage") or {}).get("total_usage")
    if not memory and not used:
        return None
    details = memory.get("stats") or {}
    idle = details.get("total_inactive_file", details.get("inactive_file"))
    moved = (said.get("blkio_stats") or {}).get("io_service_bytes_recursive")
    networks: Iterable[Mapping[str, int]] = (said.get("networks") or {}).values()
    sums = {key: sum(each.get(key, 0) for each in networks) for key in ("rx_bytes", "tx_bytes")}
    return Reading(
        peak_memory_bytes=memory.get("max_usage"),
        cpu_seconds=_times(used, _NANO),
        throttled_seconds=_times((cpu.get("throttling_data") or {}).get("throttled_time"), _NANO),
        read_bytes=_moved(moved, "read"),
        written_bytes=_moved(moved, "write"),
        memory_bytes=_less(memory.get("usage"), idle),
        memory_limit_bytes=_limit(memory.get("limit")),
        processes_now=(said.get("pids_stats") or {}).get("current"),
        network_received_bytes=sums["rx_bytes"],
        network_sent_bytes=sums["tx_bytes"],
    )


def traffic(text: str) -> tuple[int, int]:
    """Bytes received and sent, of all interfaces but the loopback, as `/proc/PID/net/dev` has them."""
    rows = (line.partition(":") for line in text.splitlines())
    counts = [rest.split() for name, colon, rest in rows if colon and name.strip() != "lo"]
    return sum(int(row[0]) for row in counts), sum(int(row[8]) for row in counts)


def _moved(rows: Any, kind: str) -> int | None:
    """None for an empty list too: the engine gives one where the kernel does not count."""
    return sum(row["value"] for row in rows if str(row["op"]).lower() == kind) if rows else None


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


def _limit(said: int | None) -> int | None:
    return said if said is not None and 0 < said < _NO_LIMIT else None


def _less(used: int | None, idle: int | None) -> int | None:
    return None if used is None else max(used - (idle or 0), 0)


def _most(*values: int | None) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _sum(*values: int | None) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _times(value: int | None, unit: float) -> float | None:
    return None if value is None else value * unit


def _either(first: float | None, second: float | None) -> float | None:
    return second if first is None else first
