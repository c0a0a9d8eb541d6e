"""What is known of capsules that nothing kills, and which runs are like theirs."""

from __future__ import annotations

import dataclasses

import attempts
import pytest

from hivemind_worker.runtime import undead
from hivemind_worker.tasks import outcome, plan

RUN = plan.RunPlan("a", 1, "python:3", ("python3", "main.py"), attempts.LIMITS, attempts.CAPS)
FILE = plan.InputFile("main.py", content=b"print(1)")


def test_each_is_known_once_until_it_is_gone() -> None:
    registry = undead.Registry()
    registry.remove(RUN)
    registry.add(RUN, "it does not end")
    registry.add(RUN, "it still does not end")
    (known,) = registry.all
    assert (known.key, known.reason, known.limits) == (("a", 1), "it does not end", attempts.LIMITS)
    registry.remove(RUN)
    assert registry.all == ()


@pytest.mark.parametrize(
    ("changes", "alike"),
    [
        ({}, True),
        ({"task_id": "b", "attempt": 7}, True),
        ({"task_id": "b", "limits": dataclasses.replace(attempts.LIMITS, memory_bytes=1 << 20)}, True),
        ({"task_id": "b", "environment": {"SEED": "2"}}, True),
        ({"attempt": 2, "argv": ("true",)}, True),
        ({"task_id": "b", "argv": ("python3", "main.py", "x")}, False),
        ({"task_id": "b", "image": "python:4"}, False),
        ({"task_id": "b", "files": (dataclasses.replace(FILE, content=b"print(2)"),)}, False),
        ({"task_id": "b", "files": (plan.InputFile("main.py", artifact=outcome.Artifact("0" * 64, 8)),)}, False),
    ],
)
def test_alike_is_the_same_task_or_the_same_program(changes: dict[str, object], *, alike: bool) -> None:
    registry = undead.Registry()
    run = dataclasses.replace(RUN, files=(FILE,))
    other = dataclasses.replace(run, **changes)  # type: ignore[arg-type]
    assert undead.like(other, registry.all) is None
    registry.add(run, "it does not end")
    assert (undead.like(other, registry.all) is not None) is alike
