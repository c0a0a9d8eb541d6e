"""Data processing: tables, images and texts, by readable programs of ours that run inside the capsule."""

from __future__ import annotations

from hivemind_worker.kinds import kind
from hivemind_worker.task import errors, spec


class DataProcessingKind:
    """Not written yet."""

    def program(self, task: spec.TaskSpec) -> kind.Program:
        """Refuse."""
        raise errors.InvalidTask("type", f"{task.kind} tasks are not run by this version")


KIND = DataProcessingKind()
