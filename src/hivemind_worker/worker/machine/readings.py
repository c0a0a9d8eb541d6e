"""How this machine is doing now: CPU, memory, disk, network, load, processes, GPUs."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from hivemind_worker.worker.machine import accelerators, capacity


@dataclass(frozen=True, slots=True)
class Disk:
    """How full the disk of a folder is, as `df` counts: what only root may use is neither used nor free."""

    folder: Path
    percent: float
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Machine:
    """One look at the machine. ``timestamp`` is seconds since the epoch; the groups are psutil's own, by its names.

    ``cpu_percent`` is of all cores together, over the time since the look before. ``None`` or empty: cannot be told
    here. ``disk`` is that of work_dir, ``fullest`` the fullest of all that the worker needs. ``worker_*`` is this
    process alone; its percent counts one core as 100.
    """

    timestamp: float
    cpu_percent: float
    cpu_count: int
    memory: Mapping[str, float]
    cpu_freq: Mapping[str, float] | None = None
    disk: Mapping[str, float] = field(default_factory=dict)
    fullest: Disk | None = None
    network: Mapping[str, float] = field(default_factory=dict)
    processes: int = 0
    load_avg: tuple[float, float, float] | None = None
    gpus: tuple[accelerators.Gpu, ...] = ()
    worker_memory_bytes: int = 0
    worker_cpu_percent: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Return it in the reference document's shape, with the GPUs and the worker itself added."""
        return {
            "timestamp": self.timestamp,
            "cpu": {"percent": self.cpu_percent, "count": self.cpu_count, "freq": self.cpu_freq},
            "memory": dict(self.memory),
            "disk": dict(self.disk),
            "network": dict(self.network),
            "processes": self.processes,
            "load_avg": self.load_avg,
            "gpus": [gpu.as_json() for gpu in self.gpus],
            "worker": {"memory": self.worker_memory_bytes, "cpu_percent": self.worker_cpu_percent},
        }

    def numbers(self) -> dict[str, float]:
        """Return it as the named numbers of a heartbeat; what cannot be told is left out."""
        found = {
            "cpu_percent": self.cpu_percent,
            "memory_total_bytes": float(self.memory["total"]),
            "memory_available_bytes": float(self.memory["available"]),
            "memory_percent": float(self.memory["percent"]),
            "processes": float(self.processes),
            "worker_memory_bytes": float(self.worker_memory_bytes),
            "worker_cpu_percent": self.worker_cpu_percent,
        }
        if self.load_avg is not None:
            found |= zip(("load_1m", "load_5m", "load_15m"), self.load_avg, strict=True)
        if self.disk:
            found |= {f"disk_{name}_bytes": float(self.disk[name]) for name in ("total", "free")}
            found["disk_percent"] = float(self.disk["percent"])
        if self.network:
            found["network_sent_bytes"] = float(self.network["bytes_sent"])
            found["network_received_bytes"] = float(self.network["bytes_recv"])
        for number, gpu in enumerate(self.gpus):
            found |= {
                f"gpu{number}_memory_total_bytes": float(gpu.memory_total_bytes),
                f"gpu{number}_memory_used_bytes": float(gpu.memory_used_bytes),
            }
            if gpu.use_ratio is not None:
                found[f"gpu{number}_percent"] = 100.0 * gpu.use_ratio
        return found


class Readings:
    """Measures on demand. Rates are over the time since the measurement before; the first has none."""

    def __init__(
        self, work_dir: Path, gpus: accelerators.Accelerators | None = None, needed: Iterable[Path] = ()
    ) -> None:
        self._work_dir = work_dir
        self._needed = (work_dir, *needed)
        self._gpus = gpus
        self._self = psutil.Process()
        # Both compare with the look before: these make the first real one mean something.
        self._times = _times()
        self._self.cpu_percent()

    def measure(self) -> Machine:
        """Look at everything. Takes about a millisecond; blocks; one thread at a time."""
        disk: Mapping[str, float] = {}
        with contextlib.suppress(OSError):
            disk = psutil.disk_usage(str(capacity.existing(self._work_dir)))._asdict()
        network = None  # also where the kernel shows no interfaces at all
        with contextlib.suppress(OSError):
            network = psutil.net_io_counters()
        load = None
        with contextlib.suppress(OSError):
            load = os.getloadavg()
        return Machine(
            timestamp=time.time(),
            cpu_percent=self._cpu_percent(),
            cpu_count=psutil.cpu_count() or 1,
            cpu_freq=_freq(),
            memory=psutil.virtual_memory()._asdict(),
            disk=disk,
            fullest=max(self._disks(), key=lambda each: each.percent, default=None),
            network=network._asdict() if network is not None else {},
            processes=_processes(),
            load_avg=load,
            gpus=self._gpus.measure() if self._gpus is not None else (),
            worker_memory_bytes=self._self.memory_info().rss,
            worker_cpu_percent=self._self.cpu_percent(),
        )

    def _disks(self) -> Iterator[Disk]:
        for folder in self._needed:
            with contextlib.suppress(OSError):
                found = psutil.disk_usage(str(capacity.existing(folder)))
                yield Disk(folder, found.percent, found.free)

    def numbers(self) -> dict[str, float]:
        """Look at everything, as named numbers."""
        return self.measure().numbers()

    def _cpu_percent(self) -> float:
        # psutil's own compares with the call before in the same thread, and ours come from a pool of them.
        before, self._times = self._times, _times()
        busy, total = (now - then for now, then in zip(self._times, before, strict=True))
        return min(max(100.0 * busy / total, 0.0), 100.0) if total > 0 else 0.0


def _times() -> tuple[float, float]:
    """Seconds that the cores have been busy, and seconds in all, since the machine started."""
    told = psutil.cpu_times()._asdict()
    # Time of virtual machines is counted in user time too.
    total = sum(seconds for name, seconds in told.items() if not name.startswith("guest"))
    return total - told["idle"] - told.get("iowait", 0.0), total


def _freq() -> Mapping[str, float] | None:
    try:
        found: Any = psutil.cpu_freq()  # None too, whatever its types say
    except (OSError, NotImplementedError):  # virtual machines and other architectures show none
        return None
    return found._asdict() if found is not None else None


def _processes() -> int:
    # psutil.pids() would do, and sorts; a busy host has tens of thousands.
    return sum(entry.name.isdigit() for entry in Path("/proc").iterdir())
