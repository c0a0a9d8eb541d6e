from __future__ import annotations

import os
from pathlib import Path

import pytest

from hivemind_worker import units
from hivemind_worker.tasks import resources
from hivemind_worker.worker.machine import capacity, readings

GIB = units.GIB


def _machine(folder: Path, memory: int, cgroup: str, files: dict[str, str]) -> tuple[Path, Path]:
    proc, groups = folder / "proc", folder / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(f"MemTotal:       {memory // 1024} kB\nMemFree:        1 kB\n")
    (proc / "self/cgroup").write_text(cgroup)
    for name, content in files.items():
        path = groups / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    groups.mkdir(exist_ok=True)
    return proc, groups


def _measure(tmp_path: Path, cgroup: str, files: dict[str, str]) -> resources.Resources:
    proc, groups = _machine(tmp_path, 64 * GIB, cgroup, files)
    return capacity.measure(tmp_path / "work/not/yet/there", proc, groups)


RESERVE = capacity.RESERVED_MEMORY_BYTES
CORES = float(len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(
    ("cgroup", "files", "cores", "memory"),
    [
        ("0::/\n", {}, CORES, 64 * GIB),
        ("0::/a/b\n", {"a/b/cpu.max": "50000 100000", "a/b/memory.max": "max"}, 0.5, 64 * GIB),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/memory.max": str(6 * GIB)}, CORES, 6 * GIB),
        ("0::/a/b\n", {"cpu.max": "20000 100000", "a/b/cpu.max": "90000 100000"}, 0.2, 64 * GIB),
        (
            "4:memory:/x\n1:cpu,cpuacct:/x\n",
            {
                "memory/x/memory.limit_in_bytes": str(8 * GIB),
                "cpu,cpuacct/x/cpu.cfs_quota_us": "25000",
                "cpu,cpuacct/x/cpu.cfs_period_us": "50000",
            },
            0.5,
            8 * GIB,
        ),
        (
            "4:memory:/x\n1:cpu:/\n",
            {
                "memory/x/memory.limit_in_bytes": "9223372036854771712",
                "cpu/cpu.cfs_quota_us": "-1",
                "cpu/cpu.cfs_period_us": "100000",
            },
            CORES,
            64 * GIB,
        ),
        # In a container without a cgroup namespace: the path is the host's, the limit lies at the root.
        ("4:memory:/docker/abc\n", {"memory/memory.limit_in_bytes": str(5 * GIB)}, CORES, 5 * GIB),
        ("0::/../../..\n", {"memory.max": str(7 * GIB)}, CORES, 7 * GIB),
    ],
)
def test_limits_of_every_cgroup_above_us_count(
    tmp_path: Path, cgroup: str, files: dict[str, str], cores: float, memory: int
) -> None:
    found = _measure(tmp_path, cgroup, files)
    assert found.cpu_cores == pytest.approx(cores)
    assert found.memory_bytes == memory - min(memory // 10, RESERVE)


def test_this_machine_has_something_to_offer(tmp_path: Path) -> None:
    found = capacity.measure(tmp_path / "work")
    assert 0 < found.cpu_cores <= (os.cpu_count() or 1)
    assert found.memory_bytes > 0
    assert found.disk_bytes > 0


def test_the_owner_s_caps_cut_and_zero_is_no_cap() -> None:
    there = resources.Resources(8.0, 32 * GIB, 500 * GIB)
    assert capacity.capped(there) == there
    assert capacity.capped(there, max_cpu_cores=2.5, max_memory_gb=1.5, max_disk_gb=10) == resources.Resources(
        2.5, int(1.5 * GIB), 10 * GIB
    )
    assert capacity.capped(there, max_cpu_cores=64, max_memory_gb=640, max_disk_gb=6400) == there


def test_readings_are_numbers_under_the_names_of_the_protocol(tmp_path: Path) -> None:
    found = readings.Readings(tmp_path / "not/there").measure().numbers()
    assert {"cpu_percent", "memory_available_bytes", "disk_free_bytes", "load_1m", "processes"} <= found.keys()
    assert all(value >= 0 for value in found.values())
    assert found["memory_available_bytes"] <= found["memory_total_bytes"]
    assert found["worker_memory_bytes"] > 1_000_000
