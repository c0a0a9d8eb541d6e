"""Stops what runs once the pool has been away for longer than the lease, where the owner wants that."""

from __future__ import annotations

from hivemind_worker.concurrency import clock, stopping
from hivemind_worker.tasks import state
from hivemind_worker.telemetry import logs
from hivemind_worker.worker.attempts import attempt, roster

LOOK_SECONDS = 1.0
"""Between two looks: late by a second at most, against leases of a minute."""

_ENDED = frozenset({state.Phase.REPORTING, state.Phase.ENDED})

log = logs.StructuredLogger(__name__)


class PastLease:
    """Looks at when the pool was last heard. It may have given our attempts to others by now, and says so later.

    They are handed back rather than dropped: a pool that had given them to nobody would take the silence for an answer
    of its own that got lost, and have the same attempt run a second time. A machine that was suspended has been away
    for as long, whatever its own clocks of running time say.
    """

    def __init__(self, means: attempt.Means, attempts: roster.Roster) -> None:
        self._line = means.line
        self._attempts = attempts
        self._stopped: set[tuple[str, int]] = set()

    async def run(self, stop: stopping.Stop) -> None:
        """Look until the stop. A pool without leases (it names none) loses none."""
        while not await stop.wait(timeout=LOOK_SECONDS):
            away = clock.boottime() - self._line.renewed_at
            if not 0 < self._line.lease_seconds < away:
                self._stopped.clear()
                continue
            # What has ended waits to be delivered, and is as good as ever.
            running = [ref for ref in self._attempts.held() if ref.phase not in _ENDED]
            new = [ref for ref in running if (ref.task_id, ref.attempt) not in self._stopped]
            if new:
                log.log_system_event("lease_lost", {"seconds": round(away, 1), "attempts": len(new)}, level="warning")
                self._attempts.hand_back(new)
                self._stopped |= {(ref.task_id, ref.attempt) for ref in new}
