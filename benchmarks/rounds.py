"""One round of dispatch in the store alone: what it costs at one queued shape, and at 10,000; on a disk, and in memory.

In memory nothing waits for a disk, so the difference of the walls is the wait of the commit. All ways take turns.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import common

from hivemind_worker import units
from hivemind_worker.pool.matching import assignment
from hivemind_worker.pool.store import records, sqlite
from hivemind_worker.tasks import outcome, resources

TASKS = 10_000
GIB = units.GIB
ROOM = resources.Resources(64, 256 * GIB, 100 * GIB)


@dataclass
class _Way:
    """A store with a queue; ``fits``: every task fits the node, else only each second one."""

    name: str
    shapes: int
    fits: bool
    folder: Path
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    async def begin(self) -> None:
        self._store = sqlite.SqliteStore(self.folder / "pool.sqlite")
        await self._store.open()
        order = list(range(TASKS))
        random.Random(1).shuffle(order)
        for start in range(0, TASKS, 1000):
            numbers = order[start : start + 1000]
            await self._store.submit([records.NewTask(f"t{n}", b"x", "", self._shape(n), "", 0) for n in numbers])
        self._session = (await self._store.register(records.NewNode("n", ROOM, "boot"), [])).session_id

    def _shape(self, task: int) -> assignment.Shape:
        number = task % self.shapes
        cores = 0.01 + number / 1000 if self.fits or number % 2 else 100.0 + number
        return assignment.Shape("command", resources.Resources(cores, GIB))

    async def round(self, *, counts: bool) -> None:
        poll = records.Poll("n", self._session, ROOM, most=1)
        began, cpu = time.perf_counter(), time.process_time()
        (given,) = await self._store.hand_out([poll])
        if counts:
            self.seconds.append(time.perf_counter() - began)
            self.cpu.append(time.process_time() - cpu)
        (handed,) = given.tasks
        done = outcome.Status.COMPLETED
        await self._store.report(records.Report(handed.task_id, "n", self._session, handed.attempt, done))

    async def end(self) -> None:
        await self._store.close()


def main(rounds: int) -> None:
    """Measure and print."""
    with contextlib.ExitStack() as stack:
        disks = {"disk": None, "memory": "/dev/shm"} if Path("/dev/shm").is_dir() else {"disk": None}
        ways = [
            _Way(f"{name}, {disk}", shapes, fits, Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder))))
            for disk, folder in disks.items()
            for name, shapes, fits in (
                ("one shape", 1, True),
                (f"{TASKS} shapes that fit", TASKS, True),
                (f"{TASKS} shapes, half of them fit", TASKS, False),
            )
        ]
        asyncio.run(_measure(ways, rounds))
    rows = []
    for number, way in enumerate(ways):
        base = ways[number - number % 3]
        rows.append(
            [
                way.name,
                common.milliseconds(statistics.median(way.cpu)),
                f"{_ratio(way.cpu, base.cpu):.2f}",
                common.milliseconds(statistics.median(way.seconds)),
                f"{_ratio(way.seconds, base.seconds):.2f}",
            ]
        )
    head = ["queue", "CPU ms", "÷ one shape", "wall ms", "÷ one shape"]
    common.table(f"One round of one claim, {TASKS} tasks queued ({rounds} rounds, in turn)", head, rows)


async def _measure(ways: Sequence[_Way], rounds: int) -> None:
    for way in ways:
        await way.begin()
    for number in range(rounds + 10):
        for way in ways:
            await way.round(counts=number >= 10)
    for way in ways:
        await way.end()


def _ratio(figures: Sequence[float], base: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(figures, base, strict=True))
