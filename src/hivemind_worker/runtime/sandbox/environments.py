"""Requirements → a folder that has them, seen read-only in sandboxes: found in the cache, else made once.

A fetcher of ours unpacks it; it is moved to its own name when it is whole. Who uses one holds a lock on it; what nobody
has locked may be removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fcntl
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hivemind_worker import errors
from hivemind_worker.concurrency import sharing, supervision
from hivemind_worker.filesystem import private_dir
from hivemind_worker.runtime.environments import answers as answering
from hivemind_worker.runtime.environments import building, making, staging
from hivemind_worker.runtime.environments import sources as sourcing
from hivemind_worker.runtime.environments import target as targets
from hivemind_worker.runtime.sandbox import builds, launch, probe, process, reach, workshop
from hivemind_worker.units import MIB

PROBE_SECONDS: Final = 30.0
"""Longest that the machine's Python may take to say what it is; 50 ms usually."""


@dataclasses.dataclass(slots=True)
class Environment:
    """One that is there, held until `release`."""

    key: str
    folder: Path
    lock: int

    def furnish(self, furnishing: launch.Furnishing) -> launch.Furnishing:
        """The same, with this environment's python3 first in PATH."""
        return dataclasses.replace(
            furnishing,
            elsewhere={**furnishing.elsewhere, making.FOLDER: str(self.folder)},
            path=f"{making.ENVIRONMENT}/bin:{furnishing.path}",
        )

    def release(self) -> None:
        """Nobody of ours is in it any more."""
        lock, self.lock = self.lock, -1
        if lock >= 0:
            os.close(lock)


class Environments:
    """The environments of one folder, which several processes may share. `open` first."""

    def __init__(
        self, *, folder: Path, sources: sourcing.Sources, jobs: supervision.Jobs, answers: answering.Answers
    ) -> None:
        self._folder = folder / "environments"
        self._cache = folder
        self._sources = sources
        self._jobs = jobs
        self._answers = answers
        self._builds: sharing.Shared[str] = sharing.Shared("environments")
        self._few = asyncio.Semaphore(making.AT_ONCE)

    async def ensure(self, ground: probe.Ground, requirements: tuple[str, ...], tell: sharing.Tell) -> Environment:
        """Return one with these packages, made first unless it is there; `tell` is told how far that is.

        Raises DependencyFailed with the resolver's words, BadSettings, OSError.
        """
        if not ground.python:
            raise errors.DependencyFailed("the task has requirements, and this node's sandboxes have no python3")
        wheels = await asyncio.to_thread(self._sources.wheel_files)
        offered = await asyncio.to_thread(self._sources.offered, wheels)
        request_key = sourcing.asked_key(await asyncio.to_thread(_base, ground), requirements, offered, making.recipe())
        while True:
            key, fresh = await asyncio.to_thread(self._answered, request_key, requirements)
            if not key or not fresh:
                try:
                    key = await self._builds.get(
                        request_key, lambda say: self._build(ground, requirements, request_key, say), tell
                    )
                except errors.DependencyFailed as failed:
                    if not key:
                        raise
                    tell(making.stale(failed))
            if (environment := await asyncio.to_thread(self._hold, key)) is not None:
                return environment

    async def close(self) -> None:
        """End the builds that are under way."""
        await self._builds.close()

    def _answered(self, request_key: str, requirements: tuple[str, ...]) -> tuple[str, bool]:
        """The key of one that answers what is asked, and whether its names were resolved lately enough."""
        answer = self._answers.get(request_key)
        if answer is None or not (self._folder / answer.key / staging.ABOUT).exists():
            return "", False
        return answer.key, self._sources.fresh(answer.resolved, requirements)

    def _hold(self, key: str) -> Environment | None:
        folder = self._folder / key
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        fcntl.flock(lock, fcntl.LOCK_SH)
        try:
            os.utime(folder / staging.ABOUT)  # its last use
        except OSError:  # its removal had begun
            os.close(lock)
            return None
        return Environment(key, folder, lock)

    async def _build(
        self, ground: probe.Ground, requirements: tuple[str, ...], request_key: str, say: sharing.Tell
    ) -> str:
        say(f"making an environment with {making.listed(requirements)}")
        await asyncio.to_thread(self._check_reach, ground)
        try:
            async with self._few, asyncio.timeout(self._sources.seconds):
                key = await self._make(ground, requirements, say)
        except TimeoutError:
            raise making.too_late(self._sources.seconds) from None
        await asyncio.to_thread(self._answers.note, request_key, key)
        return key

    async def _make(
        self, ground: probe.Ground, requirements: tuple[str, ...], say: sharing.Tell, *, nested: bool = False
    ) -> str:
        """Make one, whose key it returns. `nested`: for a build, which takes no builds itself."""
        python = await read_python(ground)

        async def in_capsule(requires: Sequence[str], request: bytes) -> bytes:
            key = await self._make(ground, tuple(requires), say, nested=True)
            environment = await asyncio.to_thread(self._hold, key)
            if environment is None:
                raise errors.CapsuleFault("the environment of a build was removed before it was used")
            try:
                inside = dataclasses.replace(ground, furnishing=environment.furnish(ground.furnishing))
                return await builds.run(inside, request, self._jobs)
            finally:
                environment.release()

        build = in_capsule if self._sources.source_builds and not nested else None
        shop = workshop.Workshop(cache=self._cache, sources=self._sources, ground=ground)
        async with shop.open(self._jobs, say) as session:
            resolved = await building.resolve(session, requirements, python, build, say)
            key = sourcing.environment_key("sandbox", python.to_text(), resolved.contents, making.recipe())
            if not await asyncio.to_thread((self._folder / key / staging.ABOUT).exists):
                say(f"resolved: {making.listed(resolved.pins)}")
                size = await session.install(resolved, python, inherit=False)
                contents = making.requested_first(resolved.pins, requirements)
                about = {"contents": contents, "bytes": size, "made": time.time()}
                await asyncio.to_thread(session.staged.keep, self._folder / key, about)
                say(f"the environment is ready: {size / 1e6:.0f} MB")
        return key

    def _check_reach(self, ground: probe.Ground) -> None:
        """Raise BadSettings where the user of sandboxes could not enter the folder of environments."""
        try:
            private_dir.make_public(self._folder)
        except OSError as error:
            raise errors.BadSettings(f"cache_dir: {error.filename} cannot be made: {error.strerror}") from None
        if ground.drop_to is not None and (closed := reach.closed_to_others(self._folder)) is not None:
            raise errors.BadSettings(
                f"cache_dir {self._folder} is out of reach of the user that sandboxes are made under, uid "
                f"{ground.drop_to}: `chmod o+x {closed}`, or set another"
            )


async def read_python(ground: probe.Ground) -> targets.Target:
    """What the Python of sandboxes is, told by itself in one. Its own packages are nobody's choice, and left out.

    Raises DependencyFailed, IsolationMissing.
    """
    work = launch.Making((ground.python, "-I", "-c", targets.PROBE))
    room = launch.Room(MIB, MIB)
    sandbox = await process.start(
        ground.furnishing, room, ground.machine, bwrap=ground.bwrap, drop_to=ground.drop_to, making=work
    )
    answer = b""
    try:
        sandbox.go()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PROBE_SECONDS):
                while len(answer) < targets.MAX_ANSWER and (data := await sandbox.read()):
                    answer += data
    finally:
        await sandbox.close()
    return dataclasses.replace(targets.parse(answer, ground.machine), packages=())


def _base(ground: probe.Ground) -> str:
    """Which Python it is: another after an upgrade of the host. Blocks for a moment."""
    real = Path(ground.python).resolve()
    known = real.stat()
    return f"sandbox {real} {known.st_size} {known.st_mtime_ns}"


def sweep(cache: Path) -> None:
    """Remove what dead workers left half made. Blocks."""
    staging.sweep(cache)
