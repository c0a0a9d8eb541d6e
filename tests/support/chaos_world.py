"""The world of a chaos run: a pool and workers as processes, each behind a relay and on disks of its own."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import subprocess
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import chaos_pace
import chaos_record
import chaos_service
import chaos_starvation
import cutting_proxy
import history
import jumbling_proxy
import left_processes
import own_groups
import own_images
import preloaded
import private_engine
import small_disk
import system_packages
import unsynced

HEALING_SECONDS = 8.0
"""After a fault's end until it is over for good: gRPC's longest pause between two tries to connect is 5 s, and a
heartbeat and its answer follow."""

DISK_MIB = 256

POOL_GROWTH_MIB = {"": 0.1, "pool-artifacts": 0.2, "logs": 0.01}
"""The pool keeps all, so its disks are larger by this for each task of the run: 0.05, 0.12 and 0.003 were seen."""


@dataclass(frozen=True, slots=True)
class Means:
    """What this machine can do. ``libraries`` are preloaded, by name; ``before``: a tree of the version before."""

    libraries: Mapping[str, Path] = field(default_factory=dict)
    before: Path | None = None
    disks: bool = True

    @property
    def missing(self) -> frozenset[str]:
        """The kinds of blows that cannot fall here."""
        kinds = set() if self.disks else {"fill", "fill_artifacts", "fill_logs", "power"}
        kinds |= set() if self.libraries else {"power", "clock"}
        return frozenset(kinds)


@dataclass
class World:
    """All of it. ``nodes`` are the workers by name, ``lines`` theirs to the pool, ``disks`` everybody's by role."""

    folder: Path
    seed: int
    pool: chaos_service.Service
    lease_seconds: float
    grace_seconds: float
    slots: int
    pace: chaos_pace.Pace
    recorder: chaos_record.Recorder
    means: Means
    tasks: int = 0
    address: str = ""
    nodes: dict[str, chaos_service.Service] = field(default_factory=dict)
    retired: dict[str, chaos_service.Service] = field(default_factory=dict)
    lines: dict[str, cutting_proxy.Line] = field(default_factory=dict)
    jumblers: dict[str, jumbling_proxy.Jumbler] = field(default_factory=dict)
    disks: dict[tuple[str, str], small_disk.SmallDisk] = field(default_factory=dict)
    engine: private_engine.PrivateEngine | None = None
    engine_nodes: list[str] = field(default_factory=list)
    absences: list[history.Absence] = field(default_factory=list)
    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    complaints: list[str] = field(default_factory=list)
    alive: dict[str, float] = field(default_factory=dict)
    """When (monotonic seconds) the pool last showed a node as able to act."""
    starvation: chaos_starvation.Starvation = field(init=False)
    epoch_at: float = float("-inf")
    """Since when (wall clock) the pool has the store of today: it was wiped or restored then."""
    busy: set[str] = field(default_factory=set)
    extras: list[subprocess.Popen[bytes]] = field(default_factory=list)
    stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    def __post_init__(self) -> None:
        """Begin to look for starvation by this world's lease."""
        self.starvation = chaos_starvation.Starvation(self.lease_seconds)

    @property
    def targets(self) -> list[str]:
        """Whom a blow can hit, by role: a node that was replaced is struck as its successor. Workers more often."""
        numbers = [f"node {number}" for number in range(len(self.nodes))]
        return [*numbers, *numbers, "pool", *(["engine", "engine"] if self.engine else [])]

    def named(self, target: str) -> str:
        """The node that has this place now; pool and engine as they are."""
        return list(self.nodes)[int(target.split()[1])] if target.startswith("node ") else target

    def service(self, name: str) -> chaos_service.Service:
        """The process of that name."""
        return self.pool if name == "pool" else self.nodes[name]

    async def until_ready(self, service: chaos_service.Service) -> None:
        """Start it until it is ready; complains where it is not."""
        try:
            self.counts["starts that failed"] += await service.until_ready(self.pace)
        except TimeoutError as error:
            self.complaints.append(str(error))

    async def add_node(
        self, name: str, *, number: int, fenced: bool, old: bool = False, after: str = ""
    ) -> chaos_service.Service:
        """Make a worker with its relay and disks, not yet started; ``after``: it takes that node's place."""
        # One place has its calls relayed as calls; at the others the pool itself meets what becomes of connections.
        target = self.address
        if number == 0:
            relay = jumbling_proxy.before(target, seed=self.seed)
            self.jumblers[name] = await self.stack.enter_async_context(relay)
            target = self.jumblers[name].address
        line = await self.stack.enter_async_context(cutting_proxy.line(target))
        place = self._home(name, {"": 0, "work": 0, "outbox": 0})
        temporary = self.folder / f"{name}-temp"
        temporary.mkdir(mode=0o755)
        fence = [f"--docker-host={self.engine.url}"] if fenced and self.engine else []
        words = [
            "--debug", "worker", f"--node-id={name}", f"--node-pool={line.address}",
            f"--isolation={'docker' if fence else 'sandbox'}", *fence,
            f"--state-dir={place}", f"--temp-dir={temporary}", f"--log-dir={self.folder / 'log'}",
            "--log-format=json", f"--max-concurrent-tasks={self.slots}",
            f"--grace-seconds={self.grace_seconds}",
            f"--heartbeat-interval={self.lease_seconds / 4}", "--poll-wait-seconds=10",
            # This run keeps the machine busy, and so may others: that is no reason to stand still.
            "--overload-cpu-percent=100", "--unhealthy-cpu-percent=100",
            # Both ways of dealing with a lease that ran out.
            f"--past-lease={('finish', 'stop')[number % 2]}",
        ]  # fmt: skip
        roots = [disk.path for (who, _), disk in self.disks.items() if who == name]
        service = chaos_service.Service(name, self.folder, words, self._environment(name, roots), '"registered"')
        service.old = self.means.before if old else None
        if after:
            names = [name if other == after else other for other in self.nodes]
            self.retired[after] = self.nodes[after]
            self.nodes = {**self.nodes, name: service}
            self.nodes = {other: self.nodes[other] for other in names}
        else:
            self.nodes[name] = service
        self.lines[name] = line
        return service

    def add_pool_home(self) -> Path:
        """Make the pool's folder and disks."""
        place = self._home("pool", {part: int(each * self.tasks) for part, each in POOL_GROWTH_MIB.items()})
        roots = [disk.path for (who, _), disk in self.disks.items() if who == "pool"]
        self.pool.environment = self._environment("pool", roots)
        return place

    def _home(self, name: str, more_mib: Mapping[str, int]) -> Path:
        """Make a folder with disks of its own: itself (``""``, first) and below it, of so many MiB more than usual."""
        home = self.folder / name
        home.mkdir(parents=True)
        if self.means.disks:
            for part, more in more_mib.items():
                place = home / part
                place.mkdir(mode=0o700, exist_ok=True)
                self.disks[name, part] = self.stack.enter_context(small_disk.mounted(place, DISK_MIB + more))
        return home

    def _environment(self, name: str, roots: list[Path]) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HIVEMIND_", "XDG_", "DOCKER_"))}
        # Busy the machine is, with all of this; full its small disks become on purpose.
        limits = {"HIVEMIND_OVERLOAD_CPU_PERCENT": "100", "HIVEMIND_OVERLOAD_MEMORY_PERCENT": "100"}
        made = {
            **kept,
            **limits,
            **own_images.VARIABLES,
            "HOME": str(self.folder),
            "NO_COLOR": "1",
            "DOCKER_CONFIG": str(self.folder),
        }
        if self.means.libraries:
            clock, undo = self.folder / f"{name}.clock", self.folder / f"{name}.undo"
            preloaded.set_clock(clock, 0)
            undo.mkdir()
            made |= {"STEPPED_CLOCK": str(clock), **unsynced.environment(roots, undo)}
            made |= preloaded.environment(self.means.libraries)
        return made

    async def keep_alive(self) -> None:
        """What a supervisor does: start what ended by itself. Each such end is counted, and kept for a look."""
        while True:
            await asyncio.sleep(0.5)
            for service in (self.pool, *self.nodes.values()):
                if service.name in self.busy or service.process is None or service.process.poll() is None:
                    continue
                service.deaths.append(service.process.returncode)
                self.counts[f"ended by itself with {service.process.returncode}"] += 1
                self.busy.add(service.name)
                began, at = time.time(), time.monotonic()
                await self.until_ready(service)
                self.busy.discard(service.name)
                self.note_fault("ended by itself", service.name, began, at)

    def note_fault(self, kind: str, who: str, began: float, at: float) -> None:
        """Record a fault that is over now: from ``began`` by the wall clock, ``at`` by the monotonic one."""
        healing = max(HEALING_SECONDS, 2 * self.lease_seconds)
        nodes = self.engine_nodes if who == "engine" else []
        for node in nodes or [who]:
            self.absences.append(history.Absence(node, began, time.time() + healing))
        now = time.monotonic()
        self.recorder.write("fault", what=kind, who=who, begin=at, end=now, settled=now + healing, nodes=nodes)

    async def end(self) -> None:
        """End workers, then the pool, in order."""
        for service in (*self.nodes.values(), self.pool):
            if service.process is None:
                continue
            code = await service.end(self.pace)
            if code != 0:
                self.complaints.append(f"{service.name} ended with {code}, see {service.log}")

    def kill_all(self) -> None:
        """Kill every process of ours, whatever state it is in, with the sandboxes that it ran and their groups."""
        processes = [service.process for service in (*self.nodes.values(), *self.retired.values(), self.pool)]
        for process in [*processes, *self.extras]:
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
                for name in (*self.nodes, *self.retired):
                    left_processes.end(left_processes.of_node(name, self.folder / name))
                own_groups.forget(process.pid)


def means(folder: Path, *, disks: bool, before: Path | None) -> Means:
    """Find out what this machine can do."""
    disks = disks and small_disk.can_mount()
    libraries = {}
    if system_packages.program("gcc"):
        libraries = {name: preloaded.build(name, folder) for name in ("unsynced", "stepped_clock")}
    return Means(libraries, before, disks)


@contextlib.asynccontextmanager
async def world(made: World, *, sandboxes: int, containers: int, olds: Mapping[str, bool]) -> AsyncIterator[World]:
    """Have a pool and workers at work within this block; they are ended in order by `World.end`, or killed.

    ``olds`` names those that begin as the version before, by role: ``pool``, ``node 0`` ….
    """
    async with made.stack:
        state_dir = made.add_pool_home()
        pool = made.pool
        pool.words = [
            "pool", "--listen=127.0.0.1:0", f"--state-dir={state_dir}", f"--log-dir={made.folder / 'log'}",
            "--log-format=json", f"--pool-lease-seconds={made.lease_seconds}",
        ]  # fmt: skip
        pool.old = made.means.before if olds.get("pool") else None
        made.stack.callback(made.kill_all)
        await made.until_ready(pool)
        made.address = pool.said(chaos_service.ADDRESS)
        pool.words[1] = f"--listen={made.address}"
        if containers:
            patience = private_engine.PrivateEngine.start_seconds * made.pace.slowness
            running = private_engine.running(live_restore=made.seed % 2 == 0, start_seconds=patience)
            made.engine = await asyncio.to_thread(made.stack.enter_context, running)
        names = [f"chaos-{made.seed}-{number}" for number in range(sandboxes + containers)]
        made.engine_nodes = names[sandboxes:]
        for number, name in enumerate(names):
            old = bool(olds.get(f"node {number}"))
            await made.add_node(name, number=number, fenced=name in made.engine_nodes, old=old)
        made.stack.callback(made.kill_all)  # before their disks and their engine go
        await asyncio.gather(*(made.until_ready(node) for node in made.nodes.values()))
        yield made
