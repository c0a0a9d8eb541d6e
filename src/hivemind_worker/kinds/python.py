"""Python: a script with arguments, run by the image's own interpreter."""

from __future__ import annotations

from hivemind_worker.kinds import kind
from hivemind_worker.task import errors, plan, spec

SCRIPT = "task.py"
"""What the script is called in the workspace: the reference document's name."""


class PythonKind:
    """Runs ``code`` with ``args``."""

    def program(self, task: spec.TaskSpec) -> kind.Program:
        """Return ``python3 -u task.py ARGS…``: unbuffered, so that output can be followed while the task runs."""
        if task.code is None:
            raise errors.InvalidTask("code", "missing")
        if SCRIPT in task.input_files:
            raise errors.InvalidTask("input_files", f"{SCRIPT!r} is where the task's own code goes; rename yours")
        return kind.Program(
            ("python3", "-u", SCRIPT, *task.args), (plan.InputFile(SCRIPT, content=task.code.encode()),)
        )


KIND = PythonKind()
