from __future__ import annotations

import dataclasses

import pytest

from hivemind_worker.cli import words
from hivemind_worker.cli.commands import nodes, status
from hivemind_worker.client import shapes
from hivemind_worker.tasks import outcome, state

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


@pytest.mark.parametrize(
    ("ended", "reason", "code", "said"),
    [
        (state.TaskState.COMPLETED, None, 0, "completed"),
        (state.TaskState.FAILED, outcome.Reason.NONZERO_EXIT, 3, "failed (nonzero_exit, exit code 3)"),
        (state.TaskState.FAILED, outcome.Reason.OOM, 137, "failed (oom, exit code 137)"),
        (state.TaskState.FAILED, outcome.Reason.TIMEOUT, 143, "failed (timeout)"),
        (state.TaskState.CANCELLED, outcome.Reason.CANCELLED, 143, "cancelled"),
    ],
)
def test_how_a_task_ended_is_said_once(
    ended: state.TaskState, reason: outcome.Reason | None, code: int, said: str
) -> None:
    result = outcome.Outcome(outcome.Status(str(ended)), reason, exit_code=code)
    assert words.ending(shapes.Task("a", "command", ended, result=result)) == said


def test_a_task_too_short_for_news_of_its_start_has_run_all_the_same() -> None:
    short = shapes.Task("a", "command", state.TaskState.COMPLETED, submitted_at=1.0, assigned_at=10.0, ended_at=10.25)
    assert words.seconds(short) == "0.25"
    assert words.seconds(dataclasses.replace(short, started_at=10.2)) == "0.05"
    assert words.seconds(dataclasses.replace(short, assigned_at=0.0)) == ""


def test_a_unit_is_said_once_where_both_have_it() -> None:
    assert words.share(512 * MIB, 1024 * MIB) == "512.0 MiB of 1.0 GiB"
    assert words.share(1536 * MIB, 2048 * MIB) == "1.5 of 2.0 GiB"


def test_limits_and_use_are_said_in_units_for_people() -> None:
    limits = outcome.Limits(1024 * MIB, 150_000, 30.0, 512 * MIB, 256)
    assert status._limits(limits) == "1.0 GiB of memory, 1.5 cores, 30 s, 512.0 MiB on disk, 256 processes"
    used = outcome.Usage(0.028, 0.0086, 1421312, 0, None, 1, 0.0)
    assert status._usage(used) == "0.03 s, 0.01 s of CPU, 1.4 MiB of memory at its peak, 1 process"
    assert status._timings({"run": 6.918, "start": 0.0049, "upload": 7.0}) == "upload 7.00 s, run 6.92 s"
