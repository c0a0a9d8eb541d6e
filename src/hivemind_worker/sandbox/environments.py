"""Requirements → a folder that has them, seen read-only in sandboxes: found in the cache, else made once by uv.

It is made in a sandbox with the network and nothing else of the host, under the place where tasks will see it, and is
moved to its own name when it is whole. Who uses one holds a lock on it; what nobody has locked may be removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import time
import uuid
from pathlib import Path
from typing import Any, Final

import uv

from hivemind_worker.concurrency import sharing, stopping, supervision
from hivemind_worker.filesystem import private_dir, private_file
from hivemind_worker.sandbox import launch, limits, probe, process, reach
from hivemind_worker.supplies import answers as answering
from hivemind_worker.supplies import making
from hivemind_worker.supplies import sources as sourcing
from hivemind_worker.task import errors, outcome
from hivemind_worker.task.resources import GIB, MIB

MEMORY: Final = 2 * GIB
"""Memory of a sandbox in which packages are installed: uv took 0.3 GB for the largest tried (torch)."""

YOUNG_SECONDS: Final = 60.0
"""A folder younger than this may be somebody's who has not locked it yet."""

WATCH_SECONDS: Final = 2.0
_PROCESSES: Final = 512
_SCRATCH: Final = 64 * MIB
_MAKING: Final = ".making-"
_ABOUT: Final = "about.json"
# How names are found; of the host's /etc a task sees none of these.
_NAMES: Final = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/gai.conf")


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
        self._cache = folder / "packages"
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
        asked = sourcing.asked_key(await asyncio.to_thread(_base, ground), requirements, offered, making.recipe())
        while True:
            key, fresh = await asyncio.to_thread(self._known, asked, requirements)
            if not key or not fresh:
                try:
                    key = await self._builds.get(asked, lambda say: self._build(ground, requirements, asked, say), tell)
                except errors.DependencyFailed as failed:
                    if not key:
                        raise
                    tell(making.stale(failed))
            if (found := await asyncio.to_thread(self._hold, key)) is not None:
                return found

    async def close(self) -> None:
        """End the builds that are under way."""
        await self._builds.close()

    def _known(self, asked: str, requirements: tuple[str, ...]) -> tuple[str, bool]:
        """The key of one that answers what is asked, and whether its names were resolved lately enough."""
        noted = self._answers.get(asked)
        if noted is None or not (self._folder / noted.key / _ABOUT).exists():
            return "", False
        return noted.key, self._sources.fresh(noted.resolved, requirements)

    def _hold(self, key: str) -> Environment | None:
        folder = self._folder / key
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        fcntl.flock(lock, fcntl.LOCK_SH)
        try:
            os.utime(folder / _ABOUT)  # its last use
        except OSError:  # its removal had begun
            os.close(lock)
            return None
        return Environment(key, folder, lock)

    async def _build(self, ground: probe.Ground, requirements: tuple[str, ...], asked: str, say: sharing.Tell) -> str:
        say(f"making an environment with {making.listed(requirements)}")
        staging = await asyncio.to_thread(self._stage, ground)
        try:
            async with self._few, asyncio.timeout(self._sources.seconds):
                key = await self._made(ground, staging, requirements, say)
        except TimeoutError:
            said = f"the environment was not made within {self._sources.seconds:.0f} s (package_environment_timeout)"
            raise errors.DependencyFailed(said) from None
        finally:
            self._jobs.start("remove what is left of making an environment", asyncio.to_thread(staging.remove))
        await asyncio.to_thread(self._answers.note, asked, key)
        return key

    async def _made(
        self, ground: probe.Ground, staging: _Staging, requirements: tuple[str, ...], say: sharing.Tell
    ) -> str:
        found: dict[str, Any] = {}

        async def wanted(resolved: making.Resolved) -> bool:
            key = sourcing.environment_key("sandbox", resolved.python, resolved.pins, making.recipe())
            found.update(key=key, pins=making.asked_first(resolved.pins, requirements))
            there = await asyncio.to_thread((self._folder / key / _ABOUT).exists)
            if not there:
                say(f"resolved: {making.listed(resolved.pins)}")
            return not there

        if await self._talk(ground, staging, requirements, wanted, say):
            size = await staging.size()
            if size > self._sources.limit_bytes:
                raise making.too_large(size, self._sources.limit_bytes)
            about = {"contents": found["pins"], "bytes": size, "made": time.time()}
            await asyncio.to_thread(staging.keep, self._folder / found["key"], about)
            say(f"the environment is ready: {size / 1e6:.0f} MB")
        return str(found["key"])

    async def _talk(
        self,
        ground: probe.Ground,
        staging: _Staging,
        requirements: tuple[str, ...],
        wanted: making.Wanted,
        say: sharing.Tell,
    ) -> bool:
        request = making.request(
            self._sources,
            requirements,
            "/.hivemind/uv",
            inherit=False,
            wheels=making.WHEELS if self._sources.wheels is not None else "",
        )
        group = limits.Group.planned(ground.groups) if ground.groups.folders else None
        starting = self._jobs.start("start builder", self._start(ground, staging))
        try:
            if group is not None:
                await group.make(_LIMITS)
            sandbox = await asyncio.shield(starting)
            if group is not None:
                await group.add(sandbox.pid)
            sandbox.go()
            talk = asyncio.create_task(
                making.converse(sandbox, request, wanted, say, self._sources), name="talk to builder"
            )
            watch = asyncio.create_task(self._watch(staging), name="watch builder")
            try:
                await asyncio.wait({talk, watch}, return_when=asyncio.FIRST_COMPLETED)
                if not talk.done():
                    await watch  # raises: too large
                return await talk
            except errors.CapsuleFault as fault:
                raise errors.CapsuleFault(f"{fault}: {await sandbox.last_words()}") from fault
            finally:
                await stopping.settle(watch, talk)
        finally:
            await asyncio.shield(self._jobs.start("end builder", _end(starting, group)))

    async def _start(self, ground: probe.Ground, staging: _Staging) -> process.Sandbox:
        furnishing = dataclasses.replace(
            ground.furnishing,
            files=(*ground.furnishing.files, *await asyncio.to_thread(_there, _NAMES)),
            elsewhere={} if self._sources.wheels is None else {making.WHEELS: str(self._sources.wheels)},
        )
        folders = {making.FOLDER: staging.folder}
        if not self._sources.source_builds:
            folders[making.CACHE] = self._cache
        tools = {"/.hivemind/uv": Path(uv.find_uv_bin()), "/.hivemind/maker.py": making.MAKER}
        work = launch.Making((ground.python, "-I", "/.hivemind/maker.py"), tools, folders)
        room = launch.Room(MIB, _SCRATCH)
        return await process.start(
            furnishing, room, ground.machine, bwrap=ground.bwrap, drop_to=ground.drop_to, making=work
        )

    async def _watch(self, staging: _Staging) -> None:
        """Raise DependencyFailed when it grows beyond what it may have."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            size = await staging.size()
            if size > self._sources.limit_bytes:
                raise making.too_large(size, self._sources.limit_bytes)

    def _stage(self, ground: probe.Ground) -> _Staging:
        """A new folder to make one in. Raises BadSettings where the user of sandboxes could not enter it."""
        try:
            for folder in (self._folder, self._cache):
                private_dir.make_public(folder)
        except OSError as error:
            raise errors.BadSettings(f"cache_dir: {error.filename} cannot be made: {error.strerror}") from None
        if ground.drop_to is not None:
            for setting, place in (("cache_dir", self._folder), ("package_wheels", self._sources.wheels)):
                if place is not None and (closed := reach.closed_to_others(place)) is not None:
                    raise errors.BadSettings(
                        f"{setting} {place} is out of reach of the user that sandboxes are made under, uid "
                        f"{ground.drop_to}: `chmod o+x {closed}`, or set another"
                    )
            os.chown(self._cache, ground.drop_to, ground.drop_to)
        return _Staging(self._folder, ground.drop_to)


class _Staging:
    """A folder in which one environment is made: locked while it lasts, so that a dead worker's can be told."""

    def __init__(self, parent: Path, owner: int | None) -> None:
        self.folder = parent / f"{_MAKING}{uuid.uuid4().hex}"
        private_dir.make_public(self.folder)
        self._lock = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._owner = owner
        for name in ("environment", "scratch", "cache", "wheels"):  # the places of what is bound in there, too
            private_dir.make_public(self.folder / name)
        if owner is not None:
            for place in (self.folder, *self.folder.iterdir()):
                os.chown(place, owner, owner, follow_symlinks=False)

    async def size(self) -> int:
        """How many bytes it has on disk."""
        du = ("du", "-s", "-x", "--block-size=1", "--", str(self.folder))
        quiet = asyncio.subprocess.DEVNULL
        asked = await asyncio.create_subprocess_exec(*du, stdin=quiet, stdout=asyncio.subprocess.PIPE, stderr=quiet)
        try:
            said, _ = await asked.communicate()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                asked.kill()
            await asked.wait()
            raise
        return int(said.split()[0]) if said else 0

    def keep(self, place: Path, about: dict[str, Any]) -> None:
        """It is whole: have it in its place, out of the reach of whoever it was made by. Blocks."""
        if self._owner is not None:
            _give_to_us(self.folder)
        private_file.write(self.folder / _ABOUT, json.dumps(about))
        try:
            self.folder.rename(place)
        except OSError:
            if not place.exists():  # else another process has made the same one meanwhile: theirs stays
                raise
        fcntl.flock(self._lock, fcntl.LOCK_SH)

    def remove(self) -> None:
        """Remove what did not become an environment. Blocks."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        shutil.rmtree(self.folder, ignore_errors=True)


_LIMITS: Final = outcome.Limits(MEMORY, 100_000 * (os.cpu_count() or 1), 0.0, 0, _PROCESSES)


def _give_to_us(folder: Path) -> None:
    """The owner of every file is this process; no link is followed."""
    user, group = os.geteuid(), os.getegid()
    for _, folders, files, at in os.fwalk(folder, follow_symlinks=False):
        os.fchown(at, user, group)
        for name in (*folders, *files):
            os.chown(name, user, group, dir_fd=at, follow_symlinks=False)


def _there(files: tuple[str, ...]) -> list[str]:
    return [file for file in files if Path(file).exists()]


def _base(ground: probe.Ground) -> str:
    """Which Python it is: another after an upgrade of the host. Blocks for a moment."""
    real = Path(ground.python).resolve()
    known = real.stat()
    return f"sandbox {real} {known.st_size} {known.st_mtime_ns}"


async def _end(starting: asyncio.Task[process.Sandbox], group: limits.Group | None) -> None:
    await asyncio.wait({starting})
    if not starting.cancelled() and starting.exception() is None:
        await starting.result().close()
    if group is not None:
        await group.remove()


def sweep(folder: Path) -> None:
    """Remove what dead workers left half made. Blocks."""
    for left in (folder / "environments").glob(f"{_MAKING}*"):
        try:
            lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.time() - left.stat().st_mtime < YOUNG_SECONDS:
                continue  # made a moment ago, its lock may be still to come
            shutil.rmtree(left, ignore_errors=True)
        except BlockingIOError:
            pass  # in the making
        finally:
            os.close(lock)
