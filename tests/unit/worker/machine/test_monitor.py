"""ResourceMonitor speaks the reference document's words, and its numbers are this machine's own."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from pathlib import Path

import pytest
import small_disk

from hivemind_worker.worker.machine import monitor

GIB = 1024**3


def from_proc(name: str) -> int:
    """A line of /proc/meminfo, in bytes: what psutil reads too, read here without it."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


def test_the_documents_shape_with_this_machines_numbers(tmp_path: Path) -> None:
    found = monitor.ResourceMonitor(tmp_path).collect_metrics()
    assert {"timestamp", "cpu", "memory", "disk", "network", "processes", "load_avg"} <= found.keys()
    assert abs(found["timestamp"] - time.time()) < 60
    assert found["cpu"].keys() >= {"percent", "count", "freq"}
    assert 0 <= found["cpu"]["percent"] <= 100
    assert found["cpu"]["count"] == os.cpu_count()
    assert found["memory"]["total"] == from_proc("MemTotal")
    assert found["memory"]["available"] == pytest.approx(from_proc("MemAvailable"), rel=0.5)
    assert found["disk"]["total"] == shutil.disk_usage(tmp_path).total
    assert found["disk"]["free"] == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.2)
    assert found["network"].keys() >= {"bytes_sent", "bytes_recv"}
    assert found["processes"] > 1
    assert len(found["load_avg"]) == 3


def test_the_newest_look_is_kept(tmp_path: Path) -> None:
    looks = monitor.ResourceMonitor(tmp_path)
    assert looks.get_current_metrics() == {}
    first = looks.collect_metrics()
    assert looks.get_current_metrics() == first
    second = looks.collect_metrics()
    assert looks.get_current_metrics() == second
    assert second["timestamp"] >= first["timestamp"]


def test_what_is_there_is_compared_with_what_is_wanted(tmp_path: Path) -> None:
    looks = monitor.ResourceMonitor(tmp_path)
    there = looks.collect_metrics()
    memory, disk = there["memory"]["available"] / GIB, there["disk"]["free"] / GIB
    assert looks.is_resource_available({})
    assert looks.is_resource_available({"memory_gb": memory / 2, "disk_gb": disk / 2})
    assert not looks.is_resource_available({"memory_gb": memory * 1.01})
    assert not looks.is_resource_available({"disk_gb": disk * 1.01})
    assert not looks.is_resource_available({"memory_gb": memory / 2, "gpus": 64})
    assert looks.is_resource_available({"cpu_cores": 1}) is (there["cpu"]["percent"] <= 90)


@pytest.mark.skipif(not small_disk.can_mount(), reason="NO RIGHT TO MOUNT: a second disk is not tested")
def test_the_fullest_disk_that_is_needed_is_told_beside_that_of_the_work_folder(tmp_path: Path) -> None:
    with small_disk.mounted(tmp_path / "second", 4) as second:
        second.fill()
        looks = monitor.ResourceMonitor(tmp_path / "work", needed=[second.path / "state", tmp_path / "temp"])
        seen = looks.collect()
        assert seen.fullest is not None
        assert (seen.fullest.folder, seen.fullest.percent) == (second.path / "state", 100.0)
        assert seen.disk["total"] == shutil.disk_usage(tmp_path).total


def test_the_last_ten_minutes_are_remembered_a_few_seconds_apart(tmp_path: Path) -> None:
    looks = monitor.ResourceMonitor(tmp_path)
    seen = looks.collect()
    (moment,) = looks.recent
    assert (moment.timestamp, moment.cpu_percent) == (seen.timestamp, seen.cpu_percent)
    assert moment.memory_percent == seen.memory["percent"]
    assert moment.disk_percent == seen.disk["percent"]
    kept: tuple[monitor.Moment, ...] = ()
    for second in range(2000):
        kept = monitor.remembered(kept, dataclasses.replace(seen, timestamp=float(second)))
    times = [each.timestamp for each in kept]
    assert times == [float(second) for second in range(1396, 2000, 4)]  # 604 s: the oldest goes with the next look
    (anew,) = monitor.remembered(kept, dataclasses.replace(seen, timestamp=5.0, disk={}))
    assert (anew.timestamp, anew.disk_percent) == (5.0, None)
