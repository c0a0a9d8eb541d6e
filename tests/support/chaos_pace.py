"""How slow this machine is now, measured again and again: deadlines of a chaos run are counted in quiet seconds."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Self

QUIET_START_SECONDS = 0.06
"""Starting and ending a Python without its site module takes 15 to 25 ms of an idle core; thrice that is quiet."""

MEASURE_SECONDS = 2.0
"""Between two measurements: each costs one process start, about 1 % of a core."""

STALL_SECONDS = 0.75
"""A thread that wakes up so late was not let run; nor, then, were others in time for their heartbeats."""

MAX_SLOWNESS = 40.0
"""Beyond, a deadline does not stretch: a run ends even on a machine that stands still."""


class Pace:
    """Measures within a `with` block; without one the machine counts as quiet.

    ``slowness`` is 1 on a quiet machine, and about 30 beside 60 spinning processes on 2 cores.
    """

    def __init__(self) -> None:
        self.slowness = 1.0
        self.slowest = 1.0
        self.stalls: list[tuple[float, float]] = []
        """From when to when (monotonic seconds) this process was not let run, or none could be started."""
        self.slow_start_seconds = math.inf
        """A start of a process that took longer is such a time: others missed heartbeats then."""
        self._quiet = 0.0
        self._since = time.monotonic()
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._measure, name="pace"),
            threading.Thread(target=self._watch_stalls, name="stalls"),
        ]

    def __enter__(self) -> Self:
        self._once()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    @property
    def quiet_seconds(self) -> float:
        """Seconds since the beginning, as a quiet machine would count them."""
        return self._quiet + (time.monotonic() - self._since) / self.slowness

    async def wait_until(self, look: Callable[[], bool], description: str, seconds: float) -> None:
        """Look until it is true, for so many quiet seconds. Raises TimeoutError, naming what was waited for."""
        limit = self.quiet_seconds + seconds
        while not look():
            if self.quiet_seconds > limit:
                raise TimeoutError(f"waited {seconds:g} quiet seconds in vain for: {description}")
            await asyncio.sleep(0.05)

    def _once(self) -> None:
        begin = time.monotonic()
        subprocess.run([sys.executable, "-I", "-S", "-c", ""], check=True, stdin=subprocess.DEVNULL)
        now = time.monotonic()
        took = now - begin
        self.note_start(begin, now)
        self._quiet += (now - self._since) / self.slowness
        self._since = now
        # Half of the new, half of the old: one slow start is no slow machine.
        self.slowness = min(max((took / QUIET_START_SECONDS + self.slowness) / 2, 1.0), MAX_SLOWNESS)
        self.slowest = max(self.slowest, self.slowness)

    def note_start(self, begin: float, end: float) -> None:
        """Take note of how long the start of a process took."""
        if end - begin > self.slow_start_seconds:
            self.stalls.append((begin, end))

    def _measure(self) -> None:
        while not self._ended.wait(MEASURE_SECONDS):
            self._once()

    def _watch_stalls(self) -> None:
        while not self._ended.is_set():
            begin = time.monotonic()
            self._ended.wait(0.1)
            self._note_pause(begin)

    async def watch_loop(self) -> None:
        """Take note of when the event loop, through which all lines between pool and nodes go, stood still."""
        while True:
            begin = time.monotonic()
            try:
                await asyncio.sleep(0.1)
            finally:  # also where the run ends with a standstill
                self._note_pause(begin)

    def _note_pause(self, begin: float) -> None:
        end = time.monotonic()
        if end - begin > STALL_SECONDS:
            self.stalls.append((begin, end))
