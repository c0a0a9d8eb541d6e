"""Where packages are fetched: our own program in a sandbox with the network, else as a plain process of this worker.

Nothing of an author's runs in it: it resolves, downloads and unpacks wheels, which are data. The sandbox is the second
layer, for a fault of uv or of the unpacking: it sees the host's programs, the folder it fills and the packages fetched
before. Its user is the worker's own, since what it writes must be out of the tasks' reach.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import uv

from hivemind_worker import errors
from hivemind_worker.concurrency import supervision
from hivemind_worker.filesystem import private_dir
from hivemind_worker.runtime.environments import making, staging
from hivemind_worker.runtime.environments import sources as sourcing
from hivemind_worker.runtime.sandbox import launch, limits, probe, process
from hivemind_worker.tasks import outcome
from hivemind_worker.units import GIB, MIB

MEMORY: Final = 2 * GIB
"""Memory of a sandbox in which packages are fetched: uv took 0.3 GB for the largest tried (torch)."""

_PROCESSES: Final = 512
_SCRATCH: Final = 64 * MIB
_LIMITS: Final = outcome.Limits(MEMORY, 100_000 * (os.cpu_count() or 1), 0.0, 0, _PROCESSES)
_PROGRAMS: Final = "/.hivemind"
# How names are found; of the host's /etc a task sees none of these.
_NAMES: Final = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/gai.conf")


class Workshop:
    """Fetchers that share one cache folder. `ground`: what sandboxes are made of here, where that is found already."""

    def __init__(
        self,
        *,
        cache: Path,
        sources: sourcing.Sources,
        ground: probe.Ground | None = None,
    ) -> None:
        self._environments = cache / "environments"
        self._cache = cache / "downloads"
        self._sources = sources
        self._ground = ground
        self._looked = ground is not None

    @contextlib.asynccontextmanager
    async def open(self, jobs: supervision.Jobs, say: Callable[[str], None]) -> AsyncIterator[making.Session]:
        """Start a fetcher; see `making.Workshop.open`."""
        ground = await self._sandboxes()
        staged = await asyncio.to_thread(self._stage)
        group = limits.Group.planned(ground.groups) if ground is not None and ground.groups.folders else None
        places = self._places(staged, sandboxed=ground is not None)
        starting: asyncio.Task[process.Sandbox | _Process] | None = None
        try:
            if group is not None:
                await group.make(_LIMITS)
            begin = self._in_sandbox(ground, staged) if ground is not None else _Process.start(staged.folder)
            starting = jobs.start("start fetcher", begin)
            pipe = await asyncio.shield(starting)
            if isinstance(pipe, process.Sandbox):
                if group is not None:
                    await group.add(pipe.pid)
                pipe.go()
            session = making.Session(pipe, self._sources, places, staged, say)
            await session.begin()
            yield session
        finally:
            await asyncio.shield(jobs.start("end fetcher", _end(starting, group)))
            jobs.start("remove what is left of making an environment", asyncio.to_thread(staged.remove))

    async def _sandboxes(self) -> probe.Ground | None:
        """What sandboxes are made of, None where there can be none or they would have no Python."""
        if not self._looked:
            with contextlib.suppress(errors.IsolationMissing):
                ground = await probe.ground()
                self._ground = ground if ground.python else None
            self._looked = True
        return self._ground

    def _stage(self) -> staging.Staging:
        try:
            private_dir.make_public(self._environments)
            private_dir.make(self._cache)  # sandboxes of tasks see the environments alone
            return staging.Staging(self._environments)
        except OSError as error:
            raise errors.BadSettings(f"cache_dir: {error.filename} cannot be made: {error.strerror}") from None

    def _places(self, staged: staging.Staging, *, sandboxed: bool) -> making.Places:
        wheels = self._sources.wheels
        if sandboxed:
            inside = making.FOLDER
            offered = f"{inside}/wheels" if wheels is not None else ""
            return making.Places(inside, f"{inside}/cache", offered, f"{_PROGRAMS}/uv")
        offered = str(wheels.resolve()) if wheels is not None else ""
        return making.Places(str(staged.folder), str(self._cache), offered, uv.find_uv_bin())

    async def _in_sandbox(self, ground: probe.Ground, staged: staging.Staging) -> process.Sandbox | _Process:
        wheels = self._sources.wheels
        furnishing = dataclasses.replace(
            ground.furnishing,
            files=(*ground.furnishing.files, *await asyncio.to_thread(_existing, _NAMES)),
            elsewhere={} if wheels is None else {f"{making.FOLDER}/wheels": str(wheels.resolve())},
        )
        programs = {f"{_PROGRAMS}/{path.name}": path for path in sorted(making.PROGRAMS.glob("*.py"))}
        work = launch.Making(
            argv=(ground.python, "-I", f"{_PROGRAMS}/{making.FETCHER}"),
            files={f"{_PROGRAMS}/uv": Path(uv.find_uv_bin()), **programs},
            folders={making.FOLDER: staged.folder, f"{making.FOLDER}/cache": self._cache},
            network=True,
        )
        room = launch.Room(MIB, _SCRATCH)
        return await process.start(furnishing, room, ground.machine, bwrap=ground.bwrap, drop_to=None, making=work)


class _Process:
    """The fetcher without a sandbox, in a session of its own, with nothing of our environment."""

    def __init__(self, running: asyncio.subprocess.Process) -> None:
        self._running = running
        self._complaint = b""
        self._listener = asyncio.create_task(self._listen(), name="fetcher stderr")

    @classmethod
    async def start(cls, folder: Path) -> _Process:
        """Start it in this folder."""
        pipe = asyncio.subprocess.PIPE
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                str(making.PROGRAMS / making.FETCHER),
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                env={"LANG": "C.UTF-8"},
                cwd=folder,
                start_new_session=True,
            )
        )

    async def read(self) -> bytes:
        """Return the next bytes, empty at the end."""
        assert self._running.stdout is not None
        return await self._running.stdout.read(process.READ)

    async def write(self, data: bytes) -> None:
        """Write; to one that has ended in vain, reading tells."""
        assert self._running.stdin is not None
        with contextlib.suppress(ConnectionError):
            self._running.stdin.write(data)
            await self._running.stdin.drain()

    async def last_words(self) -> str:
        """Return what it complained about, and its exit code."""
        code = await self._running.wait()
        await asyncio.wait({self._listener})
        return f"{self._complaint.decode(errors='replace').strip()} (exit code {code})"

    async def close(self) -> None:
        """End it and all it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._running.pid, signal.SIGKILL)
        await self._running.wait()
        await asyncio.wait({self._listener})
        if self._running.stdin is not None:
            self._running.stdin.close()

    async def _listen(self) -> None:
        assert self._running.stderr is not None
        while data := await self._running.stderr.read(process.COMPLAINT):
            self._complaint = (self._complaint + data)[-process.COMPLAINT :]


def _existing(files: tuple[str, ...]) -> list[str]:
    return [file for file in files if Path(file).exists()]


async def _end(starting: asyncio.Task[process.Sandbox | _Process] | None, group: limits.Group | None) -> None:
    if starting is not None:
        await asyncio.wait({starting})
        if not starting.cancelled() and starting.exception() is None:
            await starting.result().close()
    if group is not None:
        await group.remove()
