"""The end of a sandbox: killed by its control groups and its first process, again and again until it is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final, Protocol

from hivemind_worker import errors
from hivemind_worker.concurrency import clock, stopping
from hivemind_worker.runtime import cgroup_kill, undead
from hivemind_worker.runtime.sandbox import limits, outliving, pidfds
from hivemind_worker.tasks import plan
from hivemind_worker.telemetry import logs

log = logs.StructuredLogger(__name__)

PAUSE_SECONDS: Final = 1.0
"""Between two kills."""

UNDEAD_SECONDS: Final = 2.0
"""A sandbox that lives so long after it was killed is undead; a machine under load took 0.3 s for a fork bomb."""


class Sandbox(Protocol):
    """What is needed of one, whoever holds it."""

    @property
    def pidfds(self) -> tuple[int, ...]:
        """Its first processes."""

    async def kill(self) -> None:
        """Kill it by its first processes."""


async def kill(sandbox: Sandbox, group: limits.Group | None) -> None:
    """Kill it by its control groups, where it has some, and by its first process, with which all others end."""
    if group is not None:
        await asyncio.to_thread(cgroup_kill.kill, group.folders)
    await sandbox.kill()


async def end(
    sandbox: Sandbox,
    group: limits.Group | None,
    run: plan.RunPlan,
    registry: undead.Registry,
    closing: stopping.Stop,
) -> None:
    """Kill it until it is gone, and say meanwhile where it does not die.

    Raises :class:`errors.CapsuleFault` where ``closing`` comes first: its mark tells the next process of this node.
    """
    began = clock.now()
    await sandbox.kill()
    while not await pidfds.ended(sandbox.pidfds, PAUSE_SECONDS):
        if clock.now() - began > UNDEAD_SECONDS:
            registry.add(run, "its first process was killed, and does not end")
        if closing.requested and clock.now() - began > UNDEAD_SECONDS:
            raise errors.CapsuleFault("its sandbox cannot be killed, and the worker ends")
        await kill(sandbox, group)
    registry.remove(run)


async def drop_unclaimed(lasting: outliving.Held, claimed: Collection[str]) -> bool:
    """End the sandboxes of an earlier worker that nobody goes on with; False, and said, where that cannot be done."""
    try:
        for name in await lasting.open():
            if name not in claimed:
                await lasting.ask({"do": "drop", "name": name})
    except (errors.CapsuleFault, OSError) as error:
        log.log_system_event("sandboxes_end_with_us", {"why": str(error)}, level="warning")
        return False
    return True
