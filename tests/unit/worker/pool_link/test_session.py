"""A session's pauses: as long as the backoff says, and over soon after the pool has answered anybody."""

from __future__ import annotations

import asyncio
import random

from hivemind_worker.concurrency import backoff, clock, stopping
from hivemind_worker.worker.pool_link import channel, client, session


class _Longest(random.Random):
    def uniform(self, _least: float, most: float) -> float:
        return most


def _session() -> session.Session:
    made = session.Session(client.NodePoolClient(channel.Access("127.0.0.1:1")))
    made._there.set()
    return made


async def _answer(made: session.Session) -> None:
    async def answered(_: str) -> bool:
        return True

    assert await made.call(answered)


def _pauses(stop: stopping.Stop, seconds: float) -> backoff.Backoff:
    return backoff.Backoff(stop, base=seconds, cap=seconds, rng=_Longest())


async def test_an_answer_to_anybody_ends_a_long_pause_but_no_sooner_than_after_a_second() -> None:
    made, stop = _session(), stopping.Stop()
    began = clock.now()
    pausing = asyncio.create_task(made.pause(_pauses(stop, 60.0)))
    await asyncio.sleep(0)
    await _answer(made)
    assert await pausing is True
    assert 0.9 < clock.now() - began < 5


async def test_without_an_answer_it_lasts_as_long_as_the_backoff_says_and_a_stop_ends_it() -> None:
    made, stop = _session(), stopping.Stop()
    await _answer(made)  # before the pause: no news
    began = clock.now()
    assert await made.pause(_pauses(stop, 1.5)) is True
    assert clock.now() - began > 1.4
    stop.request(stopping.StopLevel.DRAIN, "enough")
    assert await made.pause(_pauses(stop, 60.0)) is False
