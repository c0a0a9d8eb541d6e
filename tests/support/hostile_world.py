"""`hivemind up` with hostile tasks and ordinary ones beside them, and what must hold of it all (INV-1 to INV-7)."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import engine_api
import hostile_tasks
import installed
import left_processes
import waiting

from hivemind_worker import errors
from hivemind_worker.client import client as clients
from hivemind_worker.client import shapes
from hivemind_worker.tasks import outcome

MIB = 1024 * 1024
HEARTBEAT_SECONDS = 1.0
RSS_GROWTH_BYTES = 150 * MIB
"""INV-1. What is allowed of it beside `hivemind up`'s pool, whose cache of 32 MiB fills meanwhile, is in that."""
DISK_BYTES = 32 * MIB
POOLS_OWN = ("pool.sqlite", "pool-artifacts", "logs")
"""What the pool keeps of a task until its user fetches it, or days have passed; in the state folder."""
POOLS_BYTES_A_TASK = 32 * 1024
MAX_GAP_SECONDS = 2 * HEARTBEAT_SECONDS + 0.5
"""INV-2, and how often this looks on a machine that has enough to do."""
ENDS = frozenset({"complete", "fail", "cancel"})
POOLED_THREADS = 10
"""Pools of threads fill as they are needed, up to their bounds, and stay."""
GONE_SECONDS = 15.0
ORDINARY = {"command": ["/bin/sh", "-c", "sleep 0.2; echo $((6 * 7)) | tee results/answer"], "memory_limit": "64m"}


@dataclass
class Snapshot:
    """What the process holds."""

    rss: int
    files: int
    threads: int
    written: int
    """Bytes below its home but for POOLS_OWN: of a disk that others use as well, what is free says nothing."""
    pools: int
    """Bytes of POOLS_OWN."""


@dataclass
class World:
    """One worker under attack."""

    up: installed.Up
    client: clients.Client
    sentinel: Path
    engine: str = ""
    """Address of the engine whose objects are looked at; empty for the sandbox."""
    heartbeats: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    """How long each ordinary task of the last `run` took, from its assignment to its end, in seconds."""

    def run(self, cases: list[hostile_tasks.Case]) -> dict[str, tuple[shapes.Task, str]]:
        """Run all attacks, an ordinary task between two; every ordinary one must be right. Returns ends and outputs."""
        tasks = [[case.task, ORDINARY] if at % 2 else [case.task] for at, case in enumerate(cases)]
        ids = self.client.submit([task for both in tasks for task in both])
        ended = iter(self.client.wait(ids, seconds=300))
        ends: dict[str, tuple[shapes.Task, str]] = {}
        self.beside = []
        for case, both in zip(cases, tasks, strict=True):
            attack = next(ended)
            ends[case.id] = attack, self.text(attack.id)
            for _ in both[1:]:
                ordinary = next(ended)
                assert ordinary.exit_code == 0, ordinary
                assert self.text(ordinary.id) == "42\n", ordinary
                self.beside.append(ordinary.ended_at - ordinary.assigned_at)
        return ends

    def warm_up(self) -> None:
        """Several ordinary tasks at once, so that threads, lines and caches are there which are made once."""
        ids = self.client.submit([ORDINARY] * 8)
        assert all(task.exit_code == 0 for task in self.client.wait(ids, seconds=120))

    def ordinary_seconds(self) -> float:
        """How long an ordinary task takes now, from its assignment to its end."""
        task = self.client.run(ORDINARY, seconds=120)
        assert task.exit_code == 0, task
        return task.ended_at - task.assigned_at

    def text(self, task_id: str) -> str:
        """What a task wrote to its standard output."""
        pieces = (piece for piece in self.client.logs(task_id) if str(piece.stream) == "stdout")
        return b"".join(piece.data for piece in pieces).decode(errors="replace")

    def snapshot(self) -> Snapshot:
        """What the worker's process holds now."""
        place = Path(f"/proc/{self.up.process.pid}")
        status = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines() if ":" in line)
        files = len(list((place / "fd").iterdir()))
        return Snapshot(int(status["VmRSS"].split()[0]) * 1024, files, int(status["Threads"]), *self._written())

    def _written(self) -> tuple[int, int]:
        state = self.up.shell.home / "state"
        written = {True: 0, False: 0}
        for path in self.up.shell.home.rglob("*"):
            if path.is_file() and not path.is_symlink():
                is_pools = path.is_relative_to(state) and path.relative_to(state).parts[0].startswith(POOLS_OWN)
                written[is_pools] += _blocks(path)
        return written[False], written[True]

    def _open(self) -> list[str]:
        place = Path(f"/proc/{self.up.process.pid}")
        threads = [(task / "comm").read_text().strip() for task in (place / "task").iterdir()]
        return sorted(threads) + sorted(str(file.readlink()) for file in (place / "fd").iterdir())

    def left(self) -> list[str]:
        """What is left of tasks: containers, volumes, processes."""
        found = [f"process {pid}: {command}" for pid, command in self._processes().items()]
        if self.engine:
            filters = json.dumps({"label": [f"io.hivemind.node-id={self.up.node}"]})
            # What lies at the engine for the node itself has no task's label.
            made = engine_api.get(self.engine, "/containers/json", all="1", filters=filters)
            found += [f"container {one['Id'][:12]}" for one in made if "io.hivemind.task-id" in one["Labels"]]
        return found

    def _processes(self) -> Mapping[int, str]:
        of_node = left_processes.of_node(self.up.node)
        return {pid: command for pid, command in of_node.items() if pid != self.up.process.pid}

    def refusal(self, fields: Mapping[str, Any]) -> str:
        """How the task is refused; empty where it is not."""
        try:
            self.client.submit(hostile_tasks.refused_task(fields))
        except errors.InvalidTask as error:
            return str(error)
        return ""

    def broken(self, before: Snapshot, ids: Sequence[str]) -> dict[str, str]:
        """Which invariants do not hold now, and how; ``ids``: the attacks, all ended. INV-3 was looked at in `run`."""
        looks: Mapping[str, Callable[[], None]] = {
            "INV-1": lambda: self._is_as_before(before),
            "INV-2": self._heartbeats_came,
            "INV-4": lambda: self._each_ended_once(ids),
            "INV-5": lambda: self._nothing_is_left(before, ids),
            "INV-6": self._sentinel_is_as_before,
            "INV-7": lambda: self._takes_less_than(60),
        }
        broken = {}
        for name, look in looks.items():
            try:
                look()
            except AssertionError as error:
                broken[name] = str(error)
        return broken

    def _is_as_before(self, before: Snapshot) -> None:
        assert self.up.process.poll() is None, (self.up.shell.home / "up.log").read_text()[-3000:]

        def is_back() -> bool:
            now = self.snapshot()
            return now.files <= before.files + 4 and now.threads <= before.threads + POOLED_THREADS

        try:
            waiting.wait_for(is_back, description="descriptors and threads are back", seconds=GONE_SECONDS)
        except AssertionError as error:
            raise AssertionError(f"{error}: {before}, now {self.snapshot()}: {self._open()}") from None
        assert self.snapshot().rss - before.rss <= RSS_GROWTH_BYTES

    def _heartbeats_came(self) -> None:
        gaps = [later - earlier for earlier, later in zip(self.heartbeats, self.heartbeats[1:], strict=False)]
        assert gaps, "no heartbeat was seen"
        assert max(gaps) <= MAX_GAP_SECONDS, f"heartbeats {max(gaps):.1f} s apart"

    def _each_ended_once(self, ids: Sequence[str]) -> None:
        for task_id in ids:
            task = self.client.task(task_id)
            ends = [event.event for event in task.story if event.event in ENDS]
            assert len(ends) == 1, task.story
            assert task.reason is not outcome.Reason.INTERNAL, task

    def _nothing_is_left(self, before: Snapshot, ids: Sequence[str]) -> None:
        waiting.wait_for(lambda: not self.left(), description="nothing is left of any task", seconds=GONE_SECONDS)
        sandboxes = [path for path in self.up.shell.home.glob("hivemind-workspace-*") if any(path.iterdir())]
        assert not sandboxes, sandboxes
        written, pools = self._written()
        assert written - before.written <= DISK_BYTES, f"{(written - before.written) / MIB:.0f} MiB more on the disk"
        # Twice: in its files and in the tables. An ordinary task ran between two.
        output = 2 * sum(len(piece.data) for task_id in ids for piece in self.client.logs(task_id))
        kept = pools - before.pools - output
        bound = DISK_BYTES + 3 * len(ids) // 2 * POOLS_BYTES_A_TASK
        assert kept <= bound, f"the pool keeps {kept / MIB:.0f} MiB more than twice the output"

    def _sentinel_is_as_before(self) -> None:
        assert self.sentinel.read_text() == "hunter2"

    def _takes_less_than(self, seconds: float) -> None:
        assert self.ordinary_seconds() < seconds


@contextlib.contextmanager
def world(shell: installed.Shell, engine: str = "") -> Iterator[World]:
    """`up` with four tasks at a time, a port of the host that must not be reached, a file that must not be read."""
    sentinel = shell.home / "sentinel"
    sentinel.write_text("hunter2")
    sentinel.chmod(0o644)
    options = ("--max-concurrent-tasks=4", f"--heartbeat-interval={HEARTBEAT_SECONDS:.0f}")
    with installed.running_up(shell, *options) as up, clients.Client(up.address) as client:
        made = World(up, client, sentinel, engine)
        with _watching_heartbeats(made):
            yield made


@contextlib.contextmanager
def _watching_heartbeats(made: World) -> Iterator[None]:
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            for node in made.client.nodes():
                if not made.heartbeats or node.last_heartbeat_at > made.heartbeats[-1]:
                    made.heartbeats.append(node.last_heartbeat_at)

    watcher = threading.Thread(target=watch, name="heartbeats")
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


@contextlib.contextmanager
def host_port() -> Iterator[tuple[str, int, list[object]]]:
    """A port on every address of this host, one such address, and the connections that came."""
    with socket.create_server(("0.0.0.0", 0), backlog=64) as listening:
        came: list[object] = []
        over = threading.Event()
        listening.settimeout(0.2)

        def accept() -> None:
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    line, peer = listening.accept()
                    line.close()
                    came.append(peer)

        thread = threading.Thread(target=accept, name="host port")
        thread.start()
        try:
            yield _address(), listening.getsockname()[1], came
        finally:
            over.set()
            thread.join()


def _blocks(path: Path) -> int:
    try:
        return path.lstat().st_blocks * 512
    except FileNotFoundError:
        return 0  # gone since it was listed


def _address() -> str:
    words = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=False).stdout.split()
    return words[0] if words else "127.0.0.1"
