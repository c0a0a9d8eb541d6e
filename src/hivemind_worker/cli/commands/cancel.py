"""`hivemind cancel`: stop tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from hivemind_worker.cli import asking, look, options
from hivemind_worker.client import asynchronous
from hivemind_worker.tasks import state


@click.command("cancel")
@click.argument("ids", nargs=-1, required=True, metavar="ID…")
@options.of(*options.TO_POOL)
@look.options()
def command(ids: Sequence[str], **given: Any) -> None:
    """Stop tasks, and print the state of each; one that has ended stays as it is."""
    shown = look.current()

    async def ask(client: asynchronous.AsyncClient) -> list[state.TaskState]:
        return await client.cancel(ids)

    for task_id, now in zip(ids, asking.pool(given, ask), strict=True):
        if shown.json:
            shown.object({"id": task_id, "status": str(now)})
        else:
            shown.line(f"{task_id} {now}" if now in state.ENDED else f"{task_id} {now}, and will be stopped")
