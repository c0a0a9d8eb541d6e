"""What `hivemind status` says in words of what JSON tells."""

from __future__ import annotations

from hivemind_worker.cli.commands import status
from hivemind_worker.client import shapes
from hivemind_worker.tasks import state


def test_a_cut_task_is_said_to_be_cut() -> None:
    task = shapes.Task("t", "command", state.TaskState.RUNNING, truncated=True)
    assert "left out" in dict(status._rows(task))["cut"]
    assert "cut" not in dict(status._rows(shapes.Task("t", "command", state.TaskState.RUNNING)))
