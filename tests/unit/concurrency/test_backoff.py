"""Delays lie under their ceiling, are spread over all of it, and a stop ends the pause."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivemind_worker.concurrency import backoff
from hivemind_worker.concurrency.stopping import Stop, StopLevel

Virtually = Callable[[Coroutine[Any, Any, Any]], Any]


@given(
    attempt=st.integers(0, 10_000),
    seed=st.integers(),
    base=st.floats(0.001, 10),
    cap=st.floats(0.001, 600),
    least=st.floats(0, 20),
)
def test_a_delay_lies_between_the_least_and_the_ceiling(
    attempt: int, seed: int, base: float, cap: float, least: float
) -> None:
    seconds = backoff.delay(attempt, random.Random(seed), base=base, cap=cap, least=least)
    ceiling = max(least, min(cap, base * 2.0 ** min(attempt, 64)))
    assert least <= seconds <= ceiling
    again = backoff.delay(attempt, random.Random(seed), base=base, cap=cap, least=least)
    assert again == seconds, "the same attempt and the same generator give the same delay"


def test_the_jitter_is_full() -> None:
    rng = random.Random(7)
    seconds = [backoff.delay(3, rng, base=1, cap=60) for _ in range(1000)]
    assert min(seconds) < 0.1
    assert max(seconds) > 7.9
    assert 3.6 < sum(seconds) / len(seconds) < 4.4


def test_attempts_count_from_zero() -> None:
    with pytest.raises(ValueError, match="counts from 0"):
        backoff.delay(-1, random.Random(0))


def test_pauses_grow_until_reset_and_keep_to_the_least(virtually: Virtually) -> None:
    async def story() -> list[float]:
        loop = asyncio.get_running_loop()
        pauses = backoff.Backoff(Stop(), base=1, cap=30, least=1, rng=random.Random(3))
        taken = []
        for _ in range(200):
            before = loop.time()
            assert await pauses.pause()
            taken.append(loop.time() - before)
        pauses.reset()
        before = loop.time()
        assert await pauses.pause()
        assert loop.time() - before == pytest.approx(1), "after a success the ceiling is the base again"
        return taken

    taken = virtually(story())
    assert min(taken) >= 0.999
    assert max(taken) <= 30.001
    assert max(taken[10:]) > 25


def test_a_stop_ends_the_pause_at_once(virtually: Virtually) -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        stop = Stop()
        pauses = backoff.Backoff(stop, base=50, least=50)
        loop.call_later(2, stop.request, StopLevel.DRAIN, "over")
        assert not await pauses.pause()
        assert loop.time() == 2
        assert not await pauses.pause()
        assert loop.time() == 2

    virtually(story())
