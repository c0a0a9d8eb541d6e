"""The task that `hivemind run`'s command line describes: words and files in, a task as JSON has it out."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from hivemind_worker.cli import words
from hivemind_worker.tasks import spec


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of `hivemind run` that are the task's; None and empty where nothing was said."""

    argv: Sequence[str]
    is_command: bool
    image: str | None = None
    cpu: float | None = None
    memory: str | None = None
    timeout: float | None = None
    environment: Sequence[str] = ()
    inputs: Sequence[str] = ()
    requirements: Sequence[str] = ()
    labels: Sequence[str] = ()
    secrets: Sequence[str] = ()


def task(asked: Asked) -> dict[str, Any]:
    """Return the task; local files in it are absolute. Raises click's UsageError for what is no task at all."""
    said: dict[str, Any] = {
        "docker_image": asked.image,
        "cpu_quota": round(asked.cpu * spec.CPU_PERIOD) if asked.cpu is not None else None,
        "memory_limit": asked.memory,
        "timeout": asked.timeout,
        "environment": _environment(asked.environment),
        "input_files": dict(_inputs(asked.inputs)),
        "labels": words.pairs("--label", asked.labels),
        "secrets": secrets(asked.secrets),
    }
    if asked.requirements:
        said["requirements"] = [line for each in asked.requirements for line in _requirements(each)]
    if asked.is_command:
        return {**said, "type": "command", "command": list(asked.argv)}
    script, *arguments = asked.argv
    if not script.endswith(".py"):
        raise click.UsageError(f"{script} is no Python script; to run a command write `-- {script} …`")
    return {**said, "type": "python", "code": {"file": _absolute(script)}, "args": arguments}


def _environment(given: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE as it stands; a bare NAME takes the value that it has here."""
    there = [each for each in given if "=" in each or each in os.environ]
    missing = [each for each in given if each not in there]
    if missing:
        raise click.UsageError(f"--env {missing[0]}: no such variable here; write NAME=VALUE")
    return words.pairs("--env", [each if "=" in each else f"{each}={os.environ[each]}" for each in there])


def secrets(given: Sequence[str]) -> dict[str, object]:
    """Return where the values of secrets come from: NAME from its variable here, NAME=@FILE from a file, NAME=- from
    standard input. A value itself is refused, and not shown: the list of processes had it already.
    """
    found: dict[str, object] = {}
    for each in given:
        name, sign, source = each.partition("=")
        if not sign:
            found[name] = {"env": name}
        elif source == "-":
            found[name] = sys.stdin.read()
        elif source.startswith("@"):
            found[name] = {"file": _absolute(source[1:])}
        else:
            raise click.UsageError(
                f"--secret {name}: no value here, where every user of this machine could read it; write --secret NAME "
                "to take it from the variable, NAME=@FILE from a file, or NAME=- from standard input"
            )
    return found


def _requirements(given: str) -> Iterator[str]:
    """One requirement, or those in a file that is here; its comments and empty lines are none."""
    path = Path(given)
    if not path.is_file():
        if path.suffix == ".txt":
            raise click.UsageError(f"-r {given}: there is no such file")
        yield given
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        if text := re.sub(r"(^|\s)#.*", "", line).strip():
            yield text


def _inputs(given: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Each file under its own name; of a folder, all regular files beneath it, under the folder's name."""
    for each in given:
        path = Path(each)
        if not path.is_dir():
            yield path.name, {"file": _absolute(each)}
            continue
        top = path.resolve()
        for found in sorted(top.rglob("*")):
            if found.is_file() and not found.is_symlink():
                yield f"{top.name}/{found.relative_to(top).as_posix()}", {"file": str(found)}


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())
