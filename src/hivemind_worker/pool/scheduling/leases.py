"""The expiry loop: attempts of nodes that have been silent for a whole lease are given up, by the store's clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hivemind_worker import errors
from hivemind_worker.concurrency import periodic, stopping
from hivemind_worker.pool.store import clocks, records, store
from hivemind_worker.telemetry import logs

LOOKS_PER_LEASE = 20
"""A lost lease is seen this part of a lease late at most; a look costs one step in an index."""

AWAY = 0.5
"""The part of a lease that may lie between two looks. Nodes beat at least twice in a lease: in less than half of one
nobody can have been missed."""

COUNTS = 0.25
"""The part of a lease that the lease clock goes on by itself, without a look. Whoever beat half a lease before the
pool stood still has a quarter left, whatever is answered before the next look."""

log = logs.StructuredLogger(__name__)


def running_time(lease_seconds: float) -> clocks.RunningTime:
    """Return the time that leases are due by: `watch` makes it go on."""
    return clocks.RunningTime(COUNTS * lease_seconds)


async def watch(
    kept: store.Store,
    running: clocks.RunningTime,
    lease_seconds: float,
    on_lost: Callable[[Sequence[str]], None],
    stop: stopping.Stop,
) -> None:
    """Give up what is lost until the stop. A store that cannot be written is tried again at the next look.

    ``running`` is what the store's lease clock goes by; ``on_lost`` is called with the nodes whose leases have run out.

    A pool that was away itself (its process stopped, its disk full, its machine asleep) judges nobody by that time:
    heartbeats could not be heard. Leases then begin anew, as after a start.
    """
    away, refused = 0.0, False
    running.tick()
    async for _ in periodic.every(lease_seconds / LOOKS_PER_LEASE, stop):
        # All that passed since the last look that was done; while it was done the process may have stood still, too.
        away += running.tick()
        # Judged by this moment, although it may take long until that is done.
        now = kept.lease_time()
        try:
            if away > lease_seconds * AWAY:
                await kept.begin_leases_anew()
                log.log_system_event("leases_begun_anew", {"away_seconds": round(away, 1)}, level="warning")
            else:
                lost = await kept.expire(now)
                on_lost(lost.nodes)
                _tell(lost)
        except errors.Unavailable as error:
            if not refused:
                log.log_system_event("leases_not_watched", level="error", error=error)
            refused = True
        else:
            away, refused = 0.0, False


def _tell(lost: records.Lost) -> None:
    for node_id in lost.nodes:
        log.log_system_event("node_lost", {"node": node_id}, level="warning")
    for ref in lost.attempts:
        log.log_task_event("lease_lost", ref.task_id, {"attempt": ref.attempt}, level="warning")
