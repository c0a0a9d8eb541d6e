"""Task files: JSON with one task, a list of tasks, or one task a line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from hivemind_worker import errors


def read(path: Path) -> list[Mapping[str, object]]:
    """Return the tasks in a file.

    Raises :class:`errors.InvalidTask`, naming the file, where it cannot be read or holds no task.
    """
    try:
        return parse(path.read_text(encoding="utf-8-sig"), str(path))
    except OSError as error:
        raise errors.InvalidTask(str(path), f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise errors.InvalidTask(str(path), "is no UTF-8 text") from None


def parse(text: str, name: str) -> list[Mapping[str, object]]:
    """Return the tasks in ``text``: an object, a list of objects, or an object on every line.

    Raises :class:`errors.InvalidTask` where it is none of these; ``name`` is how the message calls the text.
    """
    try:
        said = json.loads(text)
    except json.JSONDecodeError as error:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < 2 or not lines[0].rstrip().endswith("}"):
            raise errors.InvalidTask(name, f"is no JSON: {error}") from None
        said = [_line(line, f"{name}:{number}") for number, line in enumerate(lines, 1)]
    tasks = said if isinstance(said, list) else [said]
    for number, task in enumerate(tasks):
        if not isinstance(task, dict):
            raise errors.InvalidTask(f"{name}[{number}]", f"a task is an object, not {type(task).__name__}")
    if not tasks:
        raise errors.InvalidTask(name, "holds no task")
    return tasks


def _line(line: str, name: str) -> object:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise errors.InvalidTask(name, f"is no JSON: {error}") from None
