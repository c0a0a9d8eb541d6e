"""Kinds of task: the table of them, each turning a spec into a RunPlan."""

from __future__ import annotations

from collections.abc import Mapping

from hivemind_worker.tasks import spec
from hivemind_worker.tasks.kinds import command, data_processing, kind, machine_learning, python

KINDS: Mapping[str, kind.Kind] = {
    "command": command.KIND,
    "python": python.KIND,
    "ml": machine_learning.KIND,
    "data_processing": data_processing.KIND,
}
"""Every kind there is, by the value of a task's ``type``."""


def of(task: spec.TaskSpec) -> kind.Kind:
    """Return the kind of ``task``; the spec has made sure that there is one."""
    return KINDS[task.kind]
