"""Stops what runs once the pool has been away for longer than the lease, where the owner wants that."""

from __future__ import annotations

from hivemind_worker.concurrency import clock, stopping
from hivemind_worker.node import attempt, roster
from hivemind_worker.telemetry import logs

LOOK_SECONDS = 1.0
"""Between two looks: late by a second at most, against leases of a minute."""

log = logs.StructuredLogger(__name__)


class PastLease:
    """Looks at when the pool was last heard. It may have given our attempts to others by now, and says so later."""

    def __init__(self, means: attempt.Means, attempts: roster.Roster) -> None:
        self._line = means.line
        self._attempts = attempts

    async def run(self, stop: stopping.Stop) -> None:
        """Look until the stop. A pool without leases (it names none) loses none."""
        while not await stop.wait(timeout=LOOK_SECONDS):
            away = clock.now() - self._line.heard_at
            held = self._attempts.held()
            if held and 0 < self._line.lease_seconds < away:
                log.log_system_event("lease_lost", {"seconds": round(away, 1), "attempts": len(held)}, level="warning")
                self._attempts.drop(held)
