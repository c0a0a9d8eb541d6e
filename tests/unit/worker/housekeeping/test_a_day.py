"""A day of housekeeping in virtual time: images come all day, the disk stays below the mark, nothing held goes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from hivemind_worker import errors
from hivemind_worker.concurrency import clock, stopping
from hivemind_worker.worker.housekeeping import policy, sweep

EPOCH = 1_800_000_000.0
CAPACITY, OWNERS, ALLOWED = 100_000, 30_000, 85.0
INTERVAL = 300.0
ARRIVALS = 240.0


class Machine:
    """A machine's disk as numbers: what its owner keeps, and images that come and are used."""

    name = "images"

    def __init__(self) -> None:
        self.images: dict[str, policy.Thing] = {}
        self.ever = 0
        self.closed = False

    def now(self) -> float:
        return EPOCH + clock.now()

    @property
    def used(self) -> int:
        return OWNERS + sum(thing.size_bytes for thing in self.images.values())

    async def measure(self, _: Sequence[str]) -> Mapping[str, policy.Disk]:
        return {"/": policy.Disk("/", self.used, CAPACITY - self.used)}

    async def look(self) -> Sequence[policy.Thing]:
        if self.closed:
            raise errors.EngineLost("the engine is away")
        return list(self.images.values())

    async def remove(self, thing: policy.Thing) -> bool:
        return self.images.pop(thing.name, None) is not None

    def arrive(self, size: int, held: str = "") -> None:
        self.ever += 1
        self.put(f"image:{self.ever}", size, held)

    def put(self, name: str, size: int, held: str = "") -> None:
        self.images[name] = policy.Thing(
            kind=policy.Kind.IMAGE, name=name, size_bytes=size, last_used=self.now(), disk="/", held=held
        )


def test_a_day_of_housekeeping(virtually: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    async def story() -> None:
        machine, rng, stop = Machine(), random.Random(1), stopping.Stop()
        for name in ("owners-own", "pinned", "in-use"):
            machine.put(name, 2_000, held=name)
        house = sweep.Housekeeping(
            [machine], policy.Terms(ALLOWED), interval=INTERVAL, measure=machine.measure, now=machine.now
        )
        tidying = asyncio.create_task(house.run(stop))
        worst, looks = 0.0, 0
        while clock.now() < policy.DAY:
            machine.arrive(rng.randrange(50, 800))
            machine.put("every-task", 3_000)  # used again and again: never the one to go
            machine.closed = 40_000 < clock.now() < 43_000  # the engine is away for fifty minutes
            await stop.wait(stopping.StopLevel.DRAIN, timeout=ARRIVALS)
            if not machine.closed and clock.now() > 45_000:
                # What came since the last round is there on top of it: at most an interval's arrivals.
                worst = max(worst, 100 * (machine.used - 2 * 800) / CAPACITY)
            looks += 1
        stop.request(stopping.StopLevel.DRAIN, "the day is over")
        await tidying
        assert looks == 360
        assert machine.ever == 360
        assert worst <= ALLOWED
        assert {"owners-own", "pinned", "in-use", "every-task"} <= machine.images.keys()
        assert len(machine.images) < 200  # most have gone
        kept = [int(name.partition(":")[2]) for name in machine.images if name.startswith("image:")]
        assert sorted(kept) == list(range(min(kept), machine.ever + 1))  # the oldest went, in their order

    virtually(story())
