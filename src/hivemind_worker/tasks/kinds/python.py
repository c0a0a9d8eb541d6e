"""Python: a script with arguments, run by the image's own interpreter."""

from __future__ import annotations

from hivemind_worker.tasks import spec
from hivemind_worker.tasks.kinds import kind, program_files


class PythonKind:
    """Runs ``code`` with ``args``."""

    def program(self, task: spec.TaskSpec) -> kind.Program:
        """Return the command that runs the script, and the script."""
        script = program_files.own_script(task)
        return kind.Program(script.argv, (script.file,))


KIND = PythonKind()
