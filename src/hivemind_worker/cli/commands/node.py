"""`hivemind node drain` and `hivemind node resume`: whether a node is given tasks."""

from __future__ import annotations

from typing import Any

import click

from hivemind_worker.cli import asking, look, options
from hivemind_worker.client import asynchronous


@click.group("node")
def command() -> None:
    """Drain or resume a worker node."""


@command.command("drain")
@click.argument("node_id", metavar="ID")
@options.of(*options.TO_POOL)
@look.options(json=False)
def drain(node_id: str, **given: Any) -> None:
    """Give a node no further tasks; what it runs goes on."""

    async def ask(client: asynchronous.AsyncClient) -> None:
        await client.drain(node_id)

    asking.pool(given, ask)
    look.current().note(f"{node_id} gets no further tasks; `hivemind node resume {node_id}` takes that back")


@command.command("resume")
@click.argument("node_id", metavar="ID")
@options.of(*options.TO_POOL)
@look.options(json=False)
def resume(node_id: str, **given: Any) -> None:
    """Give a drained node tasks again."""

    async def ask(client: asynchronous.AsyncClient) -> None:
        await client.resume(node_id)

    asking.pool(given, ask)
    look.current().note(f"{node_id} gets tasks again")
