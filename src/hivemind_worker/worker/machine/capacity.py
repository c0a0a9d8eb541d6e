"""What this machine has for tasks: cores, memory and disk, as this process is allowed to use them, less a reserve."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from hivemind_worker import units
from hivemind_worker.tasks import resources

RESERVED_MEMORY_BYTES = 512 * units.MIB
"""Most memory kept from tasks, for the worker (150 MiB at most), the engine and the system; a tenth where that is less.

A machine that runs out of memory ends its worker as readily as a task.
"""

RESERVED_DISK_BYTES = units.GIB
"""Most disk kept from tasks, so that logs and reports can still be written; a twentieth where that is less."""

# cgroup v1 says "no limit" with a number near 2**63; no machine has so much.
_NO_LIMIT = 2**60


def measure(
    work_dir: Path, proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup"), gpus: int = 0
) -> resources.Resources:
    """Return what tasks may use together on this machine now.

    Cores: the affinity of this process, cut by its cgroup's quota. Memory: the machine's, cut by the cgroup's limit.
    Disk: what is free where ``work_dir`` is or will be. A limit of any cgroup above ours counts too. ``proc`` and
    ``cgroups`` are where the kernel shows them; ``gpus`` is how many devices `accelerators` found.
    """
    groups = _groups(proc, cgroups)
    cores = min([float(len(os.sched_getaffinity(0))), *_core_quotas(groups)])
    memory = min([_memory(proc), *_memory_limits(groups)])
    free = shutil.disk_usage(existing(work_dir)).free
    return resources.Resources(
        cpu_cores=cores,
        memory_bytes=memory - min(memory // 10, RESERVED_MEMORY_BYTES),
        disk_bytes=free - min(free // 20, RESERVED_DISK_BYTES),
        gpus=gpus,
    )


def capped(
    there: resources.Resources, *, max_cpu_cores: float = 0, max_memory_gb: float = 0, max_disk_gb: float = 0
) -> resources.Resources:
    """Return ``there`` cut to what the owner allows; 0 means all of it. GB as the reference writes them: GiB."""
    return there.at_most(
        resources.Resources(
            max_cpu_cores or there.cpu_cores,
            int(max_memory_gb * units.GIB) or there.memory_bytes,
            int(max_disk_gb * units.GIB) or there.disk_bytes,
            there.gpus,
        )
    )


def _memory(proc: Path) -> int:
    for line in (proc / "meminfo").read_text(encoding="ascii").splitlines():
        name, _, rest = line.partition(":")
        if name == "MemTotal":
            return int(rest.split()[0]) * 1024
    raise OSError(f"{proc / 'meminfo'} does not tell the machine's memory")


def _groups(proc: Path, cgroups: Path) -> list[Path]:
    """Every folder that may hold a limit of ours: our cgroup in each hierarchy, and those above it."""
    try:
        lines = (proc / "self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found: list[Path] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        named = {"": (".", "unified"), "memory": ("memory",)}.get(controllers, ())
        hierarchies = named or (("cpu,cpuacct", "cpu") if "cpu" in controllers.split(",") else ())
        for hierarchy in hierarchies:
            # In a container without a cgroup namespace the path is the host's, and only the root is mounted here.
            inside = (cgroups / hierarchy / path.lstrip("/")).resolve()
            top = (cgroups / hierarchy).resolve()
            found += [top, *(folder for folder in (inside, *inside.parents) if top in folder.parents)]
    return found


def _core_quotas(groups: list[Path]) -> list[float]:
    quotas = []
    for group in groups:
        both = _text(group / "cpu.max").split()  # v2: "max 100000" or "150000 100000"
        if len(both) != 2:
            both = [_text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us")]  # v1: -1 without one
        if both[0].isdigit() and both[1].isdigit() and int(both[0]) > 0 and int(both[1]) > 0:
            quotas.append(int(both[0]) / int(both[1]))
    return quotas


def _memory_limits(groups: list[Path]) -> list[int]:
    said = [_text(group / name) for group in groups for name in ("memory.max", "memory.limit_in_bytes")]
    return [int(limit) for limit in said if limit.isdigit() and 0 < int(limit) < _NO_LIMIT]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def existing(folder: Path) -> Path:
    """Return ``folder``, or the nearest folder above it that is there already."""
    return next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
