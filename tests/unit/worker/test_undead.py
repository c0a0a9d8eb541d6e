"""A capsule that nothing kills keeps its room, sends tasks like its own away, and three make a node unready."""

from __future__ import annotations

import dataclasses

import attempts
import pytest

from hivemind_worker import errors
from hivemind_worker.runtime import undead as capsules
from hivemind_worker.tasks import plan, resources
from hivemind_worker.worker.machine import admission, room, undead

RUN = plan.RunPlan("a", 1, "python:3", ("sleep", "9"), attempts.LIMITS, attempts.CAPS)
NEEDS = resources.Resources(2.0, attempts.LIMITS.memory_bytes, attempts.LIMITS.disk_bytes)


def registry_of(*runs: plan.RunPlan) -> capsules.Registry:
    registry = capsules.Registry()
    for run in runs:
        registry.add(run, "it does not end")
    return registry


async def test_its_room_is_given_out_again_when_it_is_gone() -> None:
    held = room.Room(admission.Admission(NEEDS, max_tasks=0))
    registry = registry_of(RUN)
    assert held.take_now("attempt", NEEDS)
    undead.leave(held, "attempt", registry.all)
    assert held.reservations.free == resources.Resources()
    assert not held.take_now("next", NEEDS)
    undead.reserve(held, registry.all)  # a look changes nothing while it is there
    held.changed.clear()
    registry.remove(RUN)
    undead.reserve(held, registry.all)
    assert held.changed.is_set()
    assert held.take_now("next", NEEDS)


async def test_an_attempt_without_one_leaves_all_its_room() -> None:
    held = room.Room(admission.Admission(NEEDS, max_tasks=1))
    assert held.take_now("attempt", NEEDS)
    undead.leave(held, "attempt", ())
    assert held.take_now("next", NEEDS)


def test_tasks_like_its_own_are_handed_back_and_others_are_not() -> None:
    registry = registry_of(RUN)
    with pytest.raises(errors.NoRoom, match="cannot be killed here"):
        undead.refuse_like(dataclasses.replace(RUN, attempt=2), registry.all)
    undead.refuse_like(dataclasses.replace(RUN, task_id="b", argv=("true",)), registry.all)
    undead.refuse_like(RUN, ())


def test_three_of_them_make_the_node_unready() -> None:
    runs = [dataclasses.replace(RUN, task_id=name) for name in "abc"]
    assert undead.unready_reason(registry_of(*runs[:2]).all) == ""
    assert "3 capsules cannot be killed (of a, b, c)" in undead.unready_reason(registry_of(*runs).all)
