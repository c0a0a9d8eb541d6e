"""The expiry loop judges nobody by a time in which its own process stood still, whatever it was doing then."""

from __future__ import annotations

import asyncio
from typing import cast

import store_parts

from hivemind_worker.concurrency import stopping
from hivemind_worker.pool.scheduling import leases
from hivemind_worker.pool.store import clocks, records, store

LEASE = 0.2


class StoreThatStandsStill:
    """The clock goes on by two leases while this looks for what is lost, for the first time."""

    def __init__(self, stop: stopping.Stop, clock: store_parts.Clock, running: clocks.RunningTime) -> None:
        self.calls: list[str] = []
        self._stop = stop
        self._clock = clock
        self._running = running

    def lease_time(self) -> float:
        return self._running()

    async def expire(self, _: float) -> records.Lost:
        self.calls.append("expire")
        self._clock.seconds += 2 * LEASE if len(self.calls) == 1 else LEASE / leases.LOOKS_PER_LEASE
        if len(self.calls) == 3:
            self._stop.request(stopping.StopLevel.CANCEL, "enough")
        return records.Lost((), ())

    async def begin_leases_anew(self) -> None:
        self.calls.append("begin anew")


async def test_a_process_that_stood_still_while_it_looked_begins_all_leases_anew() -> None:
    stop, clock = stopping.Stop(), store_parts.Clock()
    running = clocks.RunningTime(leases.COUNTS * LEASE, clock)
    kept = StoreThatStandsStill(stop, clock, running)
    async with asyncio.timeout(20):
        await leases.watch(cast("store.Store", kept), running, LEASE, lambda _: None, stop)
    assert kept.calls == ["expire", "begin anew", "expire"]
