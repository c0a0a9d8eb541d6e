from __future__ import annotations

import pytest

from hivemind_worker.telemetry.health import checks, overload

LIMITS = checks.Thresholds()
GIB = 1024**3


@pytest.mark.parametrize(
    ("cpu", "memory", "word"),
    [(95.0, 95.0, ""), (95.1, 10.0, "High CPU usage: 95.1%"), (10.0, 95.1, "High memory usage: 95.1%")],
)
def test_the_machine_is_judged_by_the_document_s_numbers(cpu: float, memory: float, word: str) -> None:
    found = checks.system_resources(LIMITS, cpu, memory)
    assert (found.status is checks.Status.HEALTHY) is (not word)
    assert found.message.startswith(word or "System resources OK")


def test_a_full_disk_is_told_with_what_is_left_and_the_setting() -> None:
    assert checks.disk_space(LIMITS, 90.0, GIB, "/work") == checks.healthy("Disk space OK")
    full = checks.disk_space(LIMITS, 90.1, GIB, "/work")
    assert full.as_json()["status"] == "unhealthy"
    assert all(word in full.message for word in ("Low disk space: 90.1% used", "1.0 GiB", "/work", "unhealthy_disk"))


def test_a_node_without_docker_is_well_when_its_sandbox_is() -> None:
    assert checks.docker("docker", "").message == "Docker service OK"
    assert checks.docker("docker", "no answer").message == "Docker service failed: no answer"
    assert checks.docker("sandbox", "").status is checks.Status.HEALTHY
    assert checks.docker("sandbox", "no bwrap").status is checks.Status.UNHEALTHY


def _told(*uses: float) -> list[bool]:
    watch, told = overload.Watch(90.0), []
    for use in uses:
        watch = watch.look(use)
        told.append(watch.over)
    return told


def test_one_busy_moment_is_no_overload_and_one_quiet_one_ends_none() -> None:
    assert _told(99, 50, 99, 50) == [False] * 4
    assert _told(91, 91, 91) == [False, True, True]
    assert _told(99, 99, 10, 99, 10, 10) == [False, True, True, True, True, False]


def test_between_its_limit_and_five_points_below_nothing_changes() -> None:
    assert _told(89, 88, 87) == [False] * 3
    assert _told(95, 95, 89, 88, 86, 89) == [False] + [True] * 5
    assert _told(95, 95, 85, 85) == [False, True, True, False]


def test_what_our_own_tasks_use_is_no_overload_by_others() -> None:
    assert overload.others_cpu_percent(100.0, 4, 300.0) == 25.0
    assert overload.others_cpu_percent(50.0, 2, 250.0) == 0.0  # measured over slightly different seconds
    assert overload.others_cpu_percent(30.0, 2, 0.0) == 30.0
