"""One process of ours in a chaos run, pool or worker: started, killed, started again, of this version or another."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import chaos_pace
import installed

READY_SECONDS = 60.0
"""Quiet seconds from a start to being ready: a worker's probes and its registration take 2."""

MAX_STARTS = 30

ADDRESS = r'"address": ?"([^"]+)"'
"""Where a pool listens, as its log says it."""


@dataclass
class Service:
    """One process of ours that is killed and started again. ``old``: it is started as the version before."""

    name: str
    folder: Path
    words: list[str]
    environment: dict[str, str]
    ready: str
    """What its log says once it can act."""
    process: subprocess.Popen[bytes] | None = None
    deaths: list[int] = field(default_factory=list)
    old: Path | None = None
    gone: bool = False
    """It never comes back."""

    @property
    def log(self) -> Path:
        """What it writes on standard error."""
        return self.folder / f"{self.name}.log"

    @property
    def clock(self) -> Path:
        """How far its wall clock is off; see `preloaded.set_clock`."""
        return self.folder / f"{self.name}.clock"

    @property
    def undo(self) -> Path:
        """Where its unsynced changes are recorded."""
        return self.folder / f"{self.name}.undo"

    def start(self) -> None:
        """Start it."""
        words, more = [str(installed.HIVEMIND), *self.words], {}
        if self.old is not None:
            words = [sys.executable, "-m", "hivemind_worker", *self.words]
            more = {"PYTHONPATH": str(self.old / "src")}
        with self.log.open("ab") as log:
            self.process = installed.popen(
                words,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, env={**self.environment, **more},
            )  # fmt: skip

    @property
    def pid(self) -> int:
        """Its process; 0 where there is none."""
        return self.process.pid if self.process is not None and self.process.poll() is None else 0

    def signal(self, number: int) -> None:
        """Send it a signal."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def said(self, pattern: str) -> str:
        """The first thing in its log that looks like this."""
        found = re.search(pattern, self.log.read_text())
        assert found is not None, f"{pattern} is not in {self.log}"
        return found[1]

    def times_ready(self) -> int:
        """How often it has been ready."""
        return self.log.read_bytes().count(self.ready.encode()) if self.log.exists() else 0

    async def end(self, pace: chaos_pace.Pace | None = None, seconds: float = 60.0) -> int:
        """Ask it to end, and wait; returns its exit code, killed if it had to be."""
        assert self.process is not None
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        process = self.process
        try:
            await (pace or chaos_pace.Pace()).wait_until(
                lambda: process.poll() is not None, f"{self.name} ends", seconds
            )
        except TimeoutError:
            process.kill()
        return await asyncio.to_thread(process.wait)

    async def until_ready(self, pace: chaos_pace.Pace | None = None) -> int:
        """Start it, again if it ends before it is ready, as a supervisor would; returns how often that was.

        Raises:
            TimeoutError: it did not become ready; says where its log is.
        """
        pace = pace or chaos_pace.Pace()
        before = self.times_ready()
        for failures in range(MAX_STARTS):
            self.start()
            await pace.wait_until(
                lambda: self.times_ready() > before or not self.pid,
                f"{self.name} is ready, see {self.log}",
                READY_SECONDS,
            )
            if self.times_ready() > before:
                return failures
            await asyncio.sleep(1.0)
        raise TimeoutError(f"{self.name} does not start any more, see {self.log}")

    async def restart(self, seconds: float, pace: chaos_pace.Pace | None = None) -> None:
        """Kill it, -9, and after a while start it again. Raises TimeoutError."""
        self.signal(signal.SIGKILL)
        assert self.process is not None
        await asyncio.to_thread(self.process.wait)
        await asyncio.sleep(seconds)
        await self.until_ready(pace)
