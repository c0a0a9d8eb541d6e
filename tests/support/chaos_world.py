"""The world of a chaos run: a pool and workers as processes, each behind a line and on a disk of its own; and blows."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import chaos_plan
import cutting_proxy
import history
import installed
import private_engine
import small_disk
import waiting

HEALING_SECONDS = 8.0
"""After a fault's end until it is over for good: gRPC's longest pause between two tries to connect is 5 s, and a
heartbeat and its answer follow."""

DEAF_SECONDS = 0.3
"""Shorter, and there may be no answer to lose."""

DISK_MIB = 256

ADDRESS = r'"address": ?"([^"]+)"'
"""Where a pool listens, as its log says it."""


@dataclass
class Service:
    """One process of ours that is killed and started again."""

    name: str
    words: list[str]
    log: Path
    environment: dict[str, str]
    ready: str
    """What its log says once it can act."""
    process: subprocess.Popen[bytes] | None = None
    deaths: list[int] = field(default_factory=list)

    def start(self) -> None:
        """Start it."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [installed.HIVEMIND, *self.words],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, env=self.environment,
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

    async def end(self, seconds: float = 60.0) -> int:
        """Ask it to end, and wait; returns its exit code, killed if it had to be."""
        assert self.process is not None
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            return await asyncio.to_thread(self.process.wait, seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return await asyncio.to_thread(self.process.wait)


@dataclass
class World:
    """All of it. ``nodes`` are the workers by name, ``lines`` theirs to the pool, ``disks`` everybody's."""

    folder: Path
    pool: Service
    address: str
    lease_seconds: float
    grace_seconds: float
    slots: int
    nodes: dict[str, Service] = field(default_factory=dict)
    lines: dict[str, cutting_proxy.Line] = field(default_factory=dict)
    disks: dict[str, small_disk.SmallDisk] = field(default_factory=dict)
    engine: private_engine.PrivateEngine | None = None
    engine_nodes: list[str] = field(default_factory=list)
    absences: list[history.Absence] = field(default_factory=list)
    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    complaints: list[str] = field(default_factory=list)
    _busy: set[str] = field(default_factory=set)

    @property
    def targets(self) -> list[str]:
        """Whom a blow can hit; workers more often than the others."""
        return [*self.nodes, *self.nodes, "pool", *(["engine", "engine"] if self.engine else [])]

    def service(self, name: str) -> Service:
        """The process of that name."""
        return self.pool if name == "pool" else self.nodes[name]

    async def strike(self, blow: chaos_plan.Blow) -> None:
        """Do what the blow says and undo it after its time; nothing where its target is in trouble already."""
        if blow.target in self._busy:
            return
        self._busy.add(blow.target)
        self.counts[f"{blow.kind} {'worker' if blow.target in self.nodes else blow.target}"] += 1
        began = time.time()
        healed = began
        try:
            await _BLOWS[blow.kind](self, blow)
        finally:
            self._busy.discard(blow.target)
            healed = time.time() + HEALING_SECONDS
            for who in self.engine_nodes if blow.target == "engine" else [blow.target]:
                self.absences.append(history.Absence(who, began, healed))

    async def kill(self, blow: chaos_plan.Blow) -> None:
        """-9, then started again."""
        if blow.target == "engine":
            assert self.engine is not None
            await asyncio.to_thread(self.engine.kill)
            await asyncio.sleep(blow.seconds)
            await asyncio.to_thread(self.engine.start)
            return
        await self.restart(self.service(blow.target), blow.seconds)

    async def restart(self, its: Service, seconds: float) -> None:
        """Kill it, wait, start it until it is ready; one that cannot start is tried again, as a supervisor would."""
        its.signal(signal.SIGKILL)
        assert its.process is not None
        await asyncio.to_thread(its.process.wait)
        await asyncio.sleep(seconds)
        await self.until_ready(its)

    async def until_ready(self, its: Service) -> None:
        """Start it, again if it ends before it is ready."""
        before = its.times_ready()
        for _ in range(30):
            its.start()
            await waiting.wait_until(
                lambda: its.times_ready() > before or not its.pid,
                description=f"{its.name} is ready, see {its.log}",
                seconds=90,
            )
            if its.times_ready() > before:
                return
            self.counts["starts that failed"] += 1
            await asyncio.sleep(1.0)
        self.complaints.append(f"{its.name} does not start any more, see {its.log}")

    async def stop(self, blow: chaos_plan.Blow) -> None:
        """Stopped in its tracks for a while."""
        if blow.target == "engine":
            assert self.engine is not None
            self.engine.freeze()
            await asyncio.sleep(blow.seconds)
            self.engine.thaw()
            return
        its = self.service(blow.target)
        its.signal(signal.SIGSTOP)
        await asyncio.sleep(blow.seconds)
        its.signal(signal.SIGCONT)

    async def part(self, blow: chaos_plan.Blow) -> None:
        """No way to the pool."""
        await self._line(blow, lambda line: line.part())

    async def freeze(self, blow: chaos_plan.Blow) -> None:
        """A half-open way to the pool."""
        await self._line(blow, lambda line: line.freeze())

    async def deafen(self, blow: chaos_plan.Blow) -> None:
        """A way to the pool, and none back."""
        self.lines[blow.target].deafen()
        await asyncio.sleep(max(blow.seconds, DEAF_SECONDS))
        self.lines[blow.target].join()

    async def slow(self, blow: chaos_plan.Blow) -> None:
        """A slow way to the pool."""

        def delay(line: cutting_proxy.Line) -> None:
            line.delay_seconds = 0.05

        await self._line(blow, delay)

    async def cut(self, blow: chaos_plan.Blow) -> None:
        """The line breaks, and a new one can be had at once."""
        self.lines[blow.target].break_now()

    async def _line(self, blow: chaos_plan.Blow, doing: Callable[[cutting_proxy.Line], None]) -> None:
        doing(self.lines[blow.target])
        await asyncio.sleep(blow.seconds)
        self.lines[blow.target].join()

    async def fill(self, blow: chaos_plan.Blow) -> None:
        """Its disk is full."""
        disk = self.disks[blow.target]
        await asyncio.to_thread(disk.fill)
        await asyncio.sleep(blow.seconds)
        await asyncio.to_thread(disk.clear)

    async def keep_alive(self) -> None:
        """What a supervisor does: start what ended by itself. Each such end is counted, and kept for a look."""
        while True:
            await asyncio.sleep(0.5)
            for its in (self.pool, *self.nodes.values()):
                if its.name in self._busy or its.process is None or its.process.poll() is None:
                    continue
                its.deaths.append(its.process.returncode)
                self.counts["ended by itself"] += 1
                self._busy.add(its.name)
                began = time.time()
                await self.until_ready(its)
                self.absences.append(history.Absence(its.name, began, time.time() + HEALING_SECONDS))
                self._busy.discard(its.name)

    async def end(self) -> None:
        """End workers, then the pool, in order."""
        for its in (*self.nodes.values(), self.pool):
            if its.process is None:
                continue
            code = await its.end()
            if code != 0:
                self.complaints.append(f"{its.name} ended with {code}, see {its.log}")


_BLOWS: dict[str, Callable[[World, chaos_plan.Blow], Awaitable[None]]] = {
    "kill": World.kill,
    "stop": World.stop,
    "part": World.part,
    "freeze": World.freeze,
    "deafen": World.deafen,
    "slow": World.slow,
    "cut": World.cut,
    "fill": World.fill,
}


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HIVEMIND_", "XDG_", "DOCKER_"))}
    # Busy the machine is, with all of this; full its small disks become on purpose.
    limits = {"HIVEMIND_OVERLOAD_CPU_PERCENT": "100", "HIVEMIND_OVERLOAD_MEMORY_PERCENT": "100"}
    return {**kept, **limits, "HOME": str(folder), "NO_COLOR": "1", "DOCKER_CONFIG": str(folder)}


@contextlib.asynccontextmanager
async def world(
    folder: Path, *, seed: int, sandboxes: int, containers: int, lease_seconds: float, with_disks: bool
) -> AsyncIterator[World]:
    """Have a pool and workers at work within this block; they are ended in order by `World.end`, or killed."""
    async with contextlib.AsyncExitStack() as stack:
        environment = _environment(folder)

        def home(name: str) -> Path:
            place = folder / name
            if with_disks and small_disk.can_mount():
                made.disks[name] = stack.enter_context(small_disk.mounted(place, DISK_MIB))
            else:
                place.mkdir(parents=True)
            return place

        pool = Service("pool", [], folder / "pool.log", environment, '"pool_started"')
        made = World(folder, pool, "", lease_seconds, 1.0, 4)
        state_dir = home("pool")
        pool.words = [
            "pool", "--listen=127.0.0.1:0", f"--state-dir={state_dir}", f"--log-dir={folder / 'log'}",
            "--log-format=json", f"--pool-lease-seconds={lease_seconds}",
        ]  # fmt: skip
        stack.callback(_kill_all, made)
        await made.until_ready(pool)
        made.address = pool.said(ADDRESS)
        pool.words[1] = f"--listen={made.address}"
        if containers:
            made.engine = await asyncio.to_thread(
                stack.enter_context, private_engine.running(live_restore=seed % 2 == 0)
            )
        names = [f"chaos-{seed}-{number}" for number in range(sandboxes + containers)]
        made.engine_nodes = names[sandboxes:]
        for number, name in enumerate(names):
            made.lines[name] = await stack.enter_async_context(cutting_proxy.line(made.address))
            place = home(name)
            (folder / f"{name}-temp").mkdir(mode=0o755)
            fence = [f"--docker-host={made.engine.url}"] if made.engine and name in made.engine_nodes else []
            made.nodes[name] = Service(
                name,
                [
                    "worker", f"--node-id={name}", f"--node-pool={made.lines[name].address}",
                    f"--isolation={'docker' if fence else 'sandbox'}", *fence,
                    f"--state-dir={place}", f"--temp-dir={folder / f'{name}-temp'}", f"--log-dir={folder / 'log'}",
                    "--log-format=json", f"--max-concurrent-tasks={made.slots}",
                    f"--grace-seconds={made.grace_seconds}",
                    f"--heartbeat-interval={lease_seconds / 4}", "--poll-wait-seconds=10",
                    # This run keeps the machine busy, and so may others: that is no reason to stand still.
                    "--overload-cpu-percent=100", "--unhealthy-cpu-percent=100",
                    # Both ways of dealing with a lease that ran out.
                    f"--past-lease={('finish', 'stop')[number % 2]}",
                ],
                folder / f"{name}.log", environment, '"registered"',
            )  # fmt: skip
        stack.callback(_kill_all, made)  # before their disks and their engine go
        await asyncio.gather(*(made.until_ready(node) for node in made.nodes.values()))
        yield made


def _kill_all(made: World) -> None:
    for its in (*made.nodes.values(), made.pool):
        if its.process is not None and its.process.poll() is None:
            its.process.kill()
            its.process.wait()
