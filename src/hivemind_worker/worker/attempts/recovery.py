"""At start: what an earlier process of this node held, as far as its journal, its store and its outbox tell.

An attempt that had ended is delivered. One that had been told to start is entered again where its capsule outlives its
worker, and else has ended by the crash: it never runs a second time. One that was only accepted begins once the pool
says that it is still ours. Everything else in the store and the outbox is removed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from hivemind_worker import errors
from hivemind_worker.artifacts import store
from hivemind_worker.runtime import checkpoint
from hivemind_worker.tasks import attempt_id, outcome
from hivemind_worker.telemetry import logs
from hivemind_worker.wire import calls, secret_values, translate
from hivemind_worker.worker.attempts import safekeeping
from hivemind_worker.worker.journal import reader, records

MAX_PREPARATIONS = 3
"""How many processes may be killed while they prepare one attempt (pull its image, make its environment)."""

KILLED_WHILE_PREPARED = "{} workers of this node ended while they prepared the task"
ENDED_WITH_WORKER = "the worker ended while the task ran, and its capsule with it"
COPIED = "the state folder was copied, restored or moved, and its original may have written more: it may have begun"

log = logs.StructuredLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """One attempt of an earlier process: how it ended, else where its capsule is and how far it had come.

    ``crashed`` says why it cannot be gone on with, although it was told to start; empty where it can be.
    """

    message: calls.pb.Task
    run: attempt_id.RunKey
    ended: outcome.Outcome | None = None
    capsule: Mapping[str, str] | None = None
    after: checkpoint.Checkpoint | None = None
    crashed: str = ""
    started: bool = False
    preparations: int = 1


@dataclass(frozen=True, slots=True)
class Estate:
    """All that was found. ``lost`` are attempts of which too little is known to go on; the pool gives them to others.

    ``told`` says what of the records could not be read; empty where all could.
    """

    found: tuple[Found, ...] = ()
    lost: tuple[records.Key, ...] = ()
    told: str = ""

    @property
    def covered(self) -> tuple[Mapping[str, str], ...]:
        """Where the capsules are that are gone on with."""
        return tuple(each.capsule for each in self.found if each.capsule is not None)


def refs(found: Iterable[Found]) -> list[calls.pb.AttemptRef]:
    """Name the attempts, and their runs where they may have begun, as a registration lists them."""
    return [
        calls.pb.AttemptRef(
            task_id=each.run.attempt_id.task_id,
            attempt=each.run.attempt_id.attempt,
            store_epoch=each.run.attempt_id.store_epoch,
            run_id=each.run.run_id if each.started else "",
        )
        for each in found
    ]


def read(recovered: reader.Recovered, books: safekeeping.Books) -> Estate:
    """Put together what the journal and the outbox say. Blocks."""
    found, lost = [], []
    for key, held in recovered.holdings.attempts.items():
        each = _read(key, held, books)
        if each is None:
            lost.append(key)
        else:
            found.append(each)
    told = ""
    if recovered.why:
        told = (
            f"the journal was damaged ({recovered.why}): {recovered.lost_lines} records are lost, "
            f"the old file is kept as {recovered.set_aside}"
        )
    return Estate(tuple(found), tuple(lost), told)


def _read(key: records.Key, held: records.Held, books: safekeeping.Books) -> Found | None:
    """One attempt; None where what is known is not enough."""
    message = calls.pb.Task(id=key.task_id, attempt=key.attempt)
    run = attempt_id.RunKey(key, held.run_id or attempt_id.new_run_id())
    started = held.started is not None
    try:
        if held.accepted is not None:
            message = translate.parsed(calls.pb.Task, held.accepted.task)
        if held.ended is not None:
            result = translate.parsed(calls.pb.TaskResult, held.ended.result)
            return Found(message, run, translate.outcome_from_message(result), started=started)
        if held.accepted is None:
            return None
        secret_values.from_records(message, books.key)
        if held.started is None:
            tries = held.accepted.preparations
            crashed = KILLED_WHILE_PREPARED.format(tries) if tries >= MAX_PREPARATIONS else ""
            return Found(message, run, crashed=crashed, preparations=tries)
        if not held.started.capsule:
            return Found(message, run, crashed=held.started.doubt or ENDED_WITH_WORKER, started=True)
        data = books.outbox.checkpoint(run)
        after = checkpoint.Checkpoint() if data is None else checkpoint.decode(data)
        return Found(message, run, capsule=held.started.capsule, after=after, started=True)
    except (errors.Rejected, errors.BadSettings, ValueError, OSError) as error:
        log.log_task_event("record_unreadable", key.task_id, {"why": str(error)}, level="error")
        return None


def tidy(files: store.Store, books: safekeeping.Books, found: Collection[Found]) -> int:
    """Make store and outbox ready, without what no found attempt needs; return how many files went. Blocks."""
    progress = [each.after for each in found if each.after is not None]
    files.prepare({name for each in progress for name in each.staged_names})
    needed = {artifact.sha256 for each in progress for artifact in each.artifacts}
    needed |= {file.artifact.sha256 for each in found if each.ended is not None for file in each.ended.results}
    needed |= {each.sha256 for one in found for each in one.message.input_artifacts.values()}
    removed = sum(
        files.remove(artifact.sha256) for artifact in list(files.artifacts()) if artifact.sha256 not in needed
    )
    books.outbox.prepare({each.run for each in found})
    if removed:
        log.log_system_event("leftovers_removed", {"artifacts": removed})
    return removed


def tell(found: Iterable[Found]) -> dict[str, int]:
    """Count, for the log, what is gone on with."""
    held = list(found)
    return {
        "to_deliver": sum(each.ended is not None for each in held),
        "to_enter_again": sum(each.capsule is not None for each in held),
        "crashed": sum(bool(each.crashed) for each in held),
        "to_begin_anew": sum(each.ended is None and not each.started for each in held),
    }
