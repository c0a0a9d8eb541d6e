"""The programs that run inside the capsule as files of a plan: ours with their settings, or the task's own script.

The folder keeps them apart from the task's inputs: an input called ``json.py`` shadows nothing that they import.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hivemind_worker import errors
from hivemind_worker.tasks import plan, spec

FOLDER = ".hivemind"
"""First part of the paths of our programs in a workspace."""

SETTINGS = f"{FOLDER}/settings.json"
"""What a kind tells its program: the task's own fields, checked."""

SCRIPT = "task.py"
"""What the task's own script is called in the workspace: the reference document's name."""

TABLES = (
    *(
        "table_reading.py",
        "table_files.py",
        "table_sheets.py",
        "table_layout.py",
        "table_header.py",
        "table_dialect.py",
    ),
    *("table_rows.py", "table_typing.py", "table_warnings.py", "cell_formats.py", "cell_kinds.py"),
    *("encodings_found.py", "encoding_languages.py", "given.py"),
)
"""The programs' modules that read tables, which more than one kind brings."""

TABLE_REQUIREMENTS = (*("duckdb==2.0.1", "py3langid==0.4.0", "python-calamine==0.9.1", "zstandard==0.25.0"),)
"""The packages that they import."""

_PROGRAMS = Path(__file__).parent / "programs"


@dataclass(frozen=True, slots=True)
class OwnScript:
    """The task's own script as a file, and the command that runs it: unbuffered, so that output can be followed."""

    argv: tuple[str, ...]
    file: plan.InputFile


def own_script(task: spec.TaskSpec) -> OwnScript:
    """Return ``python3 -u task.py ARGS…`` and the file. Raises :class:`errors.InvalidTask` where there is no script."""
    if task.code is None:
        raise errors.InvalidTask("code", "missing")
    if SCRIPT in task.input_files:
        raise errors.InvalidTask("input_files", f"{SCRIPT!r} is where the task's own code goes; rename yours")
    return OwnScript(("python3", "-u", SCRIPT, *task.args), plan.InputFile(SCRIPT, content=task.code.encode()))


def argv(script: str) -> tuple[str, ...]:
    """Return the command that runs ``script``: unbuffered, so that its progress can be followed."""
    return ("python3", "-u", f"{FOLDER}/{script}")


def files(task: spec.TaskSpec, scripts: Sequence[str], settings: Mapping[str, object]) -> tuple[plan.InputFile, ...]:
    """Return ``scripts`` and ``settings`` as files of the workspace.

    Raises :class:`errors.InvalidTask` where an input of the task lies in their folder.
    """
    for path in task.input_files:
        if path.split("/")[0] == FOLDER:
            raise errors.InvalidTask("input_files", f"{FOLDER!r} is where the program goes; rename yours")
    written = json.dumps(settings, indent=2, sort_keys=True).encode() + b"\n"
    sources = (plan.InputFile(f"{FOLDER}/{script}", content=source(script)) for script in scripts)
    return (*sources, plan.InputFile(SETTINGS, content=written))


@functools.cache
def source(script: str) -> bytes:
    """Return a program's text, read once: it is a part of this package as our modules are."""
    return (_PROGRAMS / script).read_bytes()
