"""A worker as a process of its own that may be killed and started again, on a pool in the test's own process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import installed
import pool_parts
import service_unit
import struck_worker
import waiting

from hivemind_worker.wire import calls

pb = calls.pb
COMMAND = (sys.executable, struck_worker.__file__)
"""The command itself, to be struck or not."""


class Mortal:
    """One node with one state folder. ``start`` it, ``kill`` it, ``start`` it again."""

    def __init__(self, at: pool_parts.Running, folder: Path, *words: str) -> None:
        self.at = at
        self.state = folder / "state"
        # Its own name: at an engine that others use too, a node removes what a namesake left behind.
        self.node_id = f"mortal-{secrets.token_hex(4)}"
        self._log = folder / "worker.log"
        where = (f"--node-id={self.node_id}", f"--state-dir={self.state}", f"--log-dir={folder / 'log'}")
        # What else this machine does is no test of ours.
        calm = [f"--{what}-percent=100" for what in ("overload-cpu", "overload-memory", "unhealthy-disk")]
        self._words = (*where, *calm, *words)
        self.unit: service_unit.ServiceUnit | None = None
        self._begun = 0
        self.prefix: tuple[str, ...] = ()
        """Words before its command, and what they need of the environment in ``extra_environment``."""
        self.extra_environment: dict[str, str] = {}
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("HIVEMIND_")}
        self.held = folder / "held"
        """There while it waits at the point where it was to be held."""
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self, strike: str = "", **environment: str) -> None:
        """Start it; with ``strike`` it will end by itself at that point. Returns once the pool knows it."""
        self.begin(strike, **environment)
        await waiting.wait_until(self.registered, description=f"registered; {self.log()}", seconds=30)

    def begin(self, strike: str = "", **environment: str) -> subprocess.Popen[bytes]:
        """Start it, and do not wait for anything."""
        command = [
            *self.prefix,
            *COMMAND,
            "worker",
            f"--node-pool={self.at.pool.address}",
            *self._words,
        ]
        self._begun = len(self.log())
        with self._log.open("ab") as file:
            self.process = installed.popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env={
                    **self._environment,
                    **self.extra_environment,
                    "STRIKE": strike,
                    "HELD": str(self.held),
                    **environment,
                },
            )
        return self.process

    def registered(self) -> bool:
        """Whether the pool has heard of this very process."""
        assert self.process is not None
        assert self.process.poll() in {None, -signal.SIGKILL}, self.log()
        return '"registered"' in self.log()[self._begun :].rpartition('"worker_started"')[2]

    async def killed(self, seconds: float = 30) -> None:
        """Wait until it has killed itself."""
        assert self.process is not None
        process = self.process
        await waiting.wait_until(lambda: process.poll() is not None, description="it strikes", seconds=seconds)
        assert process.returncode == -signal.SIGKILL, self.log()

    def kill(self) -> None:
        """`kill -9`."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    async def kill_unit(self) -> None:
        """`kill -9` to it and all that it has started, as systemd kills a unit."""
        assert self.process is not None
        assert self.unit is not None
        await self.unit.kill()
        self.process.wait()

    async def stop(self, seconds: float = 30) -> int:
        """SIGTERM, and its exit code."""
        assert self.process is not None
        self.process.terminate()
        return await asyncio.to_thread(self.process.wait, seconds)

    def log(self) -> str:
        """All that its processes said."""
        return self._log.read_text() if self._log.exists() else ""

    async def submit(self, command: str, **said: object) -> str:
        """Submit a task."""
        (task_id,) = await self.at.submit(pb.Task(command=command, **said))  # type: ignore[arg-type]
        return task_id

    async def ended(self, task_id: str, seconds: float = 40) -> pb.TaskInfo:
        """Wait for the end of a task."""

        found: list[pb.TaskInfo] = []

        async def look() -> bool:
            found[:] = [await self.at.info(task_id)]
            return found[0].state in {"completed", "failed", "cancelled"}

        asked: Callable[[], bool | Awaitable[bool]] = look
        try:
            await waiting.wait_until(asked, description=f"{task_id} ended", seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None
        return found[0]

    async def output(self, task_id: str) -> bytes:
        """Its standard output, as those see it who follow it; without a gap."""
        found = b""
        call = self.at.tasks.GetTaskLogs(pb.GetTaskLogsRequest(task_id=task_id))
        async for answer in call:
            for chunk in answer.chunks:
                if chunk.stream == pb.LOG_STREAM_STDOUT:
                    assert chunk.offset == len(found), f"a gap or a repetition at byte {chunk.offset}"
                    found += chunk.data
        return found

    def left(self) -> list[str]:
        """What is still kept of attempts on its disk."""
        found = [*(self.state / "outbox").iterdir(), *(self.state / "work" / "objects").glob("??/*")]
        found += (self.state / "work" / "staging").glob("*.part")
        return [str(path.relative_to(self.state)) for path in found]

    async def events(self, task_id: str) -> list[str]:
        """What happened to a task, in order."""
        info = await self.at.info(task_id)
        return [event.event for event in info.story]


@contextlib.asynccontextmanager
async def node(folder: Path, *words: str, pool: Mapping[str, object] | None = None) -> AsyncIterator[Mortal]:
    """A pool, and a worker that is not started yet; the one that runs in the end is drained and must end well."""
    async with pool_parts.running(folder / "pool", **(pool or {})) as at:
        made = Mortal(at, folder, *words)
        try:
            yield made
            if made.process is not None and made.process.poll() is None:
                assert await made.stop() == 0, made.log()
        finally:
            if made.process is not None and made.process.poll() is None:
                made.process.kill()
            if made.process is not None:
                made.process.wait()
