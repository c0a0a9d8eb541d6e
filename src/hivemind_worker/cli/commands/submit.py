"""`hivemind submit`: the tasks in task files, all checked before the first is sent."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from hivemind_worker import errors
from hivemind_worker.cli import asking, describing, look, options, progress
from hivemind_worker.client import asynchronous, inputs, task_files


@click.command("submit")
@click.argument("files", nargs=-1, required=True, metavar="FILE…")
@click.option("--key", help="Makes a repeat harmless: the same key and tasks give the same ids.")
@click.option("--secret", "secrets", multiple=True, metavar="NAME[=@FILE|=-]",
              help="A secret of each task: from that variable here, a file, or standard input.")  # fmt: skip
@options.of(*options.TO_POOL)
@look.options()
def command(files: Sequence[str], key: str | None, secrets: Sequence[str], **given: Any) -> None:
    """Submit the tasks in task files, and print their ids in order.

    A file holds one task as a JSON object, a list of them, or one a line; `-` is standard input. Local files
    and folders named in a task by {"file": PATH} and {"folder": PATH} are looked for beside the task file.
    """
    shown = look.current()
    if "-" in files and any(each.endswith("=-") for each in secrets):
        raise click.UsageError("standard input is either a task file or a secret, not both")
    added = describing.secrets(secrets)
    prepared = [each for name in files for each in _prepared(name, added)]

    async def ask(client: asynchronous.AsyncClient) -> list[str]:
        return await client.submit_prepared(prepared, key=key)

    with progress.bars(shown) as told:
        ids = asking.pool(given, ask, told)
    for task_id in ids:
        shown.object({"id": task_id}) if shown.json else shown.line(task_id)


def _prepared(name: str, secrets: Mapping[str, object]) -> list[inputs.Prepared]:
    """Read and check the tasks of one file; an error names the file, the task where there are several, the field."""
    stdin = name == "-"
    tasks = task_files.parse(sys.stdin.read(), name) if stdin else task_files.read(Path(name))
    base = Path() if stdin else Path(name).parent
    prepared = []
    for number, task in enumerate(tasks, 1):
        try:
            prepared.append(inputs.prepare(_with(task, secrets), base))
        except errors.InvalidTask as error:
            which = f"{name}, task {number}" if len(tasks) > 1 else name
            raise errors.InvalidTask(f"{which}: {error.field}", error.problem) from None
    return prepared


def _with(task: Mapping[str, object], secrets: Mapping[str, object]) -> Mapping[str, object]:
    own = task.get("secrets")
    if not secrets or not isinstance(own, Mapping | None):
        return task
    return {**task, "secrets": {**(own or {}), **secrets}}
