"""The polls under way: a loop has the store look at those that came since its last round, and the store at the rest.

A poll that finds nothing waits in the store, and the commit that queues a task for it answers it.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterable, Sequence

from hivemind_worker import errors
from hivemind_worker.concurrency import stopping
from hivemind_worker.pool.store import records, store
from hivemind_worker.tasks import state
from hivemind_worker.telemetry import logs

log = logs.StructuredLogger(__name__)


@dataclasses.dataclass(slots=True)
class _Waiter:
    poll: records.Poll
    answer: asyncio.Future[records.Given]
    look: bool = True
    """Whether the next round must look at it."""
    again: asyncio.TimerHandle | None = None
    """Looks again when its node has rested."""


class Dispatch:
    """Answers polls. One poll per session waits at a time: a newer one takes the place of the older.

    Not per node: whoever polls in its name without its session, or with one that is over, must not disturb it.
    """

    def __init__(self, kept: store.Store) -> None:
        self._store = kept
        self._waiting: dict[tuple[str, str], _Waiter] = {}
        self._of: dict[str, set[tuple[str, str]]] = {}
        self._wake = asyncio.Event()
        self._told: dict[str, dict[str, set[tuple[str, int]]]] = {}
        """By node and session: cancellations that a poll was answered with, while the node still holds them."""
        self._closed = False
        self._is_paused = False

    async def poll(self, poll: records.Poll, wait_seconds: float) -> records.Given:
        """Return what a worker is given, at once or within ``wait_seconds``; empty when there is nothing.

        Raises :class:`errors.UnknownNode`, :class:`errors.StateInUse`, :class:`errors.Unavailable`.
        """
        if self._closed:
            return records.Given()
        poll = dataclasses.replace(poll, stays=wait_seconds > 0, paused=poll.paused or self._is_paused)
        waiter = _Waiter(poll, asyncio.get_running_loop().create_future())
        key = (poll.node_id, poll.session_id)
        before = self._waiting.get(key)
        if before is not None and not before.answer.done():
            before.answer.set_result(records.Given())
        self._waiting[key] = waiter
        self._of.setdefault(poll.node_id, set()).add(key)
        self._wake.set()
        try:
            async with asyncio.timeout(wait_seconds if wait_seconds > 0 else None):
                given = await waiter.answer
        except TimeoutError:
            # An answer that came in this very moment is the node's already, and must not get lost.
            given = waiter.answer.result() if _answered(waiter) else records.Given()
        finally:
            if waiter.again is not None:
                waiter.again.cancel()
            self._store.withdraw(poll)
            if self._waiting.get(key) is waiter:
                del self._waiting[key]
                self._of[poll.node_id].discard(key)
                if not self._of[poll.node_id]:
                    del self._of[poll.node_id]
        if given.refused is not None:
            raise given.refused
        return given

    def heard(self, changes: Sequence[records.Change]) -> None:
        """Take note of what the store has committed: room that came free, tasks to stop."""
        for change in changes:
            for waiter in self._waiters(change.node_id):
                if _concerns(waiter.poll, change):
                    waiter.look = True
                    self._wake.set()

    def answered(self, poll: records.Poll, given: records.Given) -> None:
        """Take the store's answer to a poll that waited there."""
        waiter = self._waiting.get((poll.node_id, poll.session_id))
        if waiter is None or waiter.poll is not poll:
            return  # gone meanwhile: what it was given is repeated at its session's next poll
        if given.outdated:
            waiter.look = True
            self._wake.set()
        else:
            self._answer(waiter, given)

    @property
    def waiting(self) -> int:
        """How many polls wait for tasks now."""
        return sum(not waiter.poll.paused for waiter in self._waiting.values())

    def look_again(self, node_id: str) -> None:
        """Something about this node has changed."""
        for waiter in self._waiters(node_id):
            waiter.look = True
            self._wake.set()

    def _waiters(self, node_id: str) -> list[_Waiter]:
        return [self._waiting[key] for key in self._of.get(node_id, ())]

    def answer_empty(self, node_id: str, session_id: str) -> None:
        """Answer the poll that waits in this session with nothing: a worker that lives asks again."""
        waiter = self._waiting.get((node_id, session_id))
        if waiter is not None and not waiter.answer.done():
            waiter.answer.set_result(records.Given())

    def pause(self, *, paused: bool) -> None:
        """Hand out nothing, or again: cancellations are told all the same.

        Polls under way are answered with nothing; whoever sent them asks anew, on the other terms.
        """
        if paused is self._is_paused:
            return
        self._is_paused = paused
        for waiter in self._waiting.values():
            if not waiter.answer.done():
                self._store.withdraw(waiter.poll)
                waiter.answer.set_result(records.Given())

    def close(self) -> None:
        """Answer every poll, present and future, with nothing."""
        self._closed = True
        for waiter in self._waiting.values():
            if not waiter.answer.done():
                waiter.answer.set_result(records.Given())

    async def run(self, stop: stopping.Stop) -> None:
        """Answer polls until the stop: one round after the other, each with all that waits."""
        closing = asyncio.create_task(stop.wait(), name="dispatch/stop")
        # Wakes the loop as a poll does: to wait for either of two would cost two more tasks in every round.
        closing.add_done_callback(lambda _: self._wake.set())
        try:
            while not stop.requested:
                await self._wake.wait()
                self._wake.clear()
                await self._round()
        finally:
            await stopping.settle(closing)

    async def _round(self) -> None:
        waiters = [waiter for waiter in self._waiting.values() if waiter.look and not waiter.answer.done()]
        if not waiters:
            return
        for waiter in waiters:
            waiter.look = False
        try:
            given = await self._store.hand_out([waiter.poll for waiter in waiters])
        except errors.HiveMindError as error:
            log.log_system_event("hand_out_failed", {"polls": len(waiters)}, level="error", error=error)
            given = [records.Given(refused=error)] * len(waiters)
        for waiter, answer in zip(waiters, given, strict=True):
            self._look_in(waiter, answer.again_in)
            self._answer(waiter, answer)

    def _answer(self, waiter: _Waiter, given: records.Given) -> None:
        answer = dataclasses.replace(given, cancel=self._not_told(waiter.poll, given.cancel))
        if waiter.answer.done():
            # Gone meanwhile: it must not wait in the store, and what it was given comes again with its next poll.
            self._store.withdraw(waiter.poll)
        elif answer or not waiter.poll.stays:
            waiter.answer.set_result(answer)

    def _look_in(self, waiter: _Waiter, seconds: float) -> None:
        """Look at a waiting poll again after so many seconds; not at all for 0."""
        if waiter.again is not None:
            waiter.again.cancel()
            waiter.again = None
        if seconds > 0 and not waiter.answer.done():
            # A moment later than said: in the very moment the store would still call it resting.
            loop = asyncio.get_running_loop()
            waiter.again = loop.call_later(seconds + 0.01, self.look_again, waiter.poll.node_id)

    def _not_told(self, poll: records.Poll, cancel: Sequence[records.Ref]) -> tuple[records.Ref, ...]:
        """Cancellations that no poll of this session was answered before; heartbeats repeat them all."""
        sessions = self._told.get(poll.node_id, {})
        told = sessions.pop(poll.session_id, set()) & poll.held
        new = tuple(ref for ref in cancel if (ref.task_id, ref.attempt) not in told)
        told |= {(ref.task_id, ref.attempt) for ref in new}
        if told:
            sessions[poll.session_id] = told
        if sessions:
            self._told[poll.node_id] = sessions
        else:
            self._told.pop(poll.node_id, None)
        return new

    def forget(self, node_ids: Iterable[str]) -> None:
        """Forget what these nodes were told: their leases have run out."""
        for node_id in node_ids:
            self._told.pop(node_id, None)


def _concerns(poll: records.Poll, change: records.Change) -> bool:
    """Whether a change of a task of its node is a reason to look at a waiting poll again."""
    if change.state in state.ENDED:
        return poll.free is None  # one that says itself what is free asks anew when that grows
    if change.state is state.TaskState.QUEUED:
        return True  # it was handed back: when the node may have it again is to be found out
    return change.cancel_requested


def _answered(waiter: _Waiter) -> bool:
    return waiter.answer.done() and not waiter.answer.cancelled()
