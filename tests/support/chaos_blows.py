"""The blows of a chaos run: what is done to whom, and how it is undone; each is a fault in the clients' history."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import chaos_plan
import chaos_world
import cutting_proxy
import grpc
import installed
import own_groups
import preloaded
import private_engine
import unsynced

from hivemind_worker.wire import calls, channels

DEAF_SECONDS = 0.3
"""Shorter, and there may be no answer to lose."""

RECOVERY_SECONDS = 120.0
"""Quiet seconds after which a recovery is given up waiting for."""

STEPS = (-86_400, -3_600, -30, -2, 2, 30, 3_600, 86_400)
"""Seconds by which a wall clock is off while it is struck."""


class Striker:
    """Does blows to a world, one at a time to each target."""

    def __init__(self, world: chaos_world.World) -> None:
        self.world = world
        self._draw = random.Random(f"details {world.seed}")
        self._recovering: set[asyncio.Task[None]] = set()

    async def strike(self, blow: chaos_plan.Blow) -> None:
        """Do what the blow says and undo it after its time; nothing where its target is in trouble already."""
        world, name = self.world, self.world.named(blow.target)
        if name in world.busy:
            return
        world.busy.add(name)
        world.counts[f"{blow.kind} {'worker' if name in world.nodes else name}"] += 1
        began, at = time.time(), time.monotonic()
        try:
            await _BLOWS[blow.kind](self, name, blow.seconds)
        finally:
            world.busy.discard(name)
            world.note_fault(blow.kind, name, began, at)
        if name != "engine":
            task = asyncio.create_task(self._recovery(name, time.monotonic()), name=f"recovery of {name}")
            self._recovering.add(task)
            task.add_done_callback(self._recovering.discard)

    async def _recovery(self, name: str, since: float) -> None:
        """How long after a blow's end its target acts again, as clients see it; not where it is struck once more."""
        world = self.world

        def acts() -> bool:
            return self._last(name) > since

        with contextlib.suppress(TimeoutError):
            await world.pace.wait_until(lambda: acts() or self._struck(name), f"{name} acts", RECOVERY_SECONDS)
        if acts():
            world.recorder.write("recovery", who=name, seconds=round(self._last(name) - since, 3))
        elif not self._struck(name):
            world.complaints.append(f"{name} did not recover within {RECOVERY_SECONDS:g} quiet seconds")

    def _last(self, name: str) -> float:
        return self.world.recorder.last_answer if name == "pool" else self.world.alive.get(name, 0.0)

    def _struck(self, name: str) -> bool:
        return bool({name, "pool"} & self.world.busy) or (name != "pool" and name not in self.world.nodes)

    async def settle(self) -> None:
        """Wait for the recoveries that are still measured."""
        if self._recovering:
            await asyncio.wait(self._recovering)

    async def kill(self, name: str, seconds: float) -> None:
        """-9, then started again, as the version of today."""
        if name == "engine":
            engine = self.world.engine
            assert engine is not None
            await asyncio.to_thread(engine.kill)
            await asyncio.sleep(seconds)
            engine.start_seconds = private_engine.PrivateEngine.start_seconds * self.world.pace.slowness
            await asyncio.to_thread(engine.start)
            return
        service = self.world.service(name)
        if service.old is not None:
            service.old = None
            self.world.counts["upgrades from the version before"] += 1
        try:
            await service.restart(seconds, self.world.pace)
        except TimeoutError as error:
            self.world.complaints.append(str(error))

    async def power(self, name: str, seconds: float) -> None:
        """All of it dies at once, tasks too, and its disks forget what was not synced."""
        world = self.world
        if name in world.engine_nodes:
            return await self.kill(name, seconds)  # its containers are the engine's
        service = world.service(name)
        await asyncio.to_thread(self._end_all, name)
        assert service.process is not None
        await asyncio.to_thread(service.process.wait)
        roots = [disk.path for (who, _), disk in world.disks.items() if who == name]
        undone = await asyncio.to_thread(unsynced.roll_back, roots, service.undo, self._draw)
        world.counts["unsynced changes dropped"] += undone
        await asyncio.sleep(seconds)
        return await world.until_ready(service)

    def _end_all(self, name: str) -> None:
        """Kill a service and all that hangs on it: its holder, its sandboxes, and what runs in them."""
        world = self.world
        folder = str(world.folder)
        mine = re.compile(rf"{re.escape(folder)}/{re.escape(name)}(?:-temp|-copy)?(?:/|\s|$)")
        while True:
            parents, marked = {}, set()
            for entry in os.scandir("/proc"):
                if entry.name.isdigit():
                    with contextlib.suppress(OSError):
                        stat = Path(entry.path, "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2]
                        if stat.split()[0] in "ZX":
                            continue
                        parents[int(entry.name)] = int(stat.split()[1])
                        words = Path(entry.path, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                        if mine.search(words):
                            marked.add(int(entry.name))
            marked.add(world.service(name).pid or -1)
            while grown := {pid for pid, parent in parents.items() if parent in marked and pid not in marked}:
                marked |= grown
            marked &= parents.keys() - {os.getpid()}
            if not marked:
                return
            for pid in marked:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)

    async def stop(self, name: str, seconds: float) -> None:
        """Stopped in its tracks for a while."""
        if name == "engine":
            engine = self.world.engine
            assert engine is not None
            engine.freeze()
            await asyncio.sleep(seconds)
            engine.thaw()
            return
        service = self.world.service(name)
        service.signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        service.signal(signal.SIGCONT)

    async def part(self, name: str, seconds: float) -> None:
        """No way to the pool."""
        await self._line(name, seconds, lambda line: line.part())

    async def freeze(self, name: str, seconds: float) -> None:
        """A half-open way to the pool."""
        await self._line(name, seconds, lambda line: line.freeze())

    async def deafen(self, name: str, seconds: float) -> None:
        """A way to the pool, and none back."""
        await self._line(name, max(seconds, DEAF_SECONDS), lambda line: line.deafen())

    async def slow(self, name: str, seconds: float) -> None:
        """A slow way to the pool."""

        def delay(line: cutting_proxy.Line) -> None:
            line.delay_seconds = 0.05

        await self._line(name, seconds, delay)

    async def cut(self, name: str, _seconds: float) -> None:
        """The line breaks, and a new one can be had at once."""
        self.world.lines[name].break_now()

    async def _line(self, name: str, seconds: float, doing: Callable[[cutting_proxy.Line], None]) -> None:
        doing(self.world.lines[name])
        await asyncio.sleep(seconds)
        self.world.lines[name].join()

    async def jumble(self, name: str, seconds: float) -> None:
        """Calls come late, in another order, and some twice; where calls are not relayed as such, all is slow."""
        jumbler = self.world.jumblers.get(name)
        if jumbler is None:
            return await self.slow(name, seconds)
        jumbler.max_delay = self.world.lease_seconds / 2
        await asyncio.sleep(max(seconds, 1.0))
        jumbler.max_delay = 0.0
        return None

    async def fill(self, name: str, seconds: float) -> None:
        """The disk of its state is full."""
        await self._fill(name, "", seconds)

    async def fill_artifacts(self, name: str, seconds: float) -> None:
        """The disk of its result files is full."""
        await self._fill(name, "pool-artifacts" if name == "pool" else "work", seconds)

    async def fill_logs(self, name: str, seconds: float) -> None:
        """The disk of the output is full; a worker's is that of its unsent reports."""
        await self._fill(name, "logs" if name == "pool" else "outbox", seconds)

    async def _fill(self, name: str, part: str, seconds: float) -> None:
        disk = self.world.disks[name, part]
        await asyncio.to_thread(disk.fill)
        await asyncio.sleep(max(seconds, 0.5))
        await asyncio.to_thread(disk.clear)

    async def clock(self, name: str, seconds: float) -> None:
        """Its wall clock steps, and after a while steps back to the truth."""
        service = self.world.service(name)
        preloaded.set_clock(service.clock, self._draw.choice(STEPS))
        await asyncio.sleep(max(seconds, 2.0))
        preloaded.set_clock(service.clock, 0)

    async def replace(self, name: str, _seconds: float) -> None:
        """The node never comes back, with all that it held; a fresh one with a new id takes its place."""
        world = self.world
        if name in world.engine_nodes:
            return await self.kill(name, _seconds)
        number, pid = list(world.nodes).index(name), world.service(name).pid
        await asyncio.to_thread(self._end_all, name)
        own_groups.forget(pid)
        world.lines[name].part()
        shutil.rmtree(world.folder / f"{name}-temp", ignore_errors=True)
        base, _, generation = name.partition("-fresh-")
        fresh = f"{base}-fresh-{int(generation or 0) + 1}"
        world.busy.add(fresh)
        try:
            service = await world.add_node(fresh, number=number, fenced=False, after=name)
            await world.until_ready(service)
        finally:
            world.busy.discard(fresh)

    async def clone(self, name: str, seconds: float) -> None:
        """A copy of its state folder is started beside it, on the same line; it goes after a while."""
        world = self.world
        if name in world.engine_nodes:
            await self.slow(name, seconds)  # a copy would clear away its namesake's containers, as it should
            return
        service = world.service(name)
        copy, temporary = world.folder / f"{name}-copy", world.folder / f"{name}-copy-temp"
        await asyncio.to_thread(_copy, world.folder / name, copy)
        temporary.mkdir(mode=0o755)
        words = [
            f"--state-dir={copy}" if word.startswith("--state-dir=") else word
            for word in service.words if not word.startswith("--temp-dir=")
        ]  # fmt: skip
        environment = {key: value for key, value in service.environment.items() if key != "LD_PRELOAD"}
        clone = await asyncio.to_thread(
            _start, [str(installed.HIVEMIND), *words, f"--temp-dir={temporary}"], environment, f"{copy}.log"
        )
        world.extras.append(clone)
        limit = max(seconds, 2 * world.lease_seconds)
        with contextlib.suppress(TimeoutError):
            await world.pace.wait_until(lambda: clone.poll() is not None, "the copy ends", limit)
        world.counts[f"copies that {'ended with ' + str(clone.poll()) if clone.poll() is not None else 'stayed'}"] += 1
        if clone.poll() is None:
            clone.kill()
        await asyncio.to_thread(clone.wait)
        own_groups.forget(clone.pid)
        await asyncio.to_thread(self._end_copy, copy, temporary)

    def _end_copy(self, *folders: Path) -> None:
        """End what a copy ran, and remove its folders."""
        ours = tuple(str(folder) for folder in folders)
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if any(folder.encode() in Path(entry.path, "cmdline").read_bytes() for folder in ours):
                        os.kill(int(entry.name), signal.SIGKILL)
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)

    async def register(self, name: str, _seconds: float) -> None:
        """Somebody registers with its id, as one that knows no sessions, or with a boot id of its own."""
        world = self.world
        request = calls.pb.RegisterNodeRequest(node_id=name, cpu_cores=1, memory_gb=1, disk_gb=1)
        if self._draw.random() < 0.5:
            request.boot_id = secrets.token_hex(16)
        channel = channels.open_channel(channels.Line(world.address, None, insecure=False))
        try:
            answer = await calls.node_manager(channel).RegisterNode(request, timeout=30)
            world.counts[f"strangers {'let in' if answer.success else 'refused'}"] += 1
        except grpc.aio.AioRpcError:
            world.counts["strangers refused"] += 1
        finally:
            await channel.close()


def _start(words: list[str], environment: dict[str, str], log: str) -> subprocess.Popen[bytes]:
    with Path(log).open("ab") as file:
        return subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=file, env=environment
        )


def _copy(source: Path, target: Path) -> None:
    """A folder as a snapshot of its disk would have it, sockets left out."""

    def special(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if not (Path(folder, name).is_file() or Path(folder, name).is_dir())]

    with contextlib.suppress(shutil.Error):  # what went away while it was copied
        shutil.copytree(source, target, ignore=special)


_BLOWS: dict[str, Callable[[Striker, str, float], Awaitable[None]]] = {
    kind: getattr(Striker, kind) for kind in chaos_plan.KINDS
}
