"""What earlier lives of this node left at the driver that it uses no more, swept by mark beside a worker.

A node that went from sandboxes to containers, or back, has nobody else who would look there. What single commands left
that were killed is swept with it, whatever the driver, and beside a single command too.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hivemind_worker import errors
from hivemind_worker.concurrency import periodic, stopping
from hivemind_worker.runtime.docker import command_records, leftovers
from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.runtime.sandbox import life, outliving
from hivemind_worker.telemetry import logs

SWEEP_SECONDS: Final = 60.0
"""Between two sweeps, as of the driver in use: an engine may have been away at the first."""

log = logs.StructuredLogger(__name__)


@dataclass(frozen=True, slots=True)
class Node:
    """The node that works here now. ``isolation`` names the driver that is in use."""

    isolation: str
    node_id: str
    """Empty for a single command, which has no node to return to."""
    docker_host: str
    state_folder: Path
    """Where sandboxes were held for the node to return to."""


def loop(node: Node, cache: Path) -> Callable[[stopping.Stop], Awaitable[None]]:
    """Return what sweeps now and every minute until its stop.

    ``cache`` is the user's cache folder, with `containers.command_records`.
    """
    return functools.partial(_sweep_repeatedly, node, cache)


async def _sweep_repeatedly(node: Node, cache: Path, stop: stopping.Stop) -> None:
    async for _ in periodic.every(SWEEP_SECONDS, stop):
        # An engine that hangs must not hold up the end of a command.
        with contextlib.suppress(stopping.Stopped):
            await stop.until(stopping.StopLevel.DRAIN, _sweep(node, cache))


async def _sweep(node: Node, cache: Path) -> None:
    if node.node_id and node.isolation == "docker":
        await sweep_sandboxes(node.node_id)
        # What held them bears no mark, but has a socket in the folder.
        await outliving.dismiss(node.state_folder)
    elif node.node_id:
        # No engine, or none that answers: a container of ours there is found when one does.
        with contextlib.suppress(errors.NodeFault):
            await sweep_containers(node.node_id, node.docker_host)
    await sweep_sandboxes(life.one_command())
    for removed in await command_records.sweep(cache):
        _log_removed(removed)


async def sweep_sandboxes(node_id: str) -> None:
    """End the sandboxes of lives of this node that are over, those that were held for it to return to included."""
    ended = await asyncio.to_thread(life.sweep, node_id)
    if ended := (*ended, *await asyncio.to_thread(life.sweep_abandoned)):
        log.log_system_event("strays_ended", {"pids": list(ended)}, level="warning")


async def sweep_containers(node_id: str, docker_host: str) -> None:
    """Remove the node's containers and volumes. Raises :class:`errors.NodeFault` where the engine does not answer."""
    engine = engines.Engine(docker_host)
    try:
        await engine.connect()
        removed = await leftovers.remove(engine, node_id, all_boots=True)
    finally:
        await engine.close()
    _log_removed(removed)


def _log_removed(removed: leftovers.Removed) -> None:
    if removed.containers or removed.volumes:
        details = {"containers": list(removed.containers), "volumes": list(removed.volumes)}
        log.log_system_event("stray_containers_removed", details, level="warning")
