"""`hivemind retry`: ended tasks anew, as new tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from hivemind_worker.cli import asking, look, options
from hivemind_worker.client import asynchronous


@click.command("retry")
@click.argument("ids", nargs=-1, required=True, metavar="ID…")
@options.of(*options.TO_POOL)
@look.options()
def command(ids: Sequence[str], **given: Any) -> None:
    """Submit ended tasks anew, and print the new ids in order."""
    shown = look.current()

    async def ask(client: asynchronous.AsyncClient) -> list[str]:
        return await client.retry(ids)

    for task_id in asking.pool(given, ask):
        shown.object({"id": task_id}) if shown.json else shown.line(task_id)
