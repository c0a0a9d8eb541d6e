"""What is kept in memory for speed is let go when memory is short, once a minute at most; the heap really shrinks."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import pytest

from hivemind_worker.concurrency import clock, stopping
from hivemind_worker.worker.housekeeping import memory
from hivemind_worker.worker.machine import readings

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("percent", "since", "due"),
    [(79.9, 1e9, False), (80.0, 1e9, False), (80.1, 1e9, True), (100.0, 59.0, False), (100.0, 60.0, True)],
)
def test_when_it_is_due(percent: float, since: float, due: bool) -> None:
    assert memory.due(percent, 80.0, since) is due


def test_an_hour_of_short_memory(virtually: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    async def story() -> None:
        let_go: list[float] = []

        def measured() -> Mapping[str, float]:
            return {"memory_percent": 95.0 if 1000 < clock.now() < 1600 else 60.0}

        stop = stopping.Stop()
        watch = memory.Memory(measured, allowed=80.0, kept={"shelf": lambda: let_go.append(clock.now())})
        running = watch.run(stop)
        task = stopping_after(stop, 3600.0)
        await running
        await task
        assert let_go[0] == pytest.approx(1002, abs=6)
        assert 9 <= len(let_go) <= 10
        assert all(later - earlier >= 60 for earlier, later in itertools.pairwise(let_go))

    virtually(story())


def stopping_after(stop: stopping.Stop, seconds: float) -> asyncio.Task[None]:
    async def later() -> None:
        await asyncio.sleep(seconds)
        stop.request(stopping.StopLevel.DRAIN, "the hour is over")

    return asyncio.create_task(later())


def test_what_the_heap_holds_for_nobody_goes_back_to_the_system(tmp_path: Path) -> None:
    measure = readings.Readings(tmp_path).numbers
    blocks = [bytes(20_000) for _ in range(5_000)]
    kept = blocks[::50]  # holes between what is still used: the heap does not shrink by itself
    full = measure()["worker_memory_bytes"]
    del blocks
    held = measure()["worker_memory_bytes"]
    assert memory.Memory(measure, allowed=0.001).look()
    after = measure()["worker_memory_bytes"]
    assert len(kept) == 100
    assert full - after > 50 * MIB
    assert held - after > 20 * MIB
