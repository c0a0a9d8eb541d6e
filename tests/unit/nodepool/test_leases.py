"""The expiry loop judges nobody by a time in which its own process stood still, whatever it was doing then."""

from __future__ import annotations

import asyncio
from typing import cast

from hivemind_worker.concurrency import stopping
from hivemind_worker.nodepool import leases
from hivemind_worker.nodepool.store import records, store

LEASE = 0.2


class StoreThatStandsStill:
    """Its clock goes on by two leases while it looks for what is lost, for the first time."""

    def __init__(self, stop: stopping.Stop) -> None:
        self.calls: list[str] = []
        self._stop = stop
        self._time = 100.0

    def lease_time(self) -> float:
        return self._time

    async def expire(self, _: float) -> records.Lost:
        self.calls.append("expire")
        self._time += 2 * LEASE if len(self.calls) == 1 else LEASE / leases.LOOKS_PER_LEASE
        if len(self.calls) == 3:
            self._stop.request(stopping.StopLevel.CANCEL, "enough")
        return records.Lost((), ())

    async def begin_leases_anew(self) -> None:
        self.calls.append("begin anew")


async def test_a_process_that_stood_still_while_it_looked_begins_all_leases_anew() -> None:
    stop = stopping.Stop()
    kept = StoreThatStandsStill(stop)
    async with asyncio.timeout(20):
        await leases.watch(cast("store.Store", kept), LEASE, lambda _: None, stop)
    assert kept.calls == ["expire", "begin anew", "expire"]
