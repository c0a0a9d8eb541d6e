"""hivemind-init's way into containers: a volume of ours, filled by archive, named by its content, verified once."""

from __future__ import annotations

import asyncio
import io
import tarfile

from hivemind_worker import errors
from hivemind_worker.concurrency import clock
from hivemind_worker.runtime.capsule import init
from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.runtime.docker import hardening, own_image

_FOLDER = hardening.PROGRAM_FOLDER
_NAME = "hivemind-init"
_MOST = 4 * 1024 * 1024  # the program has < 100 KB
_OTHERS_SECONDS = 15.0  # another node needs 0.1 s for it


def volume_name(machine: str) -> str:
    """The volume's name says which program it holds; all nodes of an engine share it, as it never changes."""
    return f"hivemind-init-{init.sha256(machine)[:32]}"


class Program:
    """The program of one machine type at one engine: `ensure` returns the volume that holds it."""

    def __init__(self, *, engine: engines.Engine, node_id: str, boot_id: str) -> None:
        self._engine = engine
        self._node_id = node_id
        self._boot_id = boot_id
        self._ready: dict[str, str] = {}
        self._doubted = False
        self._lock = asyncio.Lock()

    async def ensure(self, image: hardening.Image) -> str:
        """Return the volume's name, made, filled and verified.

        That takes 120 ms and is done once per engine: a second, empty volume made afterwards says that it was. A
        container of our own image is created for it, never started, and removed. Raises ImageUnavailable when there
        is no program for the image's machine, EngineLost, engine.Refused.
        """
        async with self._lock:
            if image.machine not in self._ready:
                self._ready[image.machine] = await self._fill(image)
            return self._ready[image.machine]

    def forget(self) -> None:
        """Something went wrong with a container: look into the volume again next time."""
        self._ready.clear()
        self._doubted = True

    async def _fill(self, image: hardening.Image) -> str:
        try:
            volume = volume_name(image.machine)
        except LookupError as error:
            raise errors.ImageUnavailable(str(error)) from error
        version = f"{hardening.LABEL}.capsule-version={init.sha256(image.machine)}"
        known = {found["Name"] for found in await self._engine.volumes(version)}
        if known >= {volume, f"{volume}-whole"} and not self._doubted:
            return volume
        content = await asyncio.to_thread(init.binary_path(image.machine).read_bytes)
        # No node's label: what all share is nobody's leftover.
        labels = {hardening.ROLE_LABEL: "program", **dict([version.split("=")])}
        await self._engine.create_volume(volume, labels)
        filler = await self._filler(volume)
        try:
            if await self._holds(filler) != content:
                await self._engine.put_archive(filler, _FOLDER, _tar(content))
                if await self._holds(filler) != content:
                    raise errors.EngineLost(f"volume {volume} does not hold what was put there; remove it")
        finally:
            await self._engine.remove(filler)
        await self._engine.create_volume(f"{volume}-whole", labels)
        self._doubted = False
        return volume

    async def _filler(self, volume: str) -> str:
        """The container that gives access to the volume; its one name makes it a lock between all who would fill it."""
        around = hardening.Surroundings(self._node_id, self._boot_id, volume, "")
        image = await own_image.ensure(self._engine)  # a task's could have a link in the volume's place
        body = hardening.filler(around, image.id, {volume: _FOLDER})
        name = f"hivemind-filler-{volume.rpartition('-')[2]}"
        deadline = clock.now() + _OTHERS_SECONDS
        while True:
            try:
                return await self._engine.create(name, body)
            except engines.Refused as refused:
                if refused.status != engines.CONFLICT:
                    raise
            if clock.now() > deadline:
                await self._engine.remove(name)  # whoever made it has died
            await asyncio.sleep(0.05)

    async def _holds(self, filler: str) -> bytes | None:
        try:
            found = await self._engine.get_archive(filler, f"{_FOLDER}/{_NAME}", _MOST)
        except engines.NotThere:
            return None
        with tarfile.open(fileobj=io.BytesIO(found)) as tar:
            member = tar.next()
            file = (
                tar.extractfile(member)
                if member is not None and member.isreg() and member.mode & 0o777 == 0o555
                else None
            )
            return None if file is None else file.read()


def _tar(content: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        entry = tarfile.TarInfo(_NAME)
        entry.size, entry.mode = len(content), 0o555
        tar.addfile(entry, io.BytesIO(content))
    return made.getvalue()
