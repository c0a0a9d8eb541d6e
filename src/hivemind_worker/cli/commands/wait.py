"""`hivemind wait`: until tasks have ended; the exit code tells how."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from hivemind_worker.cli import asking, exit_codes, look, options, words
from hivemind_worker.client import asynchronous, shapes


@click.command("wait")
@click.argument("ids", nargs=-1, required=True, metavar="ID…")
@click.option(
    "--timeout", "seconds", type=click.FloatRange(min=0), help="Give up after so many seconds (exit code 75)."
)
@options.of(*options.TO_POOL)
@look.options()
def command(ids: Sequence[str], seconds: float | None, **given: Any) -> None:
    """Wait until tasks have ended, and print each when it has.

    With one task the exit code is the task's own, as with `hivemind run`; with several it is 0 if all completed.
    """
    shown = look.current()

    async def ask(client: asynchronous.AsyncClient) -> tuple[shapes.Task, ...]:
        return await client.wait(list(dict.fromkeys(ids)), seconds, tell)

    def tell(task: shapes.Task) -> None:
        if not shown.json:
            shown.line(f"{task.id} {words.ending(task)}")
            for line in words.not_taken(task):
                shown.note(f"{task.id} {line}")

    tasks = asking.pool(given, ask)
    if shown.json:  # for programs, which like an order that does not depend on chance
        for task in tasks:
            shown.object(task.as_json())
    sys.exit(exit_codes.of_tasks(tasks))
