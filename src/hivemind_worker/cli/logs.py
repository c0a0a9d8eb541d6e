"""`hivemind logs`: what a task wrote, byte for byte, each stream to its own."""

from __future__ import annotations

from typing import Any

import click

from hivemind_worker.cli import asking, look, options, streams
from hivemind_worker.client import asynchronous


@click.command("logs")
@click.argument("task_id", metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on until the task has ended.")
@click.option("--attempt", default=0, type=click.IntRange(min=0), help="Which attempt's; otherwise the newest's.")
@options.of(*options.TO_POOL)
@look.options()
def command(task_id: str, follow: bool, attempt: int, **given: Any) -> None:  # noqa: FBT001  (an option)
    """Show what a task wrote: its standard output here, its standard error on standard error."""
    shown = look.current()

    async def ask(client: asynchronous.AsyncClient) -> None:
        async for output in client.logs(task_id, follow=follow, attempt=attempt):
            streams.write(shown, output)

    asking.pool(given, ask)
