"""The attempts that this node holds: taken in once each, cancelled, dropped, fenced by newer ones, drained."""

from __future__ import annotations

import asyncio
import collections
import datetime as dt
from collections.abc import Iterable, Iterator, Mapping

from hivemind_worker.concurrency import clock, stopping, supervision
from hivemind_worker.runtime.capsule import accounts
from hivemind_worker.tasks import attempt_id, outcome
from hivemind_worker.telemetry import logs
from hivemind_worker.wire import calls, translate
from hivemind_worker.worker.attempts import attempt, recovery
from hivemind_worker.worker.machine import measuring, status

REMEMBERED = 16
"""How many ended attempts can be reported again, should a pool that lost our report hand them out anew. Their logs of
up to 1 MiB each bound the number."""

MOST_HELD = 256
"""Attempts held at once, waiting ones included: a bound against a pool that hands out without end."""

REPORT_SECONDS = 20.0
"""After the last attempt was told to end: its grace time, then so long for its report."""

SHOWN_CHARACTERS = 500
"""How much of an error is remembered to be shown, as in the log."""

CLOSING = "the node stops"

log = logs.StructuredLogger(__name__)


class Roster:
    """Takes attempts in and keeps them until the pool has acknowledged their end."""

    def __init__(self, means: attempt.Means, drain_seconds: float, told: measuring.Measuring) -> None:
        self._means = means
        self._told = told
        self.drain_seconds = drain_seconds
        self._attempts: dict[attempt_id.AttemptId, attempt.Attempt] = {}
        # A plain dict: to iterate over an ordered one hashes each key, a twentieth of what a short task costs here.
        self._ended: dict[attempt_id.RunKey, outcome.Outcome] = {}
        self._jobs = supervision.Jobs("attempts", self._defect)
        self._store_epoch = ""
        self.ended_count = 0
        self._last_ended: collections.deque[status.EndedStatus] = collections.deque(maxlen=status.LAST_ENDED)

    def accept(self, message: calls.pb.Task) -> bool:
        """Take an attempt in, unless it is here already, was here, or a newer one of its task is.

        False only where there are too many.
        """
        epoch = self._means.line.store_epoch
        about = attempt_id.AttemptId(message.id, message.attempt, message.store_epoch or epoch)
        if not about.is_of(epoch):
            log.log_task_event("attempt_of_another_epoch", message.id, {"attempt": message.attempt}, level="warning")
            return True
        if about in self._attempts:
            return True
        if (ended := next((run for run in self._ended if run.attempt_id == about), None)) is not None:
            # The pool did not hear how it ended. It ran once, and once is enough.
            self._jobs.start(f"report {message.id} again", self._report_again(ended))
            return True
        if len(self._attempts) >= MOST_HELD:
            return False
        others = [known for known in self._attempts if known.task_id == message.id]
        # One that has ended here fences as one that runs: an older poll's answer may come after both.
        newest = (*others, *(run.attempt_id for run in self._ended if run.attempt_id.task_id == message.id))
        if any(known.attempt > about.attempt and known.is_of(about.store_epoch) for known in newest):
            log.log_task_event("stale_attempt_ignored", message.id, {"attempt": message.attempt}, level="warning")
            return True
        for known in others:
            self._attempts[known].drop()
        log.log_task_event("attempt_accepted", message.id, {"attempt": message.attempt, "type": message.type})
        self._told.accepted()
        self._begin(attempt.Attempt(self._means, message))
        return True

    def adopt(self, found: Iterable[recovery.Found]) -> None:
        """Go on with the attempts of an earlier process; those that run are given their room first."""
        for each in sorted(found, key=lambda each: each.capsule is None):
            self._begin(attempt.Attempt(self._means, each.message, each))

    def _begin(self, accepted: attempt.Attempt) -> None:
        about = accepted.about
        self._attempts[about] = accepted
        accepted.admit()
        self._jobs.start(f"{about.task_id} attempt {about.attempt}", self._run(accepted))

    def cancel(self, refs: Iterable[calls.pb.AttemptRef]) -> None:
        """End attempts whose submitters want them no more; unknown ones are none of ours."""
        for held in self._named(refs):
            held.cancel()

    def drop(self, refs: Iterable[calls.pb.AttemptRef]) -> None:
        """End attempts that are no longer this node's, without a report."""
        for held in self._named(refs):
            held.drop()

    def drop_other_epochs(self, store_epoch: str) -> None:
        """End, and tell nobody of, what another life of the pool's store assigned: there its ids mean other tasks."""
        # What an older journal or pool gave no epoch is of the first that was met.
        another = bool(self._store_epoch and store_epoch and self._store_epoch != store_epoch)
        self._store_epoch = store_epoch or self._store_epoch
        strange = [
            held
            for about, held in self._attempts.items()
            if not held.dropped and not (about.is_of(store_epoch) and (about.store_epoch or not another))
        ]
        for held in strange:
            held.drop()
        for run in [run for run in self._ended if not run.attempt_id.is_of(store_epoch)]:
            del self._ended[run]
        if strange:
            details = {"store_epoch": store_epoch, "attempts": len(strange)}
            log.log_system_event("attempts_of_another_epoch_dropped", details, level="warning")

    def hand_back(self, refs: Iterable[calls.pb.AttemptRef]) -> None:
        """End attempts because this node should not go on with them, and say so: the pool will try again."""
        for held in self._named(refs):
            held.shut_down(stopping.StopLevel.CANCEL)

    def held_with(self, usage: Mapping[tuple[str, int], accounts.Usage]) -> list[calls.pb.AttemptRef]:
        """Name them, each with what it was last seen to use."""
        refs, now = self.held(), clock.now()
        for ref in refs:
            if (used := usage.get((ref.task_id, ref.attempt))) is not None:
                about = attempt_id.AttemptId(ref.task_id, ref.attempt, ref.store_epoch)
                began = self._attempts[about].story.started
                ref.usage.CopyFrom(translate.live_to_message(used.numbers(), now - began))
        return refs

    def __len__(self) -> int:
        return sum(not held.dropped for held in self._attempts.values())

    def held(self) -> list[calls.pb.AttemptRef]:
        """Name every attempt from its acceptance to the acknowledgement of its report."""
        return [
            calls.pb.AttemptRef(
                task_id=about.task_id,
                attempt=about.attempt,
                phase=str(held.story.phase),
                store_epoch=about.store_epoch,
                run_id=held.run_key().run_id,
            )
            for about, held in self._attempts.items()
            if not held.dropped
        ]

    def statuses(
        self, usage: Mapping[tuple[str, int], accounts.Usage] | None = None
    ) -> tuple[status.AttemptStatus, ...]:
        """Tell of every attempt, for a snapshot, with what each was last seen to use."""
        usage = usage or {}
        now = clock.now()
        return tuple(
            status.AttemptStatus(
                about.task_id,
                about.attempt,
                str(held.story.phase),
                now - held.story.started,
                held.story.tell(),
                usage.get((about.task_id, about.attempt)),
            )
            for about, held in self._attempts.items()
        )

    def last_ended(self) -> tuple[status.EndedStatus, ...]:
        """Tell of the last ones that have ended, newest first."""
        return tuple(self._last_ended)

    async def run(self, stop: stopping.Stop) -> None:
        """Wait for the stop; then let attempts finish, for the drain time at most; then end and report the rest.

        At level cancel nothing is waited for but the grace time and the reports. Cancelled: at once.
        """
        try:
            await stop.wait()
            self._means.room.close(CLOSING)
            left = stop.remaining()
            patience = self.drain_seconds if left is None else min(left, self.drain_seconds)
            if not await self._idle(stop, stopping.StopLevel.CANCEL, patience):
                self._shut_down(stopping.StopLevel.CANCEL)
                await self._idle(stop, stopping.StopLevel.KILL, self._means.limits.grace_seconds + REPORT_SECONDS)
        finally:
            self._shut_down(stopping.StopLevel.KILL)
            given_up = await self._jobs.close(seconds=2.0)
            if given_up:
                log.log_system_event("attempts_given_up", {"attempts": list(given_up)}, level="warning")

    async def _idle(self, stop: stopping.Stop, level: stopping.StopLevel, seconds: float) -> bool:
        """Wait until no attempt is left, for so long or until the stop rises; whether none is."""
        try:
            async with asyncio.timeout(seconds):
                await stop.until(level, self._jobs.idle())
        except (TimeoutError, stopping.Stopped):
            return not len(self._jobs)
        return True

    def _shut_down(self, level: stopping.StopLevel) -> None:
        for held in tuple(self._attempts.values()):
            held.shut_down(level)

    def _named(self, refs: Iterable[calls.pb.AttemptRef]) -> Iterator[attempt.Attempt]:
        """The held attempts that are meant; attempt 0 means whichever there is of the task."""
        for ref in refs:
            for about, held in tuple(self._attempts.items()):
                meant = about.task_id == ref.task_id and ref.attempt in {0, about.attempt}
                if meant and about.is_of(ref.store_epoch):
                    yield held

    async def _run(self, accepted: attempt.Attempt) -> None:
        try:
            with logs.bind(trace_id=accepted.trace.trace_id):
                await accepted.run()
        finally:
            del self._attempts[accepted.about]
            self.ended_count += 1
            if accepted.ended is not None:
                self._told.ended(accepted.ended)
                self._last_ended.appendleft(_shown(accepted, accepted.ended))
            if accepted.ended is not None and not accepted.dropped:
                self._ended[accepted.run_key()] = accepted.ended
                while len(self._ended) > REMEMBERED:
                    del self._ended[next(iter(self._ended))]

    async def _report_again(self, run: attempt_id.RunKey) -> None:
        with self._means.reporter.turns.place() as place:
            verdict = await self._means.reporter.deliver(run, self._ended[run], place, _nothing)
        about = run.attempt_id
        log.log_task_event("reported_again", about.task_id, {"attempt": about.attempt, "report": verdict})

    def _defect(self, name: str, error: BaseException) -> None:
        self._means.troubles.note(f"{name}: {type(error).__name__}: {error}")
        log.log_system_event("internal_error", {"in": name}, level="error", error=error)


def _shown(accepted: attempt.Attempt, ended: outcome.Outcome) -> status.EndedStatus:
    about, seconds = accepted.about, clock.now() - accepted.story.started
    return status.EndedStatus(
        about.task_id, about.attempt, dt.datetime.now(dt.UTC), seconds, ended.status,
        str(ended.reason or ""), ended.error[:SHOWN_CHARACTERS],
    )  # fmt: skip


async def _nothing() -> None:
    """Its output was sent with the first report."""
