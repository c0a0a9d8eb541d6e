"""One package built from source, in a sandbox as fenced as a task's: no network, of the host only its programs."""

from __future__ import annotations

import asyncio
import os
from typing import Final

from hivemind_worker.concurrency import supervision
from hivemind_worker.runtime.environments import building, making
from hivemind_worker.runtime.sandbox import launch, limits, probe, process
from hivemind_worker.tasks import outcome
from hivemind_worker.units import MIB

_SCRATCH: Final = 64 * MIB
_CPU: Final = 100_000 * (os.cpu_count() or 1)


async def run(ground: probe.Ground, request: bytes, jobs: supervision.Jobs) -> bytes:
    """Run the front end of a build with `request` on its standard input; all that it answers.

    Raises DependencyFailed with its last words, IsolationMissing.
    """
    work = launch.Making((f"{making.ENVIRONMENT}/bin/python3", "-I", "-c", building.PROGRAM))
    room = launch.Room(building.DISK, _SCRATCH)
    group = limits.Group.planned(ground.groups) if ground.groups.folders else None
    begin = process.start(
        ground.furnishing, room, ground.machine, bwrap=ground.bwrap, drop_to=ground.drop_to, making=work
    )
    starting = jobs.start("start build", begin)
    try:
        if group is not None:
            await group.make(outcome.Limits(building.MEMORY, _CPU, 0.0, building.DISK, building.PROCESSES))
        sandbox = await asyncio.shield(starting)
        if group is not None:
            await group.add(sandbox.pid)
        sandbox.go()
        return await _talk(sandbox, request)
    finally:
        await asyncio.shield(jobs.start("end build", _end(starting, group)))


async def _talk(sandbox: process.Sandbox, request: bytes) -> bytes:
    writing = asyncio.create_task(sandbox.write(request), name="feed build")
    try:
        answer = await building.read_all(sandbox.read)
    finally:
        writing.cancel()
        await asyncio.wait({writing})
    if not answer:
        raise building.failed(await sandbox.last_words())
    return answer


async def _end(starting: asyncio.Task[process.Sandbox], group: limits.Group | None) -> None:
    await asyncio.wait({starting})
    if not starting.cancelled() and starting.exception() is None:
        await starting.result().close()
    if group is not None:
        await group.remove()
