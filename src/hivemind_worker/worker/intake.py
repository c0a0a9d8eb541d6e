"""Asks the pool for work: one long poll is always out, a paused one when full, so that cancellations come at once.

A poll says what is free. When that changes, it is taken back and asked anew: an answer that crosses is not lost, for
the next poll names what we hold and the pool repeats the rest. A pool that knows no sessions gets short polls.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from hivemind_worker import errors
from hivemind_worker.concurrency import backoff, clock, stopping
from hivemind_worker.telemetry import logs, rationed
from hivemind_worker.wire import budget, calls, translate
from hivemind_worker.worker.attempts import attempt, roster

MOST_WAIT_SECONDS = 60.0
"""The protocol's longest wait."""

EMPTY_TOO_SOON_SECONDS = 0.5
"""An empty answer before this came without waiting; the next question is then held back for as long."""

MAX_IDLE_SECONDS = 5.0
"""Longest pause between polls that are answered at once with nothing new, again and again."""

GATHER_SECONDS = 0.02
"""How long an open poll stays out although more has come free: tasks that end one after the other cost one new poll."""

SETTLE_SECONDS = 0.005
"""How long after tasks have come the next question waits for the first of them to end: a short task is told of before,
and the question then says what is free at once, instead of being taken back and put anew."""

TELL_SECONDS = 0.02
"""How long it waits after that, where one task came alone, for the pool's answer to its report: whoever waits for the
result comes first."""

log = logs.StructuredLogger(__name__)


class Intake:
    """Keeps asking. ``wait_seconds`` is how long a poll may wait, ``short_seconds`` the pause between short ones."""

    def __init__(
        self, wait_seconds: float, short_seconds: float, means: attempt.Means, attempts: roster.Roster
    ) -> None:
        self._wait_seconds = min(wait_seconds, MOST_WAIT_SECONDS)
        self._short_seconds = short_seconds
        self._node_id = means.node_id
        self._pool = means.pool
        self._line = means.line
        self._room = means.room
        self._attempts = attempts
        self._delivered = means.reporter.delivered
        self._asked_paused = False
        self._changed: asyncio.Task[Any] | None = None
        self._executor = means.executor
        self._log = rationed.RationedLogger(log)
        self._pauses = backoff.Backoff(stopping.Stop())

    async def run(self, stop: stopping.Stop) -> None:
        """Ask until the stop. What goes wrong is told and tried again."""
        pauses = self._pauses = backoff.Backoff(stop, base=1.0, cap=15.0)
        stopped = asyncio.create_task(stop.wait(), name="intake/stopped")
        try:
            await self._ask(stop, stopped, pauses)
        finally:
            await stopping.settle(stopped, *(() if self._changed is None else (self._changed,)))

    async def _ask(self, stop: stopping.Stop, stopped: asyncio.Task[bool], pauses: backoff.Backoff) -> None:
        idle = backoff.Backoff(
            stop, base=2 * EMPTY_TOO_SOON_SECONDS, cap=MAX_IDLE_SECONDS, least=EMPTY_TOO_SOON_SECONDS
        )
        trouble = ""
        while not stop.requested:
            asked = clock.now()
            self._room.changed.clear()
            try:
                answer = await self._unless_changed(stopped)
                trouble = ""
                pauses.reset()
            except errors.HiveMindError as error:
                if str(error) != trouble:
                    trouble = str(error)
                    self._log.log_system_event("poll_failed", {"why": trouble}, level="warning")
                await self._line.pause(pauses)
                continue
            if answer is None:
                continue
            taken = self._take(answer)
            await asyncio.sleep(0)  # what was taken begins before the next question is put into words
            if self._line.plain:
                await self._rest(stop, self._short_seconds)
            elif taken:
                idle.reset()
                await self._settle(taken)
            elif clock.now() - asked >= EMPTY_TOO_SOON_SECONDS:
                idle.reset()
            else:  # an answer at once that brought nothing that we could use: the next would bring no more
                await self._rest(stop, idle.next_delay())

    async def _unless_changed(self, stopped: asyncio.Task[bool]) -> calls.pb.GetAssignedTasksResponse | None:
        """One poll's answer; None when it was taken back because the stop came or what is free has changed."""
        poll = asyncio.create_task(self._poll(), name="intake/poll")
        if self._changed is None or self._changed.done():  # one that nothing woke serves the next poll as well
            self._changed = asyncio.create_task(self._room.changed.wait(), name="intake/changed")
        try:
            await asyncio.wait({poll, self._changed, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not poll.done() and not self._asked_paused and not self._room.paused:
                # It can still bring work as it is: only that there is more room now is news, and that can wait.
                await asyncio.wait({poll, stopped}, timeout=GATHER_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not poll.done():
                await stopping.settle(poll)
        return None if poll.cancelled() else poll.result()

    async def _poll(self) -> calls.pb.GetAssignedTasksResponse:
        while self._line.plain and self._room.paused:
            # Such a pool knows no pause: it would hand out what we have no room for.
            self._room.changed.clear()
            await self._room.changed.wait()
        return await self._line.call(lambda session_id: self._pool.get_assigned_tasks(self._request(session_id)))

    def _request(self, session_id: str) -> calls.pb.GetAssignedTasksRequest:
        self._asked_paused = paused = self._room.paused
        request = calls.pb.GetAssignedTasksRequest(
            node_id=self._node_id,
            session_id=session_id,
            free=translate.amounts_to_message(self._room.reservations.free),
            wait_seconds=0.0 if self._line.plain else self._wait_seconds,
            images=self._executor.images,
            most=0 if paused else self._room.reservations.slots,
            paused=paused,
            held=self._attempts.held(),
        )
        budget.fit_held(request)
        return request

    def _take(self, answer: calls.pb.GetAssignedTasksResponse) -> int:
        """Take in what the pool gave; return how many attempts are new here."""
        self._attempts.cancel(answer.cancel)
        before = len(self._attempts)
        for number, message in enumerate(answer.tasks):
            if not self._attempts.accept(message):
                left = len(answer.tasks) - number
                self._log.log_system_event("too_many_tasks", {"left_alone": left}, level="warning")
                break
        return len(self._attempts) - before

    async def _settle(self, taken: int) -> None:
        """Let what was taken begin, and where it is short, end and be told of."""
        self._delivered.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS) as patience:
                await self._room.changed.wait()
                if taken > 1:  # of many, others end meanwhile: their node must not stand idle
                    await asyncio.sleep(SETTLE_SECONDS / 4)
                    return
                patience.reschedule(asyncio.get_running_loop().time() + TELL_SECONDS)
                await self._delivered.wait()

    async def _rest(self, stop: stopping.Stop, seconds: float) -> None:
        """Pause, but not when room has come free."""
        try:
            async with asyncio.timeout(seconds):
                await stop.until(stopping.StopLevel.DRAIN, self._room.changed.wait())
        except (TimeoutError, stopping.Stopped):
            return
