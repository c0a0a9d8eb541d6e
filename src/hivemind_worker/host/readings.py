"""How this machine is doing now: CPU, memory, disk, network, load, processes, as named numbers."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import psutil

from hivemind_worker.host import capacity


class Readings:
    """Measures on demand. Rates are over the time since the measurement before; the first has none."""

    def __init__(self, work_dir: Path) -> None:
        self._work_dir = work_dir
        self._self = psutil.Process()
        # Both compare with the call before: these make the first real measurement mean something.
        psutil.cpu_percent()
        self._self.cpu_percent()

    def measure(self) -> dict[str, float]:
        """Return what can be measured here, by name; what cannot is left out. Takes about a millisecond; blocks."""
        memory = psutil.virtual_memory()
        found = {
            "cpu_percent": psutil.cpu_percent(),
            "memory_total_bytes": float(memory.total),
            "memory_available_bytes": float(memory.available),
            "memory_percent": float(memory.percent),
            "processes": float(_processes()),
            "worker_memory_bytes": float(self._self.memory_info().rss),
            "worker_cpu_percent": self._self.cpu_percent(),
        }
        with contextlib.suppress(OSError):
            found["load_1m"], found["load_5m"], found["load_15m"] = os.getloadavg()
        with contextlib.suppress(OSError):
            disk = psutil.disk_usage(str(capacity.existing(self._work_dir)))
            found |= {"disk_total_bytes": float(disk.total), "disk_free_bytes": float(disk.free)}
        with contextlib.suppress(OSError):
            # None where the kernel shows no interfaces at all.
            if (network := psutil.net_io_counters()) is not None:
                found["network_sent_bytes"] = float(network.bytes_sent)
                found["network_received_bytes"] = float(network.bytes_recv)
        return found


def _processes() -> int:
    # psutil.pids() would do, and sorts; a busy host has tens of thousands.
    return sum(entry.name.isdigit() for entry in Path("/proc").iterdir())
