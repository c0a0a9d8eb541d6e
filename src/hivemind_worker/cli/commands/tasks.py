"""`hivemind tasks`: the tasks there are, newest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from hivemind_worker.cli import asking, look, options, words
from hivemind_worker.client import asynchronous, shapes
from hivemind_worker.tasks import state


@click.command("tasks")
@click.option("--status", "states", multiple=True, type=click.Choice([str(each) for each in state.TaskState]),
              help="Only tasks in this state; may be given several times.")  # fmt: skip
@click.option("--type", "kind", default="", help="Only tasks of this type.")
@click.option("--node", "node_id", default="", help="Only tasks of this node.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Only tasks with this label.")
@click.option("--limit", default=1000, show_default=True, type=click.IntRange(min=1), help="At most so many.")
@options.of(*options.TO_POOL)
@look.options()
def command(states: Sequence[str], kind: str, node_id: str, labels: Sequence[str], limit: int, **given: Any) -> None:
    """List tasks, newest first."""
    shown = look.current()
    wanted = asynchronous.Filter(
        tuple(state.TaskState(each) for each in states), words.pairs("--label", labels), node_id, kind
    )

    async def ask(client: asynchronous.AsyncClient) -> list[shapes.Task]:
        found: list[shapes.Task] = []
        async for task in client.tasks(wanted, page=min(limit, 500)):
            found.append(task)
            if len(found) == limit:
                break
        return found

    tasks = asking.pool(given, ask)
    if shown.json:
        for task in tasks:
            shown.object(task.as_json())
        return
    if not tasks:
        shown.note("no task is like that" if states or kind or node_id or labels else "the pool has no tasks yet")
        return
    heads = ("id", "status", "reason", "type", "seconds", "node", "attempt", "uses")
    shown.table(heads, [_row(task) for task in tasks], prose=("uses",))


def _row(task: shapes.Task) -> tuple[str, ...]:
    return (
        task.id,
        str(task.status),
        str(task.reason or ""),
        task.type,
        words.seconds(task),
        task.node_id,
        str(task.attempt or ""),
        words.usage(task.usage),
    )
