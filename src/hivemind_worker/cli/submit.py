"""`hivemind submit`: the tasks in task files, all checked before the first is sent."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from hivemind_worker.cli import asking, look, options, progress
from hivemind_worker.client import asynchronous, inputs, task_files
from hivemind_worker.task import errors


@click.command("submit")
@click.argument("files", nargs=-1, required=True, metavar="FILE…")
@click.option("--key", help="Makes a repeat harmless: the same key and tasks give the same ids.")
@options.of(*options.TO_POOL)
@look.options()
def command(files: Sequence[str], key: str | None, **given: Any) -> None:
    """Submit the tasks in task files, and print their ids in order.

    A file holds one task as a JSON object, a list of them, or one a line; `-` is standard input. Local files
    and folders named in a task by {"file": PATH} and {"folder": PATH} are looked for beside the task file.
    """
    shown = look.current()
    prepared = [each for name in files for each in _prepared(name)]

    async def ask(client: asynchronous.AsyncClient) -> list[str]:
        return await client.submit_prepared(prepared, key=key)

    with progress.bars(shown) as told:
        ids = asking.pool(given, ask, told)
    for task_id in ids:
        shown.object({"id": task_id}) if shown.json else shown.line(task_id)


def _prepared(name: str) -> list[inputs.Prepared]:
    """Read and check the tasks of one file; an error names the file, the task where there are several, the field."""
    stdin = name == "-"
    tasks = task_files.parse(sys.stdin.read(), name) if stdin else task_files.read(Path(name))
    base = Path() if stdin else Path(name).parent
    prepared = []
    for number, task in enumerate(tasks, 1):
        try:
            prepared.append(inputs.prepare(task, base))
        except errors.InvalidTask as error:
            which = f"{name}, task {number}" if len(tasks) > 1 else name
            raise errors.InvalidTask(f"{which}: {error.field}", error.problem) from None
    return prepared
