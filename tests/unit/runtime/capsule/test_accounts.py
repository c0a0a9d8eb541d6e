from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hivemind_worker.runtime.capsule import accounts

SAMPLES = Path(__file__).parent / "samples"
MIB = 1024 * 1024


def _read(name: str) -> accounts.Reading:
    def text(controller: str, file: str) -> str | None:
        path = SAMPLES / name / controller / file
        return path.read_text() if path.is_file() else None

    return accounts.read(text)


def _engine(name: str) -> dict[str, Any]:
    said: dict[str, Any] = json.loads((SAMPLES / name).read_text())
    return said


@pytest.mark.parametrize("version", ["cgroup-v1", "cgroup-v2"])
def test_the_kernel_s_files_of_both_versions_say_the_same(version: str) -> None:
    found = _read(version)
    assert found.memory_bytes == 4194304 - 352256
    assert found.peak_memory_bytes == found.memory_limit_bytes == 64 * MIB
    assert found.cpu_seconds == pytest.approx(3.011117, abs=1e-6)
    assert found.throttled_seconds == pytest.approx(2.935878, abs=1e-6)
    assert (found.processes_now, found.processes) == (19, 20)
    assert (found.memory_kills, found.forks_refused) == (1, 1)


def test_input_and_output_are_added_up_over_all_disks() -> None:
    two = _read("cgroup-v2")
    assert (two.read_bytes, two.written_bytes) == (1048576 + 4096, 20971520)
    one = accounts.read(
        lambda _, file: (
            "8:0 Read 4096\n8:0 Write 8192\n8:0 Total 12288\n8:16 Read 1\n8:16 Write 0\nTotal 12289\n"
            if file == "blkio.throttle.io_service_bytes"
            else None
        )
    )
    assert (one.read_bytes, one.written_bytes) == (4097, 8192)


def test_what_an_older_kernel_does_not_count_comes_from_the_looks_before() -> None:
    old = _read("cgroup-v2-old")
    assert (old.peak_memory_bytes, old.processes, old.read_bytes) == (None, None, None)
    after = accounts.Reading(cpu_seconds=5.0, memory_bytes=MIB, processes_now=2).at_least(old)
    assert (after.peak_memory_bytes, after.processes) == (old.memory_bytes, 19)
    assert (after.cpu_seconds, after.memory_kills) == (5.0, 1)
    gone = accounts.Reading().at_least(_read("cgroup-v1"))
    assert (gone.peak_memory_bytes, gone.memory_kills, gone.memory_bytes) == (64 * MIB, 1, None)


@pytest.mark.parametrize("said", ["engine-v1.json", "engine-v2.json"])
def test_the_engine_says_it_too(said: str) -> None:
    found = accounts.of_engine(_engine(said))
    assert found is not None
    assert found.memory_bytes == 4194304 - 352256
    assert found.memory_limit_bytes == 64 * MIB
    assert found.cpu_seconds is not None
    assert found.cpu_seconds > 3
    assert found.processes_now == 19
    assert found.network_received_bytes == (736 if "v1" in said else 0)


def test_of_a_stopped_container_the_engine_says_nothing() -> None:
    assert accounts.of_engine(_engine("engine-stopped.json")) is None
    assert accounts.of_engine({}) is None


def test_traffic_leaves_out_the_loopback() -> None:
    assert accounts.traffic((SAMPLES / "net-dev").read_text()) == (736, 0)
    assert accounts.traffic("    lo: 5 1 0 0 0 0 0 0 5 1 0 0 0 0 0 0\n") == (0, 0)
    assert accounts.traffic("") == (0, 0)


def test_rates_come_from_two_readings_in_the_document_s_shape() -> None:
    first = accounts.usage(accounts.Reading(cpu_seconds=1.0, memory_bytes=16 * MIB), 100.0, None, 64 * MIB)
    assert first.cpu_percent is None
    second = accounts.usage(accounts.Reading(cpu_seconds=4.0, memory_bytes=32 * MIB), 102.0, first, 64 * MIB)
    assert second.cpu_percent == pytest.approx(150.0)
    said = second.as_json()
    keys = ["cpu_percent", "memory_usage", "memory_limit", "memory_percent", "network_rx", "network_tx", "timestamp"]
    assert list(said)[:7] == keys
    assert (said["memory_percent"], said["timestamp"]) == (50.0, 102.0)


def test_readings_a_moment_apart_tell_no_rate_of_their_own() -> None:
    first = accounts.usage(accounts.Reading(cpu_seconds=1.0), 100.0, None)
    # One tick of 10 ms, booked within the 2 ms between the two.
    assert accounts.usage(accounts.Reading(cpu_seconds=1.01), 100.002, first).cpu_percent is None
    second = accounts.usage(accounts.Reading(cpu_seconds=2.0), 102.0, first)
    third = accounts.usage(accounts.Reading(cpu_seconds=2.01), 102.002, second)
    assert third.cpu_percent == second.cpu_percent == pytest.approx(50.0)


def test_no_limit_is_not_a_limit() -> None:
    said = {"memory.limit_in_bytes": "9223372036854771712", "memory.max": "max"}
    assert accounts.read(lambda _, file: said.get(file)).memory_limit_bytes is None
