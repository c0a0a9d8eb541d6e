"""What is written down about one attempt, so that another process of this node can go on: written, then acted upon."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass

from hivemind_worker import errors
from hivemind_worker.artifacts import outbox as outboxes
from hivemind_worker.artifacts import spool as spools
from hivemind_worker.filesystem import sealed
from hivemind_worker.runtime import checkpoint
from hivemind_worker.tasks import attempt_id, outcome, plan
from hivemind_worker.telemetry import logs
from hivemind_worker.wire import budget, calls, secret_values, translate
from hivemind_worker.worker.journal import records, writer
from hivemind_worker.worker.machine import fitness

log = logs.StructuredLogger(__name__)

DIRECT_BYTES = 64 * 1024
DIRECT_FILES = 100
"""A result with no more output or files is put into words at once: it takes less time than the way to a thread."""

START_SECONDS = 0.005
"""How long an acceptance waits for the record of its start, to be written with it. A task whose start takes longer, as
its image is pulled, has its acceptance written by itself."""

REPORT_FIRST_SECONDS = 0.001
"""How long the record of an end, and its wait for the disk, leave this process to the report: it is sent by then."""

_PLAN = "plan"
"""Key under which the limits that the task was started with stand beside where its capsule is."""


@dataclass(frozen=True, slots=True)
class Books:
    """Where things are written down."""

    journal: writer.Journal
    outbox: outboxes.Outbox
    key: sealed.Key

    @property
    def unready_reasons(self) -> Mapping[str, str]:
        """Why no task should be begun as far as is known at once: the journal was broken when last written."""
        return {fitness.JOURNAL: self.journal.broken} if self.journal.broken else {}

    def unready_reasons_after(self, error: Exception) -> Mapping[str, str] | None:
        """Why no task should be begun, by cause, after an attempt that this error ended for want of room; ``None``: it
        is another's.

        Of a task that ran to its end, too, and whose results a disk of this node did not take: it lacked room.
        """
        if errors.is_disk_fault(error):
            return {**self.unready_reasons, fitness.DISK: f"disk: {error}"}
        return self.unready_reasons if isinstance(error, errors.NoRoom) else None

    async def troubles(self) -> Mapping[str, str]:
        """Say why no task should be begun, by cause; a journal that was broken is tried again."""
        await self.journal.mend()
        found = dict(self.unready_reasons)
        if self.outbox.full:
            found[fitness.OUTBOX] = (
                "ends of tasks wait for the pool to take them, as many as undelivered_limit_count and "
                "undelivered_limit_bytes allow"
            )
        return found


class Safekeeping:
    """The record of one attempt, from its acceptance until the pool has acknowledged its end."""

    def __init__(self, books: Books, run: attempt_id.RunKey, *, started: bool = False) -> None:
        self._books = books
        self._run = run
        self._about = run.attempt_id
        self._started = started
        self._accepted: asyncio.Future[None] | None = None
        self._plan: plan.RunPlan | None = None
        self._ended = False
        self.staged_names: set[str] = set()
        """Half-written files that its checkpoints have named: not to be removed before its end is written down."""

    def accept(self, message: calls.pb.Task, preparations: int = 1) -> None:
        """Begin to write down that the attempt is ours; ``placed`` waits until that is written.

        ``preparations``: how many processes have prepared it, this one included.
        """
        about, run_id = self._about, self._run.run_id
        try:
            task = secret_values.for_records(message, self._books.key)
        except (OSError, errors.BadSettings) as error:
            self._accepted = asyncio.get_running_loop().create_future()
            self._accepted.set_exception(writer.JournalBroken(f"secrets cannot be sealed: {error}"))
            self._accepted.exception()  # whoever waits for it hears of it
            return
        accepted = records.Accepted(about.task_id, about.attempt, task, about.store_epoch, run_id, preparations)
        self._accepted = self._books.journal.begin(accepted, within=START_SECONDS)

    def starts(self, ready: plan.RunPlan) -> None:
        """Be told with which limits it is started."""
        self._plan = ready

    @property
    def run_id(self) -> str:
        """The id of its run, once that is written down and the task may have begun; empty before."""
        return self._run.run_id if self._started else ""

    async def placed(self, capsule: Mapping[str, str]) -> None:
        """See :meth:`checkpoint.Keeper.placed`. Acceptance and start are one write where they can be."""
        if capsule and self._plan is not None:
            capsule = {**capsule, _PLAN: json.dumps(_terms(self._plan), separators=(",", ":"))}
        about = self._about
        started = records.Started(about.task_id, about.attempt, capsule, about.store_epoch, self._run.run_id)
        writing = self._books.journal.begin(started)
        await self.accepted()
        await writing
        self._started = True

    async def accepted(self) -> None:
        """Wait until the attempt is written down as ours. Raises :class:`writer.JournalBroken`."""
        if self._accepted is not None:
            await asyncio.shield(self._accepted)

    async def save(self, reached: checkpoint.Checkpoint) -> None:
        """See :meth:`checkpoint.Keeper.save`."""
        self.staged_names |= reached.staged_names
        await self._books.outbox.save(self._run, checkpoint.encode(reached))

    async def ended(self, ended: outcome.Outcome) -> None:
        """See :meth:`checkpoint.Keeper.ended`. A disk that does not take it costs nothing while this process lives."""
        if not self._ended:
            await self._write_end(ended)

    async def ended_later(self, ended: outcome.Outcome) -> None:
        """Write the same down behind the report of it, which is on its way: whoever waits for the result waits less."""
        if not self._ended:
            await asyncio.sleep(REPORT_FIRST_SECONDS)
            await self._write_end(ended)

    async def _write_end(self, ended: outcome.Outcome) -> None:
        if len(ended.logs.text) > DIRECT_BYTES or len(ended.results) + len(ended.skipped) > DIRECT_FILES:
            result = await self._books.journal.on_thread(functools.partial(_serialized, ended))
        else:
            result = _serialized(ended)
        about = self._about
        record = records.Ended(about.task_id, about.attempt, result, about.store_epoch, self._run.run_id)
        try:
            await self._books.journal.append(record)
        except writer.JournalBroken as error:
            log.log_task_event("end_not_written", about.task_id, {"why": str(error)}, level="error")
            return
        self.is_ended(ended)

    def is_ended(self, ended: outcome.Outcome) -> None:
        """Take note that the end stands in the journal, and that its files wait for the pool."""
        self._ended = True
        size = sum(artifact.size for artifact in {file.artifact for file in ended.results})
        self._books.outbox.owe(self._run, size)

    async def close(self, why: str) -> None:
        """Nothing more is owed."""
        self._books.outbox.settled(self._run)
        if self._accepted is not None:
            with contextlib.suppress(errors.NodeFault):
                await asyncio.shield(self._accepted)
        with contextlib.suppress(writer.JournalBroken):  # it is told again after the next start, and stands once
            about = self._about
            await self._books.journal.append(records.Closed(about.task_id, about.attempt, why, about.store_epoch))
        self._books.outbox.forget(self._run)

    def spool(self, *, is_new: bool) -> spools.Spool:
        """Return where its output waits; ``is_new``: no earlier process had the run."""
        return self._books.outbox.spool(self._run, is_new=is_new)


def as_placed(ready: plan.RunPlan, capsule: Mapping[str, str]) -> plan.RunPlan:
    """Return the plan with the limits that its task was started with, which the settings may have changed since.

    Raises ValueError where they cannot be read.
    """
    try:
        said = json.loads(capsule[_PLAN])
        return dataclasses.replace(
            ready,
            limits=outcome.Limits(**said["limits"]),
            caps=plan.Caps(**said["caps"]),
            grace_seconds=float(said["grace_seconds"]),
            gpu_devices=tuple(said["gpu_devices"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"what the journal says of its limits cannot be read: {error}") from None


def _terms(ready: plan.RunPlan) -> dict[str, object]:
    return {
        "limits": dataclasses.asdict(ready.limits),
        "caps": dataclasses.asdict(ready.caps),
        "grace_seconds": ready.grace_seconds,
        "gpu_devices": ready.gpu_devices,
    }


def _serialized(ended: outcome.Outcome) -> bytes:
    """As much of it as a report can carry: more would be read into memory at each start, and never be sent."""
    message = translate.outcome_to_message(ended)
    budget.fit_result(message)
    return message.SerializeToString()
