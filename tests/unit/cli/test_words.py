from __future__ import annotations

import pytest

from hivemind_worker.cli import nodes, words

MIB = 1024**2


@pytest.mark.parametrize(
    ("used", "said"),
    [
        ({}, ""),
        ({"wall_seconds": 3.0}, ""),
        ({"processes": 1}, "1 process"),
        ({"cpu_percent": 150.0, "memory_bytes": 50 * MIB}, "1.50 cores, 50.0 MiB"),
        (
            {"cpu_percent": 0.0, "memory_bytes": MIB, "memory_limit_bytes": 64 * MIB, "disk_bytes": 10, "processes": 3},
            "0.00 cores, 1.0 MiB of 64.0 MiB, 10 B on disk, 3 processes",
        ),
    ],
)
def test_what_a_task_uses_is_said_as_far_as_it_is_known(used: dict[str, float], said: str) -> None:
    assert words.usage(used) == said


def test_how_busy_a_machine_is_is_said_as_far_as_it_is_known() -> None:
    assert nodes._machine({}) == ""
    assert nodes._machine({"cpu_percent": 12.4, "memory_percent": 50.0}) == "12% cpu, 50% memory"
    assert nodes._machine({"cpu_percent": 99.6, "memory_percent": 9.0, "disk_percent": 54.2}) == (
        "100% cpu, 9% memory, 54% disk"
    )
