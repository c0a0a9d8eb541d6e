"""What an image's Python is: asked of it in a golden container without network or secrets, never believed.

The image's author may have written that python3, so its answer goes through the grammar of `target`, is bounded in size
and time, and decides about environments of this very image alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import Final

from hivemind_worker import errors
from hivemind_worker.concurrency import supervision
from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.runtime.docker import hardening
from hivemind_worker.runtime.environments import target as targets

SECONDS: Final = 30.0
"""Longest that it may take; 0.1 s on an idle machine."""

MAX_KNOWN: Final = 200
_NO_PYTHON: Final = ("executable file not found", "no such file or directory")


class ImagePythons:
    """The Pythons of one engine's images; each image is asked once."""

    def __init__(self, *, engine: engines.Engine, jobs: supervision.Jobs, around: hardening.Surroundings) -> None:
        self._engine = engine
        self._jobs = jobs
        self._around = around
        self._known: dict[str, targets.Target] = {}

    async def read(self, image: hardening.Image) -> targets.Target:
        """What it is. Raises DependencyFailed, where that is the image's fault, EngineLost, engine.Refused."""
        if image.id not in self._known:
            found = await self._ask(image)
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[image.id] = found
        return self._known[image.id]

    async def _ask(self, image: hardening.Image) -> targets.Target:
        body = hardening.inspector(self._around, image, ("python3", "-I", "-c", targets.PROBE))
        name = f"hivemind-inspector-{uuid.uuid4().hex[:24]}"
        creating = self._jobs.start(f"create {name}", self._engine.create(name, body))
        stream: engines.Attached | None = None
        answer = b""
        try:
            container = await asyncio.shield(creating)
            stream = await self._engine.attach(container)
            with contextlib.suppress(TimeoutError):  # what it has not said by then is missing in its answer
                async with asyncio.timeout(SECONDS):
                    await self._start(container, image)
                    while len(answer) < targets.MAX_ANSWER and (data := await stream.read()):
                        answer += data
            return targets.parse(answer, image.machine)
        except errors.DependencyFailed as failed:
            words = stream.complaint.decode(errors="replace").strip().splitlines() if stream is not None else []
            if not answer and words:
                plain = "".join(each if each.isprintable() else " " for each in words[-1])
                raise errors.DependencyFailed(f"{failed}: {plain[:300]}") from None
            raise
        finally:
            self._jobs.start(f"remove {name}", self._remove(name, creating, stream))

    async def _start(self, container: str, image: hardening.Image) -> None:
        try:
            await self._engine.start(container)
        except engines.Refused as refused:
            if any(word in refused.said.lower() for word in _NO_PYTHON):
                reason = (
                    f"the task has requirements, and its image ({image.digest[:19]}…) has no python3 to install for"
                )
                raise errors.DependencyFailed(reason) from refused
            raise

    async def _remove(self, name: str, creating: asyncio.Task[str], stream: engines.Attached | None) -> None:
        if stream is not None:
            await stream.close()
        await asyncio.wait({creating})
        await self._engine.remove(name)
