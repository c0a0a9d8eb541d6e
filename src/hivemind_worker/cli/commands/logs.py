"""`hivemind logs`: what a task wrote, each stream to its own; byte for byte, but on a terminal."""

from __future__ import annotations

from typing import Any

import click

from hivemind_worker.cli import asking, look, options, streams
from hivemind_worker.client import asynchronous


@click.command("logs")
@click.argument("task_id", metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on until the task has ended.")
@click.option("--attempt", default=0, type=click.IntRange(min=0), help="Which attempt's; otherwise the newest's.")
@streams.option
@options.of(*options.TO_POOL)
@look.options()
def command(task_id: str, follow: bool, attempt: int, raw: bool, **given: Any) -> None:  # noqa: FBT001  (options)
    """Show what a task wrote: its standard output here, its standard error on standard error.

    A terminal is shown control characters as text, as they could change its title or your clipboard; --raw sends them.
    Pipes and files get every byte as it is.
    """
    writer = streams.Writer(look.current(), raw=raw)

    async def ask(client: asynchronous.AsyncClient) -> None:
        async for output in client.logs(task_id, follow=follow, attempt=attempt):
            writer.write(output)

    try:
        asking.pool(given, ask)
    finally:
        writer.finish()
