"""One task from accepted to ended: checked, given room, inputs fetched, run, reported. It never harms the worker."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections.abc import Collection, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from hivemind_worker import errors
from hivemind_worker.concurrency import backoff, clock, stopping
from hivemind_worker.runtime import checkpoint, executor
from hivemind_worker.tasks import attempt_id, kinds, names, outcome, plan, resources, spec, state
from hivemind_worker.tasks.kinds import kind
from hivemind_worker.telemetry import logs, tracing
from hivemind_worker.wire import calls, translate
from hivemind_worker.worker.attempts import keeping, log_streaming, recovery, reporting, safekeeping, transfers, turns
from hivemind_worker.worker.machine import room, status, undead
from hivemind_worker.worker.pool_link import client, session

T = TypeVar("T")

START_NEWS_SECONDS = 0.05
"""How long a task must have run before the pool is told that it runs: a shorter one is reported as ended at once."""

log = logs.StructuredLogger(__name__)


@dataclass(slots=True)
class Means:
    """What every attempt of the node works with. ``limits`` may be others for the next attempt; the rest stays."""

    node_id: str
    executor: executor.Executor
    limits: kind.NodeLimits
    room: room.Room
    keeping: keeping.Keeping
    pool: client.NodePoolClient
    line: session.Session
    downloads: transfers.Downloads
    reporter: reporting.Reporter
    books: safekeeping.Books
    troubles: status.Troubles
    allow_egress: bool = False


_ORDER = tuple(state.Phase)


class Attempt:
    """One attempt of one task. Is the executor's observer, too. ``found``: what an earlier process left of it."""

    def __init__(self, means: Means, message: calls.pb.Task, found: recovery.Found | None = None) -> None:
        epoch = message.store_epoch or means.line.store_epoch
        new_run = attempt_id.RunKey(attempt_id.AttemptId(message.id, message.attempt, epoch), attempt_id.new_run_id())
        run = new_run if found is None else found.run
        self.about = run.attempt_id
        self.stop = stopping.Stop()
        self.story = state.AttemptStory(clock.now())
        self.trace = tracing.after(message.traceparent)
        self.dropped = False
        self.ended: outcome.Outcome | None = None
        self._means = means
        self._message: calls.pb.Task | None = message
        self._found = found
        self._kept = safekeeping.Safekeeping(means.books, run, started=found is not None and found.started)
        self._ready: tuple[plan.RunPlan, resources.Resources] | None = None
        self._refused: Exception | None = None
        self._has_room, self._noted = False, 0
        self._inputs: tuple[outcome.Artifact, ...] = ()
        # Begun where there is something to tell: a task may be short and silent.
        self._news_due: asyncio.TimerHandle | None = None
        self._written: asyncio.Task[None] | None = None
        self._news: asyncio.Task[None] | None = None
        self._pump: asyncio.Task[None] | None = None
        self._spool = self._kept.spool(is_new=found is None)
        self._output = log_streaming.LogStream(
            means.pool,
            means.line,
            log_streaming.Source(means.node_id, self.run_key),
            self._spool,
        )

    def run_key(self) -> attempt_id.RunKey:
        """Which attempt, and the id of its run once that may have begun; empty before."""
        return attempt_id.RunKey(self.about, self._kept.run_id)

    def admit(self) -> None:
        """Check the task, make its plan, and reserve what it needs if there is room: before the next poll says what
        is free. What is wrong with it shows when it runs.
        """
        if self._found is not None and self._found.ended is not None:
            self._kept.is_ended(self._found.ended)
            return
        if self._found is not None and self._found.crashed:
            return
        if self._found is None:
            assert self._message is not None
            self._kept.accept(self._message)
        try:
            self._ready = self._planned()
            if self._capsule is not None:
                ready = safekeeping.as_placed(self._ready[0], self._capsule)
                self._ready = (ready, self._ready[1])
                self._means.room.keep(self.about, self._ready[1], ready.gpu_devices)
                self._has_room = True
            else:
                self._has_room = self._means.room.take_now(self.about, self._ready[1])
        except Exception as error:  # noqa: BLE001  (raised by `run`, which makes an outcome of it)
            self._refused = error

    def cancel(self) -> None:
        """End it because its submitter wants it no more."""
        self.stop.request(stopping.StopLevel.CANCEL, str(outcome.Reason.CANCELLED))

    def shut_down(self, level: stopping.StopLevel) -> None:
        """End it because the node stops; the pool will try elsewhere."""
        self.stop.request(level, str(outcome.Reason.NODE_SHUTDOWN))

    def drop(self) -> None:
        """End it at once and without a report: it is not this node's any more."""
        self.dropped = True
        self.stop.request(stopping.StopLevel.KILL, str(outcome.Reason.CANCELLED))

    @property
    def _capsule(self) -> Mapping[str, str] | None:
        """Where the capsule of an earlier process is, if there is one to go on with."""
        return None if self._found is None else self._found.capsule

    async def run(self) -> None:
        """Go through all phases. Raises nothing but the cancellation of the asyncio task it runs in."""
        artifacts, closed = set[outcome.Artifact](), False
        # What an earlier process had collected: an end that does not name it must not leave it behind.
        earlier = (self._found and self._found.after) or checkpoint.Checkpoint()
        self._means.keeping.begin(self.about)
        self._means.keeping.stored(self.about, earlier.artifacts)
        try:
            try:
                ended = await self._to_its_end()
                if outcome.is_node_sick(ended.reason, ended.node_check):
                    self._means.room.rest()
                # Before anything else is awaited: another's end could take away a file of the same content.
                artifacts = {file.artifact for file in ended.results}
                self._means.keeping.need(artifacts)
                self._means.keeping.let_go(earlier.staged_names | self._kept.staged_names)
            finally:
                self._means.keeping.done(self._inputs)
                self._means.keeping.end(self.about)
                undead.leave(self._means.room, self.about, self._means.executor.undead)
            now = clock.now()
            self._enter(state.Phase.REPORTING)
            if self._found is None or self._found.ended is None:
                ended = dataclasses.replace(ended, timings={**self.story.seconds(now), **ended.timings})
                # While it is on its way: the pool's acceptance is durable too, and nothing is let go of before both.
                self._written = asyncio.create_task(self._kept.ended_later(ended), name=f"end of {self.about.task_id}")
            with self._means.reporter.turns.place() as place:
                await self._end_side_tasks()
                closed = await self._report(ended, place)
            self._enter(state.Phase.ENDED)
        finally:
            self._no_news()
            await self._end_is_written()
            beside = [task for task in (self._news, self._pump) if task is not None]
            await stopping.settle(*beside)
            self._let_go(artifacts, closed=closed)
            for side in beside:
                if not side.cancelled() and (error := side.exception()) is not None:
                    details = {"in": side.get_name()}
                    log.log_task_event("internal_error", self.about.task_id, details, level="error", error=error)

    async def _end_is_written(self) -> None:
        """Wait until the end stands in the journal, or the disk has refused it."""
        if self._written is not None:
            await asyncio.shield(self._written)

    def _let_go(self, artifacts: set[outcome.Artifact], *, closed: bool) -> None:
        """What is not delivered stays on the disk, for the next process of this node."""
        if closed:
            self._spool.remove()
            self._means.keeping.done(artifacts)
        else:
            self._spool.close()

    def phase(self, phase: state.Phase) -> None:
        """Be told by the executor how far it is."""
        if _ORDER.index(phase) > _ORDER.index(self.story.phase):  # a capsule entered again goes through them again
            self._enter(phase)
        if phase is state.Phase.RUNNING and self._news_due is None:
            self._news_due = asyncio.get_running_loop().call_later(START_NEWS_SECONDS, self._tell_that_it_runs)

    def output(self, stream: executor.Stream, offset: int, data: bytes) -> None:
        """Be given output by the executor."""
        self._output.add(stream, offset, data)
        if self._pump is None:
            self._pump = self._beside(self._output.pump(), "output")

    def note(self, text: str) -> None:
        """Be told by the executor what belongs in the task's log beside its output."""
        line = f"{text}\n".encode()
        self.output(executor.Stream.SYSTEM, self._noted, line)
        self._noted += len(line)

    def stored(self, artifacts: Collection[outcome.Artifact]) -> None:
        """Be told by the executor what it has stored of the results."""
        self._means.keeping.stored(self.about, artifacts)

    async def _to_its_end(self) -> outcome.Outcome:
        """Whatever happens is an outcome."""
        try:
            return await self._through()
        except errors.InvalidTask as error:
            return _failed(outcome.Reason.INVALID_TASK, str(error))
        except stopping.Stopped as stopped:
            return _stopped(stopped.reason)
        except errors.EngineLost as error:
            return _failed(outcome.Reason.ENGINE_LOST, str(error))
        except errors.PeerError as error:
            return _failed(outcome.Reason.INVALID_TASK, f"input_files: cannot be fetched: {error}")
        except Exception as error:  # noqa: BLE001  (a defect of ours must not end the other attempts)
            if (unready_reasons := self._means.books.unready_reasons_after(error)) is not None:
                # Before anything else is awaited: the next poll must be a paused one.
                self._means.room.suspend(unready_reasons)
                return _failed(outcome.Reason.NODE_SHUTDOWN, f"handed back: {error}")
            if isinstance(error, errors.NodeFault):
                return _failed(outcome.Reason.INTERNAL, str(error))
            error_id = uuid.uuid4().hex[:12]
            log.log_task_event("internal_error", self.about.task_id, {"id": error_id}, level="error", error=error)
            self._means.troubles.note(f"internal error {error_id}: {type(error).__name__}", self.about.task_id)
            return _failed(outcome.Reason.INTERNAL, f"internal error {error_id}; the node's log tells more")

    async def _through(self) -> outcome.Outcome:
        if self._found is not None and self._found.ended is not None:
            return self._found.ended
        if self._found is not None and self._found.crashed:
            return _failed(outcome.Reason.WORKER_CRASH, self._found.crashed)
        if self._refused is not None:
            raise self._refused
        assert self._ready is not None
        (ready, needs), self._ready = self._ready, None
        if not self._has_room:
            await self._kept.accepted()  # what cannot be written down waits for no room
            self.note(f"waits for room on this node: {self._means.room.why(needs)}")
            await self.stop.until(stopping.StopLevel.CANCEL, self._means.room.take(self.about, needs))
        if needs.gpus:
            ready = dataclasses.replace(ready, gpu_devices=self._means.room.reservations.devices(self.about))
        self._enter(state.Phase.PREPARING)
        if self.stop.level >= stopping.StopLevel.CANCEL:
            raise stopping.Stopped(self.stop.level, self.stop.reason_for(stopping.StopLevel.CANCEL))
        custody = checkpoint.Custody(self._kept)
        if self._found is not None and self._found.capsule is not None:
            custody = checkpoint.Custody(self._kept, self._found.capsule, self._found.after)
        elif self._found is not None:
            # It has not begun: whether it is still ours the pool says when it has heard that we hold it.
            await self.stop.until(stopping.StopLevel.CANCEL, self._means.line.known())
            self._kept.accept(self._found.message, self._found.preparations + 1)
            await self._kept.accepted()
        if any(file.artifact is not None for file in ready.files):
            fetching = self._fetched(ready, here=custody.after is not None)
            ready = await self.stop.until(stopping.StopLevel.CANCEL, fetching)
        self._kept.starts(ready)
        return await self._means.executor.run(ready, self.stop, self, custody)

    def _planned(self) -> tuple[plan.RunPlan, resources.Resources]:
        """Check the task and make its plan; pure but for letting go of the message, which may be 4 MiB."""
        message, self._message = self._message, None
        assert message is not None
        names.task_id(message.id)
        task = translate.task_from_message(message)
        attempt, trace = max(message.attempt, 1), str(self.trace)  # a pool that counts none hands out the first
        ready = kind.make_plan(kinds.of(task), task, message.id, attempt, self._means.limits, trace)
        needs = _needs(task, ready)
        if self._capsule is not None:
            return ready, needs  # what runs already was allowed when it began
        undead.refuse_like(ready, self._means.executor.undead)
        if ready.network is not plan.Network.NONE and not self._means.allow_egress:
            raise errors.InvalidTask("network", f"{str(ready.network)!r} is not allowed by this node's owner")
        if why := self._means.room.reservations.never(needs):
            raise errors.InvalidTask("required_resources", f"can never fit into this node: {why}")
        return ready, needs

    async def _fetched(self, ready: plan.RunPlan, *, here: bool) -> plan.RunPlan:
        """The plan with its stored input files in the store; ``here``: its capsule has them, and so has the store."""
        wanted = {file.artifact for file in ready.files if file.artifact is not None}
        self._inputs = tuple(wanted)
        self._means.keeping.need(wanted)
        there = {
            artifact.sha256: self._means.downloads.here(artifact)
            if here
            else await self._fetch(artifact, ready.limits.disk_bytes)
            for artifact in wanted
        }
        files = (
            dataclasses.replace(file, artifact=there[file.artifact.sha256]) if file.artifact is not None else file
            for file in ready.files
        )
        return dataclasses.replace(ready, files=tuple(files))

    async def _fetch(self, artifact: outcome.Artifact, limit: int) -> outcome.Artifact:
        pauses = backoff.Backoff(self.stop, cap=15.0, level=stopping.StopLevel.CANCEL)
        while True:
            try:
                there = await self._means.line.call(
                    lambda session_id: self._means.downloads.fetch(artifact, self._means.node_id, session_id, limit)
                )
            except errors.Unavailable as error:
                log.log_task_event("input_delayed", self.about.task_id, {"why": str(error)}, level="warning")
                await pauses.pause()
            else:
                self._means.keeping.arrived(there)
                return there

    def _tell_that_it_runs(self) -> None:
        if self.stop.level < stopping.StopLevel.CANCEL:
            self._news = self._beside(self._means.reporter.running(self.run_key()), "news")

    def _beside(self, work: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
        """Do it beside the executor's work; `run` ends it."""
        return asyncio.create_task(work, name=f"{what} of {self.about.task_id}")

    def _no_news(self) -> None:
        if self._news_due is not None:
            self._news_due.cancel()

    async def _end_side_tasks(self) -> None:
        self._no_news()
        await stopping.settle(*(task for task in (self._news, self._pump) if task is not None))

    async def _report(self, ended: outcome.Outcome, place: turns.Place) -> bool:
        """Have the pool acknowledge the end; whether nothing more is owed."""
        self.ended = ended
        # Output first: whoever follows it is told of the end by the report.
        deliver = self._means.reporter.deliver(self.run_key(), ended, place, self._output.rest)
        said = await self._unless_killed(deliver)
        closed = said is not None or self.dropped
        if said is None:
            said = "dropped" if self.dropped else f"not delivered: {self.stop.reason}"
        self._log_end(ended, said)
        await self._end_is_written()  # before it is closed: the journal says both in this order
        if closed:
            await self._kept.close(said)
            if self._output.waiting:
                await self._unless_killed(self._output.last())
        return closed

    async def _unless_killed(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Do the work, but give it up when the attempt is dropped or the node stops at once."""
        try:
            return await self.stop.until(stopping.StopLevel.KILL, work)
        except stopping.Stopped:
            return None

    def _log_end(self, ended: outcome.Outcome, said: str) -> None:
        details = {
            "attempt": self.about.attempt,
            "status": str(ended.status),
            "reason": str(ended.reason or ""),
            "error": ended.error[:500],
            "report": said,
            "seconds": round(clock.now() - self.story.started, 3),
        }
        lost = said.startswith(("rejected", "not delivered"))
        log.log_task_event("attempt_ended", self.about.task_id, details, level="warning" if lost else "info")
        if lost:
            self._means.troubles.note(f"report {said}", self.about.task_id)

    def _enter(self, phase: state.Phase) -> None:
        try:
            self.story.enter(phase, clock.now())
        except errors.ImpossibleMove as error:
            log.log_task_event("impossible_phase", self.about.task_id, level="error", error=error)


def _needs(task: spec.TaskSpec, ready: plan.RunPlan) -> resources.Resources:
    """What is reserved: the limits in force, or more where the task requires more to be free."""
    limits = resources.Resources(
        ready.limits.cpu_quota / spec.CPU_PERIOD, ready.limits.memory_bytes, ready.limits.disk_bytes
    )
    return limits.at_least(task.required)


def _failed(reason: outcome.Reason, error: str) -> outcome.Outcome:
    return outcome.Outcome(outcome.Status.FAILED, reason, error=error)


def _stopped(why: str) -> outcome.Outcome:
    if why == outcome.Reason.NODE_SHUTDOWN:
        return _failed(outcome.Reason.NODE_SHUTDOWN, "the node was stopped before the task could start")
    return outcome.Outcome(outcome.Status.CANCELLED, outcome.Reason.CANCELLED, error="cancelled before it started")
