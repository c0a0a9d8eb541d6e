"""Images fetched before a task asks for them: those of the owner's list, and those that the pool announces."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from hivemind_worker import errors
from hivemind_worker.concurrency import clock, supervision
from hivemind_worker.runtime.docker import images
from hivemind_worker.tasks import names
from hivemind_worker.telemetry import logs

log = logs.StructuredLogger(__name__)

MOST: Final = 50
"""References that are taken of one announcement."""

AGAIN_SECONDS: Final = 600.0
"""After so long an image that could not be had is tried again, when it is announced again."""


class TaskPreloader:
    """Preloads images one after the other, so that tasks' own pulls go first. Calls return at once."""

    def __init__(self, *, pulls: images.Images, jobs: supervision.Jobs) -> None:
        self.preloaded_images: set[str] = set()
        self._images = pulls
        self._jobs = jobs
        self._failed: dict[str, float] = {}
        self._queue: asyncio.Queue[str] = asyncio.Queue()
        self._wanted: set[str] = set()
        self._job: asyncio.Task[None] | None = None

    def preload(self, references: Iterable[str]) -> None:
        """Have these ready as soon as may be. What is no reference is left out."""
        for reference in list(references)[:MOST]:
            if reference in self._wanted | self.preloaded_images or self._failed_lately(reference):
                continue
            try:
                names.image(reference)
            except errors.InvalidTask:
                continue
            self._wanted.add(reference)
            self._queue.put_nowait(reference)
        if self._wanted and (self._job is None or self._job.done()):
            self._job = self._jobs.start("preload images", self._run())

    async def preload_image(self, image_name: str) -> bool:
        """Preload one; whether it is here now. Never raises for what a registry or an engine does."""
        try:
            await self._images.ensure(image_name, lambda _: None)
        except errors.HiveMindError as error:
            self._failed[image_name] = clock.now()
            log.log_system_event("image_preload_failed", {"image": image_name, "why": str(error)}, level="warning")
            return False
        self.preloaded_images.add(image_name)
        log.log_system_event("image_preloaded", {"image": image_name})
        return True

    async def close(self) -> None:
        """Give up what is not here yet."""
        if self._job is not None:
            self._job.cancel()
            await asyncio.wait({self._job})

    async def _run(self) -> None:
        while not self._queue.empty():
            reference = self._queue.get_nowait()
            try:
                await self.preload_image(reference)
            finally:
                self._wanted.discard(reference)

    def _failed_lately(self, reference: str) -> bool:
        failed = self._failed.get(reference)
        return failed is not None and clock.now() - failed < AGAIN_SECONDS
