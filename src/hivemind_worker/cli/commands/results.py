"""`hivemind results`: the result files of a task, listed or fetched."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from hivemind_worker.cli import asking, exit_codes, look, options, progress, words
from hivemind_worker.client import asynchronous, shapes
from hivemind_worker.tasks import outcome
from hivemind_worker.telemetry import untrusted


@click.command("results")
@click.argument("task_id", metavar="ID")
@click.argument("names", nargs=-1, metavar="[NAME…]")
@click.option("-o", "--output", "directory", metavar="DIR", help="Fetch the files into this folder.")
@options.of(*options.TO_POOL)
@look.options()
def command(task_id: str, names: Sequence[str], directory: str | None, **given: Any) -> None:
    """List or fetch the result files of a task: all, or those named; with -o they are fetched.

    Each file appears whole and checked or not at all; run it again to go on where it broke off.
    """
    shown = look.current()

    async def ask(client: asynchronous.AsyncClient) -> tuple[tuple[outcome.ResultFile, ...], shapes.Downloaded]:
        files = await client.results(task_id)
        for note in _notes(await client.task(task_id), files):
            shown.note(note)
        if names:
            files = tuple(file for file in files if file.name in names)
        if directory is None:
            return files, shapes.Downloaded()
        return files, await client.download(task_id, directory, names or None)

    with progress.bars(shown) as told:
        files, paths = asking.pool(given, ask, told)
    if shown.json:
        for file in files:
            shown.object(shapes.result_as_json(file))
    elif directory is not None:
        for path in paths:
            shown.line(untrusted.line(str(path)))
    elif files:
        rows = [(file.name, words.size(file.artifact.size), file.artifact.sha256) for file in files]
        shown.table(("name", "size", "sha256"), rows)
    for skipped in paths.skipped:
        look.report(f"hivemind: not fetched: {untrusted.line(skipped.why)}")
    if paths.skipped:
        sys.exit(exit_codes.FAILURE)


def _notes(task: shapes.Task, files: Sequence[outcome.ResultFile]) -> list[str]:
    """What the list of a task's results does not say: that there are none, and what was not taken."""
    none = [] if files else [f"task {task.id} has {'no result files' if task.ended else 'not ended'}"]
    return none + words.not_taken(task)
