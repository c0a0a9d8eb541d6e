"""Reports judged by the fence: which attempt's end counts, which is a repeat, which came too late."""

from __future__ import annotations

import dataclasses

from hivemind_worker import errors
from hivemind_worker.pool.store import (
    attempts,
    database,
    moves,
    plausibility,
    records,
    resting,
    sessions,
    shapes,
    writing,
)
from hivemind_worker.tasks import outcome, state

TOLD_BYTES = 16 * 1024
"""A larger result is read by each who waits for it, when it can be sent."""

_MOVES = {
    outcome.Status.COMPLETED: state.Move.COMPLETE,
    outcome.Status.FAILED: state.Move.FAIL,
    outcome.Status.CANCELLED: state.Move.CANCEL,
}


def report(on: writing.Transaction, said: records.Report, lease_seconds: float) -> records.Answer:
    """See :meth:`store.Store.report`."""
    node = sessions.check(on.sql, said.node_id, said.session_id)
    other_epoch = attempts.is_other_epoch(on, said.epoch)
    task = None if other_epoch else moves.row(on.sql, said.task_id)
    if task is None:
        restored = "it was assigned in another epoch: the pool's store was restored or made anew since"
        return records.Answer(records.Verdict.UNKNOWN, restored if other_epoch else "this pool has no such task")
    attempt = said.attempt or _newest_of(on.sql, task, said.node_id)
    if attempt is None:
        return records.Answer(records.Verdict.STALE, f"{said.node_id} was never given this task")
    if attempt > task["attempt"]:
        return records.Answer(records.Verdict.UNKNOWN, f"attempt {attempt} was never handed out")
    if (refused := _of_another_run(on, task["number"], attempt, said)) is not None:
        return refused
    known = on.sql.execute(
        "SELECT verdict FROM reports WHERE number = ? AND attempt = ?", (task["number"], attempt)
    ).fetchone()
    if known is not None:
        verdict = records.Verdict.DUPLICATE if known["verdict"] == records.Verdict.ACCEPTED else records.Verdict.STALE
        return records.Answer(verdict, "this attempt's end was reported before")
    in_force = attempt == task["attempt"] and said.node_id == task["node_id"] and task["state"] not in state.ENDED
    if not in_force:
        return _too_late(on, task, attempt, said)
    attempts.bind(on, task["number"], attempt, said.run_id)
    if said.status is None:
        return _started(on, task, node, lease_seconds)
    return _ended(on, task, plausibility.checked(on, task, said))


def _newest_of(sql: database.Connection, task: database.Row, node_id: str) -> int | None:
    """The newest attempt that this node was given, ``None`` if it never was."""
    if task["node_id"] == node_id and task["attempt"]:
        return int(task["attempt"])
    return attempts.newest_of(sql, task["number"], node_id)


def _of_another_run(on: writing.Transaction, number: int, attempt: int, said: records.Report) -> records.Answer | None:
    """The answer to a report that is not of the attempt's one run in this epoch; ``None`` where it is.

    Such a report is not stored: its place in the record is the right one's.
    """
    assigned = attempts.find(on.sql, number, attempt)
    if assigned is None or assigned.node_id != said.node_id:
        return None  # judged by the fence: too late, or never this node's
    if assigned.epoch != on.epoch:
        return records.Answer(records.Verdict.STALE, f"attempt {attempt} was given up when the store was restored")
    if assigned.run_id not in ("", said.run_id):
        return records.Answer(records.Verdict.STALE, f"attempt {attempt} is bound to another run")
    return None


def _too_late(on: writing.Transaction, task: database.Row, attempt: int, said: records.Report) -> records.Answer:
    if task["state"] in state.ENDED:
        why = f"the task has ended before ({task['state']})"
    else:
        why = f"attempt {task['attempt']} on {task['node_id']} is in force"
    assigned = attempts.find(on.sql, task["number"], attempt)
    # Kept only from the node that had the attempt: a wrong one must not take its place in the record.
    if said.status is not None and assigned is not None and assigned.node_id == said.node_id:
        _keep(on, task, attempt, said, records.Verdict.STALE)
        counted = _count_stopped(on, task, attempt, said)
        moves.note(on, task, "stale_report", said.node_id, f"attempt {attempt}: {said.status}; {why}{counted}")
    return records.Answer(records.Verdict.STALE, why)


def _count_stopped(tx: writing.Transaction, task: database.Row, attempt: int, message: records.Report) -> str:
    """Take back what the loss of a lease has used up, now that its node says that it was stopped in order.

    A task that has ended stays as it is: it ended once.
    """
    if message.reason != outcome.Reason.NODE_SHUTDOWN or task["state"] in state.ENDED:
        return ""
    if not attempts.was_lease_lost(tx.sql, task["number"], attempt):
        return ""
    attempts.set_crashed(tx, task["number"], attempt, crashed=False)
    tx.sql.execute("UPDATE tasks SET disruptions = disruptions + 1 WHERE number = ?", (task["number"],))
    return "; its node was stopped in order, so it uses up no attempt"


def _started(on: writing.Transaction, task: database.Row, node: database.Row, lease_seconds: float) -> records.Answer:
    if task["state"] == state.TaskState.QUEUED:
        if not sessions.may_resume(task, task["attempt"], node["node_id"], on.lease_time):
            return records.Answer(records.Verdict.STALE, "the attempt was given up: its node had it for too long")
        # With the lease that it is then under: nobody would look again at what a lost node was given.
        sessions.renew(on, node, lease_seconds)
        task = moves.resume(on, task, "its node still runs it")
    if task["state"] == state.TaskState.ASSIGNED:
        moves.start(on, task)
    return records.Answer(records.Verdict.ACCEPTED)


def _ended(on: writing.Transaction, task: database.Row, said: records.Report) -> records.Answer:
    assert said.status is not None
    if said.missing:
        raise errors.Rejected(
            f"the pool does not have {len(said.missing)} of the result's files, such as {said.missing[0]}: "
            "upload them, then report again",
            "MISSING_ARTIFACT",
        )
    _keep(on, task, task["attempt"], said, records.Verdict.ACCEPTED)
    shape = resting.after_end(on, said.node_id, task, said.reason, said.node_check)
    queued = task["state"] == state.TaskState.QUEUED
    disruption = said.reason == outcome.Reason.NODE_SHUTDOWN
    attempts.set_crashed(on, task["number"], task["attempt"], crashed=said.reason == outcome.Reason.WORKER_CRASH)
    if said.try_again and not task["cancel_requested"] and moves.may_try_again(on.sql, task, disruption=disruption):
        told = ": ".join(part for part in (said.reason, said.error[:500]) if part)
        if queued:  # the lease was lost before; it waits for its next attempt already
            moves.note(on, task, "late_report", said.node_id, told)
            counts = moves.disrupted(task, disruption=disruption)
            on.sql.execute(
                "UPDATE tasks SET accepted = ?, disruptions = ?, disrupted = ? WHERE number = ?",
                (task["attempt"], counts["disruptions"], counts["disrupted"], task["number"]),
            )
        else:
            moves.requeue(on, task, told, accepted=True, disruption=disruption, shape=shape)
        return records.Answer(records.Verdict.ACCEPTED, "the node was at fault: the task is tried again")
    if queued:
        # Nobody else was given it: a finished result is better than another run.
        task = moves.resume(on, task, "its node offers the result after its lease was lost")
    move, reason, error = _MOVES[said.status], said.reason, said.error
    if task["cancel_requested"] and said.try_again:  # it would run again, but for the wish: that is how it ends
        text = ": ".join(part for part in (reason, error) if part)
        move, reason, error = state.Move.CANCEL, str(outcome.Reason.CANCELLED), f"cancelled; {text}"
    elif said.try_again:
        error = f"{error or reason}; {moves.given_up(on.sql, task, disruption=disruption)}"
    ended = moves.end(on, task, move, reason, error, accepted=True)
    if len(said.body) <= TOLD_BYTES:  # who waits for the task need not read it again
        whole = moves.task({**dict(task), **ended}, shapes.shape(on.sql, task["shape"]), said.body)
        on.changes[-1] = dataclasses.replace(on.changes[-1], task=whole)
    return records.Answer(records.Verdict.ACCEPTED)


def _keep(
    on: writing.Transaction, task: database.Row, attempt: int, said: records.Report, verdict: records.Verdict
) -> None:
    on.sql.execute(
        "INSERT INTO reports VALUES (?, ?, ?, ?, ?, ?)",
        (task["number"], attempt, str(verdict), on.now, said.node_id, said.body),
    )
    if said.summary is not None and verdict is records.Verdict.ACCEPTED:
        on.sql.execute("INSERT INTO summaries VALUES (?, ?, ?)", (task["number"], attempt, said.summary))
