"""Workspaces too large for memory: volumes of ours, made ahead a few at a time, each for one attempt only.

The engine makes a volume's folder for root alone; the one way to give it to the task's user without starting anything
is an archive unpacked into a container that mounts it. One such container serves several volumes: 10 ms each then.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import io
import tarfile
import uuid
from collections.abc import Mapping

from hivemind_worker import errors
from hivemind_worker.concurrency import supervision
from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.runtime.docker import hardening, own_image
from hivemind_worker.tasks import plan

AHEAD = 4
"""Volumes made at once; empty ones cost the engine a folder each."""


class Workspaces:
    """Volumes that are empty and belong to the task's user."""

    def __init__(self, *, engine: engines.Engine, jobs: supervision.Jobs, node_id: str, boot_id: str) -> None:
        self._engine = engine
        self._jobs = jobs
        self._node_id = node_id
        self._boot_id = boot_id
        self._spare: collections.deque[str] = collections.deque()
        self._lock = asyncio.Lock()
        self._counting: asyncio.Task[Mapping[str, int]] | None = None

    async def take(self) -> str:
        """Return a volume's name; it is the caller's to `give_back`. Raises EngineLost, engine.Refused."""
        async with self._lock:
            while not self._spare:
                # Goes on when we are cancelled: what is half made when its maker goes would be nobody's.
                await asyncio.shield(self._jobs.start("make workspaces", self._make()))
            return self._spare.popleft()

    def prepare(self) -> None:
        """Make new ones in the background when the last but one is taken."""
        if len(self._spare) <= 1 and not self._lock.locked():
            self._jobs.start("make workspaces", self._refill())

    async def size(self, volume: str) -> int:
        """How many bytes it has on disk. One counting serves all who ask meanwhile. Raises EngineLost."""
        if self._counting is None or self._counting.done():
            self._counting = self._jobs.start("count volumes", self._engine.volume_sizes())
        return (await asyncio.shield(self._counting)).get(volume, 0)

    async def give_back(self, volume: str) -> None:
        """Remove a volume that was used; its container is gone already."""
        await self._engine.remove_volume(volume)

    async def close(self) -> None:
        """Remove those that were never used; none is made any more."""
        while self._spare:
            await self._engine.remove_volume(self._spare.popleft())

    async def _refill(self) -> None:
        async with self._lock:
            if len(self._spare) <= 1:
                await self._make()

    async def _make(self) -> None:
        volumes = [f"hivemind-workspace-{uuid.uuid4().hex}" for _ in range(AHEAD)]
        labels = {
            hardening.NODE_LABEL: self._node_id,
            hardening.ROLE_LABEL: "workspace",
            f"{hardening.LABEL}.boot-id": self._boot_id,
        }
        name = f"hivemind-filler-{uuid.uuid4().hex[:24]}"
        try:
            await asyncio.gather(*(self._engine.create_volume(volume, labels) for volume in volumes))
            await self._give_to_user(name, volumes)
        except BaseException:
            with contextlib.suppress(errors.NodeFault):  # what stays is removed by a later look
                await asyncio.gather(*(self._engine.remove_volume(volume) for volume in volumes))
            raise
        self._spare.extend(volumes)

    async def _give_to_user(self, name: str, volumes: list[str]) -> None:
        image = await own_image.ensure(self._engine)  # a task's could turn the folders into links
        around = hardening.Surroundings(self._node_id, self._boot_id, "", "")
        folders = {volume: f"{plan.WORKSPACE}/{at}" for at, volume in enumerate(volumes)}
        try:
            filler = await self._engine.create(name, hardening.filler(around, image.id, folders))
            await self._engine.put_archive(filler, plan.WORKSPACE, _folders(len(volumes)))
        finally:
            await self._engine.remove(name)


def _folders(count: int) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for at in range(count):
            entry = tarfile.TarInfo(str(at))
            entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, 0o700, hardening.USER, hardening.USER
            tar.addfile(entry)
    return made.getvalue()
