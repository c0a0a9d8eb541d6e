"""WorkerNode: starts the loops, stops them in order. What each does stands in its own file."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from hivemind_worker import errors
from hivemind_worker.artifacts import outbox, store
from hivemind_worker.concurrency import stopping, supervision
from hivemind_worker.filesystem import sealed
from hivemind_worker.runtime import executor
from hivemind_worker.settings import state_lock
from hivemind_worker.tasks import kinds, plan, resources
from hivemind_worker.tasks.kinds import kind
from hivemind_worker.telemetry import logs
from hivemind_worker.telemetry.health import report
from hivemind_worker.worker import checkup, heartbeat, intake, registration
from hivemind_worker.worker.attempts import (
    attempt,
    keeping,
    past_lease,
    recovery,
    reporting,
    roster,
    safekeeping,
    transfers,
)
from hivemind_worker.worker.journal import records, writer
from hivemind_worker.worker.machine import admission, defences, fitness, measuring, room, status
from hivemind_worker.worker.pool_link import channel, client, session

if TYPE_CHECKING:  # psutil behind it costs 20 ms, which a worker that measures nothing need not wait for
    from hivemind_worker.worker.machine import monitor

LINK_SECONDS = 5.0
"""What the loops that talk to the pool get to end, once the last attempt is reported."""

log = logs.StructuredLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Who the node is and on what terms it works.

    ``capacity`` is what tasks may use together, ``max_concurrent_tasks`` how many there may be at once (0: as many as
    fit), ``limits`` what one task may use. Seconds: ``heartbeat_seconds`` between beats, ``poll_seconds`` that the
    pool may hold a question for work, ``drain_seconds`` that running tasks get to finish at the end,
    ``short_poll_seconds`` between the questions to a pool that knows no long polls. ``allow_egress``: whether a task
    that asks for it may reach the network. ``stop_past_lease``: whether tasks are stopped once the pool has been away
    for longer than the lease, rather than finished and offered. ``gpu_devices`` names the GPUs of ``capacity``.
    ``resource_wait_seconds`` is how long an attempt waits for room; ``fitness`` says when the node takes none.
    ``preload_images`` are fetched ahead, and those that the pool announces with ``preload_announced``.

    Of these a worker that runs can adopt others: ``limits``, ``capacity`` (with the same GPUs),
    ``max_concurrent_tasks``, ``labels``, ``drain_seconds``, ``resource_wait_seconds``, ``fitness`` (but its interval)
    and what is to be preloaded.
    """

    node_id: str
    version: str
    limits: kind.NodeLimits
    capacity: resources.Resources
    max_concurrent_tasks: int = 1
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    heartbeat_seconds: float = 30.0
    poll_seconds: float = 30.0
    drain_seconds: float = 300.0
    short_poll_seconds: float = 1.0
    stop_past_lease: bool = False
    allow_egress: bool = False
    gpu_devices: tuple[str, ...] = ()
    resource_wait_seconds: float = room.WAIT_SECONDS
    fitness: fitness.Limits = dataclasses.field(default_factory=fitness.Limits)
    preload_images: tuple[str, ...] = ()
    preload_announced: bool = True


class WorkerNode:
    """A worker node: registers with the pool, runs what it is given, reports how that ended.

    It opens and closes ``pool`` and ``runs``, and owns ``files``, ``journal`` and ``unsent``: what an earlier process
    left there is gone on with where the journal says so, and else removed.
    ``watched`` is this machine, looked at in a thread; without it nothing is measured. ``lock`` is that of the state
    folder: one that was copied goes on with nothing before the pool has taken it as this node.
    """

    def __init__(
        self,
        terms: Terms,
        *,
        pool: client.NodePoolClient,
        runs: executor.Executor,
        files: store.Store,
        journal: writer.Journal,
        unsent: outbox.Outbox,
        watched: monitor.ResourceMonitor | None,
        lock: state_lock.StateLock | None = None,
    ) -> None:
        self._pool = pool
        self._executor = runs
        self._files = files
        self._books = safekeeping.Books(journal, unsent, sealed.Key(journal.path.with_name("worker.key")))
        self._troubles = status.Troubles()
        self._monitor = watched
        self._lock = lock
        reservations = admission.Admission(terms.capacity, terms.max_concurrent_tasks, terms.gpu_devices)
        self._room = room.Room(reservations, terms.resource_wait_seconds)
        self._room.has_backlog = lambda: unsent.full
        unsent.on_change = self._room.changed.set
        self._fitness = fitness.Fitness(terms.fitness, self._room, runs, watched, self._turnover, self._books.troubles)
        # A worker of one command runs its owner's own task, and somebody waits for it.
        self._trials = None if watched is None else defences.DefenceTrials(runs, self._fitness)
        self._told = measuring.Measuring()
        self._line = session.Session(pool)
        self._keeping = keeping.Keeping(files)
        self._beside: dict[str, Callable[[stopping.Stop], Awaitable[None]]] = {}
        self._means = means = attempt.Means(
            node_id=terms.node_id,
            executor=runs,
            limits=terms.limits,
            room=self._room,
            keeping=self._keeping,
            pool=pool,
            line=self._line,
            downloads=transfers.Downloads(pool, files),
            reporter=reporting.Reporter(pool, self._line, files, terms.node_id),
            books=self._books,
            troubles=self._troubles,
            allow_egress=terms.allow_egress,
        )
        self._attempts = roster.Roster(means, terms.drain_seconds, self._told)
        self._identity = registration.Identity(
            node_id=terms.node_id,
            boot_id=str(uuid.uuid4()),
            version=terms.version,
            capacity=terms.capacity,
            max_concurrent_tasks=terms.max_concurrent_tasks,
            capabilities=(
                runs.isolation,
                *sorted(kinds.KINDS),
                *((plan.Network.EGRESS,) if terms.allow_egress else ()),
                plan.SECRETS,
            ),
            labels=terms.labels,
            state_lock_id="" if lock is None else lock.id,
        )
        self.announced_images: frozenset[str] = frozenset()
        self._own_images, self._heed = terms.preload_images, terms.preload_announced
        self._registration = registration.Registration(
            self._identity, self._line, self._attempts, self._announced, journal.forget_former_boot
        )
        self._heartbeat = heartbeat.Heartbeat(
            terms.heartbeat_seconds, means, self._attempts, self._told, self._fitness, self._announced
        )
        self.health: report.Health = checkup.checker(self._pool, self._line, self._room, self._fitness)
        self._past_lease = past_lease.PastLease(means, self._attempts) if terms.stop_past_lease else None
        self._intake = intake.Intake(terms.poll_seconds, terms.short_poll_seconds, means, self._attempts)

    async def run(self, stop: stopping.Stop) -> None:
        """Work until the stop, then drain: take nothing new, finish or hand back what runs, say goodbye.

        ``stop`` at level drain lets tasks finish for the drain time, or until its own deadline if that is sooner; at
        cancel they are ended in order and handed back; at kill at once.

        Raises :class:`hivemind_worker.errors.IsolationMissing` or ``EngineLost`` where no task can run here,
        ``BadSettings`` where the pool may not be reached as it is set, ``StateInUse`` where another process is this
        node, and
        :class:`hivemind_worker.concurrency.supervision.LoopFailed` when a loop failed, with the cause.
        """
        loops = supervision.Loops(
            "node", [supervision.Stage("attempts", None), supervision.Stage("link", LINK_SECONDS)]
        )
        loops.add("attempts", "attempts", self._attempts.run)
        loops.add("registration", "link", self._registration.run)
        loops.add("heartbeat", "link", self._heartbeat.run)
        loops.add("intake", "link", self._intake.run)
        loops.add("fitness", "link", self._fitness.run)
        if self._trials is not None:
            loops.add("defences", "link", self._trials.run)
        if self._past_lease is not None:
            loops.add("past lease", "link", self._past_lease.run)
        for name, loop in self._beside.items():
            loops.add(name, "link", loop)
        with logs.bind(node_id=self._identity.node_id):
            try:
                self._pool.open()
                self._registration.ip_address = await asyncio.to_thread(channel.own_address, self._pool.access.address)
                if await self._take_up(stop):
                    self._announced(())
                    self._log_start()
                    await _unwrapped(loops.run(stop))
            finally:
                await self._heartbeat.last_word()
                await self._executor.close()
                await self._pool.close()
                if self._monitor is not None:
                    await asyncio.to_thread(self._monitor.close)
                await self._books.journal.close()
                self._books.outbox.close()
                self._files.close()
                log.log_system_event("worker_stopped", {"why": stop.reason, "ended": self._attempts.ended_count})

    def _announced(self, references: Iterable[str]) -> None:
        """Have the images ready that the owner lists and that the pool has announced; each time, in case one failed."""
        wanted = tuple(references) if self._heed else ()
        self.announced_images = frozenset(wanted)
        self._executor.preload((*self._own_images, *wanted))

    def adopt(self, terms: Terms) -> None:
        """Work on these terms from now on, as far as `Terms` says; what runs is left as it is. On its event loop."""
        self._means.limits = terms.limits
        self._attempts.drain_seconds = terms.drain_seconds
        self._room.adopt(terms.capacity, terms.max_concurrent_tasks, terms.resource_wait_seconds)
        self._fitness.adopt(terms.fitness)
        self._own_images, self._heed = terms.preload_images, terms.preload_announced
        self._announced(self.announced_images)
        before = self._identity
        self._identity = self._registration.identity = dataclasses.replace(
            before,
            capacity=terms.capacity,
            max_concurrent_tasks=terms.max_concurrent_tasks,
            labels=terms.labels,
        )
        if self._identity != before:
            self._line.renew()

    def beside(self, name: str, loop: Callable[[stopping.Stop], Awaitable[None]]) -> None:
        """Have a loop run beside the node's own, from ``run`` on; like those it must not end before its stop."""
        self._beside[name] = loop

    @property
    def needed(self) -> frozenset[str]:
        """The sums of the stored files that tasks or the pool still need."""
        return self._keeping.needed

    def snapshot(self) -> status.Snapshot:
        """Tell everything about the node at this moment. To be called on its event loop."""
        return status.Snapshot(
            node_id=self._identity.node_id,
            boot_id=self._identity.boot_id,
            status=self._heartbeat.word,
            pool=self._pool.access.address,
            session_id=self._line.id,
            connected=self._line.established,
            plain_pool=self._line.plain,
            trouble=self._line.trouble,
            isolation=self._executor.isolation,
            capacity=self._identity.capacity,
            reserved=self._room.reservations.reserved,
            max_concurrent_tasks=self._identity.max_concurrent_tasks,
            attempts=self._attempts.statuses(self._fitness.usage),
            ended=self._attempts.ended_count,
            last_errors=self._troubles.last(),
            holds=dict(self._room.holds),
            machine={} if self._monitor is None else self._monitor.get_current_metrics(),
            recent=() if self._monitor is None else self._monitor.recent,
            last_ended=self._attempts.last_ended(),
            defences=self._fitness.defences,
        )

    def _turnover(self) -> fitness.Turnover:
        held = tuple(((each.task_id, each.attempt), each.phase) for each in self._attempts.statuses())
        return fitness.Turnover(self._attempts.ended_count, held)

    async def metrics(self) -> tuple[bytes, str]:
        """Return the node's metrics in Prometheus' text format, and that format's content type."""
        ready, _ = self.health.ready()
        return self._told.exposition(
            self.snapshot(),
            self._fitness,
            version=self._identity.version,
            ready=ready,
            heard_at=self._line.heard_at,
        )

    async def _take_up(self, stop: stopping.Stop) -> bool:
        """Go on with what an earlier process of this node held; false where the stop came before that."""
        recovered = await self._books.journal.open()
        if self._lock is not None and recovered.boot_ids:
            former = tuple(map(self._lock.id_under, recovered.boot_ids))
            self._identity = dataclasses.replace(self._identity, former_state_lock_ids=former)
            self._registration.identity = self._identity
        copied = self._lock if self._lock is not None and self._lock.is_copy else None
        presumed = recovered.holdings.presume_started(recovery.COPIED) if copied is not None else ()
        estate = await asyncio.to_thread(recovery.read, recovered, self._books)
        if estate.told:
            self._troubles.note(estate.told)
            log.log_system_event("journal_damaged", {"why": estate.told}, level="error")
        if copied is not None:
            # Its original may be alive: whose the capsules and files are that it names, the pool knows.
            if not await self._registration.claim(stop, recovery.refs(estate.found)):
                return False
            with contextlib.suppress(writer.JournalBroken):  # a disk that is full leaves it a copy
                await asyncio.gather(*map(self._books.journal.append, presumed))
                copied.take_over()
        await asyncio.to_thread(recovery.tidy, self._files, self._books, estate.found)
        for key in estate.lost:
            closed = records.Closed(key.task_id, key.attempt, "its records were lost", key.store_epoch)
            await self._books.journal.append(closed)
        await self._executor.open(estate.covered)
        if estate.found:
            log.log_system_event("attempts_taken_up", recovery.tell(estate.found))
        self._attempts.adopt(estate.found)
        return True

    def _log_start(self) -> None:
        its = self._identity
        details = {
            "pool": self._pool.access.address,
            "boot_id": its.boot_id,
            "version": its.version,
            "isolation": self._executor.isolation,
            "cpu_cores": its.capacity.cpu_cores,
            "memory_bytes": its.capacity.memory_bytes,
            "disk_bytes": its.capacity.disk_bytes,
            "max_concurrent_tasks": its.max_concurrent_tasks,
        }
        log.log_system_event("worker_started", details)


async def _unwrapped(running: Awaitable[object]) -> None:
    """Have it end by the error that tells whose node id this is, where a loop failed by that."""
    try:
        await running
    except supervision.LoopFailed as error:
        if isinstance(error.__cause__, errors.StateInUse):
            raise error.__cause__ from None
        raise
