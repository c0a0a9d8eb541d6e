"""Command: any program of the image, given as words or as one line for its shell."""

from __future__ import annotations

from hivemind_worker import errors
from hivemind_worker.tasks import checks, plan, spec
from hivemind_worker.tasks.kinds import kind

_SCRIPT = "command.sh"


class CommandKind:
    """Runs ``command``."""

    def program(self, task: spec.TaskSpec) -> kind.Program:
        """Return the words as they are; a string goes to ``/bin/sh``, as a file where it is too long for one word."""
        if task.command is None:
            raise errors.InvalidTask("command", "missing")
        if not isinstance(task.command, str):
            return kind.Program(task.command)
        if len(task.command.encode()) <= checks.ARGUMENT_BYTES:
            return kind.Program(("/bin/sh", "-c", task.command))
        if _SCRIPT in task.input_files:
            raise errors.InvalidTask("input_files", f"{_SCRIPT!r} is needed for a command of this length; rename yours")
        return kind.Program(("/bin/sh", _SCRIPT), (plan.InputFile(_SCRIPT, content=task.command.encode()),))


KIND = CommandKind()
