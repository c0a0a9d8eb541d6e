"""The heartbeat: says how the node is, renews the leases of what it holds, hears what to cancel, drop or drain."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterable, Mapping

from hivemind_worker import errors
from hivemind_worker.concurrency import stopping
from hivemind_worker.telemetry import logs, rationed
from hivemind_worker.wire import budget, calls
from hivemind_worker.worker.attempts import attempt, roster
from hivemind_worker.worker.machine import fitness, measuring, status

JITTER = 0.1
"""A beat comes up to a tenth early, so that a thousand nodes started by one command do not beat together."""

RETRY_SECONDS = 2.0
"""After a beat that failed: soon enough that one lost packet costs no lease."""

LAST_SECONDS = 3.0
"""Deadline of the last word: a pool that is away must not hold up the end of the process."""

log = logs.StructuredLogger(__name__)


class Heartbeat:
    """Beats every ``seconds``, or as often as the pool wants, and never less than twice in a lease."""

    def __init__(
        self,
        seconds: float,
        means: attempt.Means,
        attempts: roster.Roster,
        told: measuring.Measuring,
        fit: fitness.Fitness,
        announced: Callable[[Iterable[str]], None],
    ) -> None:
        self._seconds = seconds
        self._node_id = means.node_id
        self._pool = means.pool
        self._line = means.line
        self._room = means.room
        self._attempts = attempts
        self._fit = fit
        self._told = told
        self._announced = announced
        self._directed = False
        self._log = rationed.RationedLogger(log)

    async def run(self, stop: stopping.Stop) -> None:
        """Beat until the stop. What goes wrong is told and tried again."""
        trouble = ""
        while not stop.requested:
            self._fit.changed.clear()
            pause = self.interval * (1 - random.uniform(0, JITTER))  # noqa: S311  (spreads load)
            try:
                await stop.until(stopping.StopLevel.DRAIN, self._beat())
                trouble = ""
                self._told.beat(answered=True)
            except stopping.Stopped:
                return
            except errors.HiveMindError as error:
                pause = min(RETRY_SECONDS, pause)
                self._told.beat(answered=False)
                if str(error) != trouble:
                    trouble = str(error)
                    self._log.log_system_event("heartbeat_failed", {"why": trouble}, level="warning")
            await self._until_due(stop, pause)

    async def _until_due(self, stop: stopping.Stop, seconds: float) -> None:
        """Pause, but not when the node has become fit or unfit: the pool is told at once."""
        with contextlib.suppress(TimeoutError, stopping.Stopped):
            async with asyncio.timeout(seconds):
                await stop.until(stopping.StopLevel.DRAIN, self._fit.changed.wait())

    async def last_word(self) -> None:
        """Say that the node goes, so that what it holds is given to others at once. Never raises for the pool."""
        if not self._line.established:
            return
        request = self._request(self._line.id, status.NodeStatus.OFFLINE, {})
        try:
            await self._pool.send_heartbeat(request, LAST_SECONDS)
        except errors.HiveMindError as error:
            log.log_system_event("last_word_unheard", {"why": str(error)}, level="warning")

    @property
    def interval(self) -> float:
        """Seconds between two beats: our own setting, the pool's wish, and half a lease, whichever is least."""
        wishes = (self._seconds, self._line.heartbeat_seconds, self._line.lease_seconds / 2)
        return min(wish for wish in wishes if wish > 0)

    @property
    def word(self) -> status.NodeStatus:
        """The node's word for itself now."""
        if self._room.closed or self._directed:
            return status.NodeStatus.DRAINING
        if fitness.UNFIT & self._room.holds.keys():
            return status.NodeStatus.UNHEALTHY
        return status.NodeStatus.BUSY if self._room.holds or self._attempts.held() else status.NodeStatus.IDLE

    async def _beat(self) -> None:
        told = ""

        async def tell(session_id: str) -> calls.pb.UpdateNodeStatusResponse:
            nonlocal told
            told = session_id
            return await self._pool.send_heartbeat(self._request(session_id, self.word, self._fit.numbers))

        answer = await self._line.call(tell)
        if not answer.success:
            # The reference's pool has no other way to say that it does not know us.
            self._line.forget(told, f"heartbeat refused: {answer.message or 'no reason given'}")
            return
        self._attempts.cancel(answer.cancel)
        self._attempts.drop(answer.drop)
        self._announced(answer.preload_images)
        # A word of ours, no more: the pool itself gives a node it drains nothing, and polls go on, so that the first
        # task after the drain comes at once and not with the beat that tells of its end.
        self._directed = answer.draining

    def _request(
        self, session_id: str, word: status.NodeStatus, readings: Mapping[str, float]
    ) -> calls.pb.UpdateNodeStatusRequest:
        request = calls.pb.UpdateNodeStatusRequest(
            node_id=self._node_id,
            status=str(word),
            timestamp=int(time.time()),
            session_id=session_id,
            readings=readings,
            held=self._attempts.held_with(self._fit.usage),
            message="; ".join(self._room.holds.values()),
        )
        budget.fit_held(request)
        return request
