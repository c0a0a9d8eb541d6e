"""Machine learning: a script with its framework ready, or an estimator by name."""

from __future__ import annotations

from hivemind_worker.kinds import kind
from hivemind_worker.task import errors, spec


class MachineLearningKind:
    """Not written yet."""

    def program(self, task: spec.TaskSpec) -> kind.Program:
        """Refuse."""
        raise errors.InvalidTask("type", f"{task.kind} tasks are not run by this version")


KIND = MachineLearningKind()
