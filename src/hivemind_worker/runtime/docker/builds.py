"""One package built from source, in a golden container of the task's image: no network or secret, the task's user."""

from __future__ import annotations

import asyncio
import uuid

from hivemind_worker.concurrency import supervision
from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.runtime.docker import hardening
from hivemind_worker.runtime.environments import building, making
from hivemind_worker.tasks import outcome, spec


async def run(
    engine: engines.Engine,
    jobs: supervision.Jobs,
    around: hardening.Surroundings,
    image: hardening.Image,
    request: bytes,
) -> bytes:
    """Run the front end of a build with `request` on its standard input; all that it answers.

    Raises DependencyFailed with its last words, EngineLost, engine.Refused.
    """
    limits = outcome.Limits(building.MEMORY, 4 * spec.CPU_PERIOD, 0.0, building.DISK, building.PROCESSES)
    argv = (f"{making.ENVIRONMENT}/bin/python3", "-I", "-c", building.PROGRAM)
    body = hardening.inspector(around, image, argv, limits)
    name = f"hivemind-inspector-{uuid.uuid4().hex[:24]}"
    creating = jobs.start(f"create {name}", engine.create(name, body))
    stream: engines.Attached | None = None
    try:
        container = await asyncio.shield(creating)
        stream = await engine.attach(container)
        await engine.start(container)
        return await _talk(stream, request)
    finally:
        jobs.start(f"remove {name}", _remove(engine, name, creating, stream))


async def _talk(stream: engines.Attached, request: bytes) -> bytes:
    writing = asyncio.create_task(stream.write(request), name="feed build")
    try:
        answer = await building.read_all(stream.read)
    finally:
        writing.cancel()
        await asyncio.wait({writing})
    if not answer:
        raise building.failed(stream.complaint.decode(errors="replace"))
    return answer


async def _remove(
    engine: engines.Engine, name: str, creating: asyncio.Task[str], stream: engines.Attached | None
) -> None:
    if stream is not None:
        await stream.close()
    await asyncio.wait({creating})
    await engine.remove(name)
