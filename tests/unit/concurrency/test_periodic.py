"""Ticks keep to their grid whatever the work between them takes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivemind_worker.concurrency import periodic
from hivemind_worker.concurrency.stopping import Stop, StopLevel

Virtually = Callable[[Coroutine[Any, Any, Any]], Any]
Seen = list[tuple[int, float]]


async def _ticks(stop: Stop, ticks: periodic.every, work_seconds: list[float]) -> Seen:
    """What came when; each tick's work takes the next of the given times, and after the last one it stops."""
    seen: Seen = []
    durations = iter(work_seconds)
    async for tick in ticks:
        seen.append((tick, asyncio.get_running_loop().time()))
        seconds = next(durations, None)
        if seconds is None:
            stop.request(StopLevel.DRAIN, "seen enough")
        else:
            await asyncio.sleep(seconds)
    return seen


def test_it_does_not_drift(virtually: Virtually) -> None:
    async def story() -> Seen:
        stop = Stop()
        return await _ticks(stop, periodic.every(10, stop), [3.7] * 1000)

    seen = virtually(story())
    assert seen[0] == (0, 0)
    assert seen[1000] == (1000, pytest.approx(10_000))


def test_it_does_not_pile_up_and_the_gap_tells_what_was_skipped(virtually: Virtually) -> None:
    async def story() -> Seen:
        stop = Stop()
        return await _ticks(stop, periodic.every(10, stop), [1, 34, 1, 1])

    seen = virtually(story())
    # tick 1 worked until 44: ticks 2 and 3 are gone, tick 4 comes late at once, tick 5 on time
    assert seen == [(0, 0), (1, 10), (4, 44), (5, 50), (6, 60)]


@given(
    works=st.lists(st.floats(0, 25), min_size=1, max_size=30),
    jitter=st.floats(0, 1),
    seed=st.integers(),
    at_once=st.booleans(),
)
def test_every_tick_lies_in_its_own_place_on_the_grid(
    virtually: Virtually, works: list[float], jitter: float, seed: int, at_once: bool
) -> None:

    async def story() -> Seen:
        stop = Stop()
        ticks = periodic.every(10, stop, jitter=jitter, at_once=at_once, rng=random.Random(seed))
        return await _ticks(stop, ticks, works)

    seen = virtually(story())
    numbers = [tick for tick, _ in seen]
    assert numbers == sorted(set(numbers)), "each tick once, in order"
    assert numbers[0] == (0 if at_once else 1)
    free = 0.0
    for (tick, at), work in zip(seen, [*works, 0], strict=True):
        earliest = max(free, tick * 10)
        assert earliest - 1e-3 <= at <= max(free, tick * 10 + jitter * 10) + 1e-3
        free = at + work


def test_jitter_spreads_the_ticks(virtually: Virtually) -> None:
    async def story() -> Seen:
        stop = Stop()
        return await _ticks(stop, periodic.every(10, stop, jitter=0.5, rng=random.Random(1)), [0] * 200)

    offsets = [at - tick * 10 for tick, at in virtually(story())][1:]
    assert min(offsets) < 0.3
    assert max(offsets) > 4.7


def test_a_stop_ends_the_wait_for_the_next_tick(virtually: Virtually) -> None:
    async def story() -> float:
        loop = asyncio.get_running_loop()
        stop = Stop()
        loop.call_later(13, stop.request, StopLevel.DRAIN, "over")
        async for _ in periodic.every(10, stop):
            pass
        return loop.time()

    assert virtually(story()) == 13


def test_it_may_be_told_to_go_on_while_draining(virtually: Virtually) -> None:
    async def story() -> list[int]:
        loop = asyncio.get_running_loop()
        stop = Stop()
        loop.call_later(5, stop.request, StopLevel.DRAIN, "draining")
        loop.call_later(25, stop.request, StopLevel.CANCEL, "over")
        return [tick async for tick in periodic.every(10, stop, level=StopLevel.CANCEL)]

    assert virtually(story()) == [0, 1, 2]


@pytest.mark.parametrize("interval", [0, -1, float("nan"), float("inf")])
def test_an_impossible_interval_is_refused(interval: float) -> None:
    with pytest.raises(ValueError, match="interval must be above 0"):
        periodic.every(interval, Stop())


@pytest.mark.parametrize("jitter", [-0.1, 1.1, float("nan")])
def test_an_impossible_jitter_is_refused(jitter: float) -> None:
    with pytest.raises(ValueError, match="part of the interval"):
        periodic.every(10, Stop(), jitter=jitter)
