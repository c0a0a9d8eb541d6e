"""What undead capsules mean for their node: they keep their room, tasks like theirs go elsewhere, three are many."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Final

from hivemind_worker import errors
from hivemind_worker.runtime import undead
from hivemind_worker.tasks import plan, resources, spec
from hivemind_worker.worker.machine import room

CAUSE: Final = "undead"

MAX_UNDEAD: Final = 3
"""From so many on the node takes nothing: then it is its kernel or its engine rather than a program."""


def refuse_like(run: plan.RunPlan, known: Sequence[undead.Undead]) -> None:
    """Hand a task back that is like one whose capsule cannot be killed here.

    Raises :class:`errors.NoRoom`: no fault of the task's, and the pool offers it to other nodes first.
    """
    found = undead.like(run, known)
    if found is not None:
        task_id, attempt = found.key
        raise errors.NoRoom(f"the capsule of a task like this one cannot be killed here ({task_id}, attempt {attempt})")


def reserve(held: room.Room, known: Sequence[undead.Undead]) -> None:
    """Have these capsules keep their room, and give back that of those that are gone."""
    held.keep_undead({each.key: (_needs(each), each.gpu_devices) for each in known})


def leave(held: room.Room, key: Hashable, known: Sequence[undead.Undead]) -> None:
    """Give the room of an attempt back that has ended, but for what its capsule still holds."""
    reserve(held, known)
    held.leave(key)


def unready_reason(known: Sequence[undead.Undead]) -> str:
    """Say why the node takes no tasks; empty where it does."""
    if len(known) < MAX_UNDEAD:
        return ""
    tasks = ", ".join(each.key[0] for each in known[:MAX_UNDEAD])
    return f"{len(known)} capsules cannot be killed (of {tasks}): restart the container engine or this machine"


def _needs(capsule: undead.Undead) -> resources.Resources:
    limits = capsule.limits
    cores = limits.cpu_quota / spec.CPU_PERIOD
    return resources.Resources(cores, limits.memory_bytes, limits.disk_bytes, len(capsule.gpu_devices))
