"""`hivemind nodes`: the worker nodes of a pool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from hivemind_worker.cli import asking, look, options, words
from hivemind_worker.client import asynchronous, shapes
from hivemind_worker.tasks import resources


@click.command("nodes")
@options.of(*options.TO_POOL)
@look.options()
def command(**given: Any) -> None:
    """List the worker nodes: what each has, what is free, what it runs."""
    shown = look.current()

    async def ask(client: asynchronous.AsyncClient) -> tuple[shapes.Node, ...]:
        return await client.nodes()

    nodes = asking.pool(given, ask)
    if shown.json:
        for node in nodes:
            shown.object(node.as_json())
        return
    if not nodes:
        shown.note("no worker has come to this pool yet: `hivemind worker` starts one")
        return
    heads = ("node", "status", "tasks", "cores free", "memory free", "disk free", "machine", "version", "message")
    shown.table(heads, [_row(node) for node in nodes], prose=("message",))


def _row(node: shapes.Node) -> tuple[str, ...]:
    return (
        node.node_id,
        f"{node.status}, draining" if node.draining and node.status != "draining" else node.status,
        str(len(node.attempts)),
        f"{node.free.cpu_cores:g} of {node.capacity.cpu_cores:g}",
        _of(node.free, node.capacity, "memory_bytes"),
        _of(node.free, node.capacity, "disk_bytes"),
        _machine(node.readings),
        node.version,
        "; ".join(part for part in (node.message, _CUT if node.truncated else "") if part),
    )


_CUT = "a message has no room for all that this node says: some is left out here"


def _machine(readings: Mapping[str, float]) -> str:
    """How busy the machine is, whatever with."""
    said = [f"{readings[name]:.0f}% {word}" for name, word in _PERCENTS.items() if name in readings]
    return ", ".join(said)


_PERCENTS = {"cpu_percent": "cpu", "memory_percent": "memory", "disk_percent": "disk"}


def _of(free: resources.Resources, capacity: resources.Resources, amount: str) -> str:
    return words.share(getattr(free, amount), getattr(capacity, amount))
