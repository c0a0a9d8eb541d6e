"""The end of a container: killed by its control group and by the engine, removed again and again until it is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from hivemind_worker import errors
from hivemind_worker.concurrency import backoff, stopping
from hivemind_worker.runtime import cgroup_kill, undead
from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.runtime.docker import usage
from hivemind_worker.tasks import plan

PAUSE_SECONDS: Final = 30.0
"""Longest mean gap between two tries to remove something from an engine that does not answer is half of this."""

UNDEAD_PAUSE_SECONDS: Final = 2.0
"""The same for a container that the engine cannot kill: its room is free as soon as it is gone."""


async def kill(engine: engines.Engine, container: str) -> None:
    """Kill a container from outside, by its control group where this process can see it, and by its engine.

    Raises EngineLost, engine.Refused.
    """
    await asyncio.to_thread(cgroup_kill.kill, usage.groups(container))
    await engine.kill(container)


async def remove(
    container: str,
    remove_all: Callable[[], Awaitable[None]],
    run: plan.RunPlan,
    registry: undead.Registry,
    closing: stopping.Stop,
) -> None:
    """Do ``remove_all`` until it succeeds, and say meanwhile where the engine cannot kill the container.

    Raises NodeFault as ``remove_all`` where ``closing`` comes first: what stays is removed at the next start.
    """
    pauses = backoff.Backoff(closing, cap=PAUSE_SECONDS)
    while True:
        try:
            await remove_all()
        except errors.NodeFault as error:
            if isinstance(error, engines.Refused):
                registry.add(run, f"the engine cannot remove it: {error}")
                pauses = backoff.Backoff(closing, cap=UNDEAD_PAUSE_SECONDS)
            if container:
                await asyncio.to_thread(cgroup_kill.kill, usage.groups(container))
            if not await pauses.pause():
                raise
        else:
            registry.remove(run)
            return
