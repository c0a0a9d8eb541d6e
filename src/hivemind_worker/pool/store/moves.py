"""A task's row: reading it, moving it by the one table of moves, and writing down each move in its story."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hivemind_worker import errors
from hivemind_worker.pool.matching import assignment
from hivemind_worker.pool.store import attempts, database, records, shapes, writing
from hivemind_worker.tasks import outcome, state


def row(sql: database.Connection, task_id: str) -> database.Row | None:
    """Return the row of a task, ``None`` where there is none: also of one that is only staged."""
    found: database.Row | None = sql.execute(
        "SELECT * FROM tasks WHERE id = ? AND state <> 'staged'", (task_id,)
    ).fetchone()
    return found


def held_by(sql: database.Connection, node_id: str) -> list[database.Row]:
    """Return the rows of the tasks that a node holds, oldest first."""
    # In the very words of the index: otherwise it cannot be used.
    return sql.execute(
        "SELECT * FROM tasks INDEXED BY held WHERE node_id = ? AND state IN ('assigned', 'running') ORDER BY number",
        (node_id,),
    ).fetchall()


def ref(task: database.Row) -> records.Ref:
    """Return the newest attempt of a task."""
    return records.Ref(task["id"], task["attempt"])


def assign(on: writing.Transaction, task: database.Row, node_id: str, seconds: float) -> int:
    """Give the next attempt to a node, whose lease is in force, for so many seconds at most; return its number."""
    attempt: int = task["attempt"] + 1
    attempts.add(on, task["number"], attempt, node_id)
    sets = {"attempt": attempt, "assigned_at": on.now, "started_at": 0.0}
    _move(on, task, state.Move.ASSIGN, node_id, "", **sets, given_at=on.lease_time, deadline=on.lease_time + seconds)
    return attempt


def resume(on: writing.Transaction, task: database.Row, why: str) -> database.Row:
    """Give a queued task back to the node that had lost it, as the same attempt; return the new row.

    The node's lease must be in force, or renewed in the same transaction, unless the attempt ends with it. Its deadline
    stays: else an attempt that is lost and listed in turns would be held for ever.
    """
    # An attempt that goes on after all was not disrupted.
    sets = {"disruptions": _earlier_disruptions(task), "disrupted": 0, "assigned_at": on.now, "given_at": on.lease_time}
    attempts.set_lease_lost(on, task["number"], task["attempt"], lost=False)
    attempts.set_crashed(on, task["number"], task["attempt"], crashed=False)
    _move(on, task, state.Move.ASSIGN, task["node_id"], why, **sets)
    if (started_at := _started_at(on.sql, task)) is not None:
        # What runs is never handed out again, not even to a poll that was sent before it was and comes late.
        _move(on, need(on.sql, task["id"]), state.Move.START, task["node_id"], why, started_at=started_at)
    return need(on.sql, task["id"])


def _started_at(sql: database.Connection, task: database.Row) -> float | None:
    """When the newest attempt's own process was first heard to run; None: it was not."""
    event = sql.execute(
        "SELECT at FROM events WHERE number = ? AND attempt = ? AND event = ? ORDER BY version LIMIT 1",
        (task["number"], task["attempt"], str(state.Move.START)),
    ).fetchone()
    return None if event is None else float(event["at"])


def start(on: writing.Transaction, task: database.Row) -> None:
    """The task's own process runs."""
    _move(on, task, state.Move.START, task["node_id"], "", started_at=on.now)


def end(
    on: writing.Transaction,
    task: database.Row,
    move: state.Move,
    reason: str = "",
    error: str = "",
    *,
    accepted: bool = False,
) -> dict[str, object]:
    """End a task for good; return the columns that changed.

    ``accepted``: by the report of its newest attempt, which is kept by the caller.
    """
    if task["has_secrets"]:
        on.sql.execute("DELETE FROM sealed_secrets WHERE number = ?", (task["number"],))
    told = ": ".join(part for part in (reason, error[:500]) if part)
    sets: dict[str, object] = {"ended_at": on.now, "reason": reason, "error": error}
    if accepted:
        sets |= {"accepted": task["attempt"], "result": task["attempt"]}
    return _move(on, task, move, task["node_id"], told, **sets)


def give_up(on: writing.Transaction, task: database.Row, why: str, *, disruption: bool = False) -> None:
    """The attempt is lost through no fault of its task's: the next one, or the end where there is none.

    ``disruption``: the system itself ended it (identity clash, restore), so it uses up none of the task's attempts.
    """
    reason = str(outcome.Reason.NODE_SHUTDOWN if disruption else outcome.Reason.WORKER_CRASH)
    attempts.set_crashed(on, task["number"], task["attempt"], crashed=not disruption)
    if task["cancel_requested"]:
        end(on, task, state.Move.CANCEL, str(outcome.Reason.CANCELLED), f"cancelled; {why}")
    elif may_try_again(on.sql, task, disruption=disruption):
        requeue(on, task, f"{reason}: {why}", disruption=disruption)
    else:
        end(on, task, state.Move.FAIL, reason, f"{why}; {given_up(on.sql, task, disruption=disruption)}")


def may_try_again(sql: database.Connection, task: database.Row, *, disruption: bool) -> bool:
    """Whether a task is queued again when its newest attempt ends by a disruption, or by its node's fault."""
    disruptions = _earlier_disruptions(task)
    if disruption:
        return disruptions + 1 < MAX_DISRUPTIONS
    left = task["attempt"] - disruptions < task["max_attempts"]
    return bool(left and attempts.crashed_nodes(sql, task["number"]) < MAX_CRASHED_NODES)


def _earlier_disruptions(task: database.Row) -> int:
    """How many attempts before the newest one were disrupted."""
    return int(task["disruptions"]) - int(task["disrupted"] == task["attempt"] > 0)


def given_up(sql: database.Connection, task: database.Row, *, disruption: bool = False) -> str:
    """Say that this was the last of a task's attempts, and how each one before it ended, on which node."""
    last: dict[int, str] = {}
    for event in story(sql, task["number"]):
        if event.event in _UNDONE and event.attempt < task["attempt"]:
            last[event.attempt] = f"attempt {event.attempt} on {event.node_id}: {event.details[:_TOLD_CHARS]}"
    told = list(last.values())
    if len(told) > 2 * _TOLD:
        told[_TOLD:-_TOLD] = [f"… {len(told) - 2 * _TOLD} more …"]
    here = f"{_count(task, disruption=disruption)}, and the task is given up"
    crashed = attempts.crashed_nodes(sql, task["number"])
    if crashed > 1:
        here = f"{here}; the workers of {crashed} different nodes were lost with it, so look into the task"
    return f"{here}; before it {'; '.join(told)}" if told else here


def _count(task: database.Row, *, disruption: bool) -> str:
    """Which attempt this was, and of which bound it was the last."""
    disruptions = _earlier_disruptions(task) + disruption
    if disruption:
        return (
            f"attempt {task['attempt']} on {task['node_id']} was disrupted, the last of {MAX_DISRUPTIONS} disruptions "
            "that a task may have (nodes that drained, restarted or had no room)"
        )
    if disruptions:
        used = f"{task['attempt'] - disruptions} of {task['max_attempts']} are used up"
        return f"attempt {task['attempt']} on {task['node_id']} ({used}; {disruptions} were disrupted and do not count)"
    return f"attempt {task['attempt']} of {task['max_attempts']} on {task['node_id']}"


MAX_DISRUPTIONS = 30
"""The disruption with this number fails the task. A deployment every working hour of three days disrupts a long task 24
times; beyond that something is wrong that another attempt does not mend. Rests (`resting`) keep one node from so many
within four hours."""

MAX_CRASHED_NODES = 10
"""A task whose workers were lost on so many different nodes is given up however many attempts it may have: nodes do not
fail together by chance, and each costs all its other tasks a lease."""

_UNDONE = frozenset({str(state.Move.REQUEUE), "late_report"})
_TOLD_CHARS = 200
_TOLD = 3
"""Of a long row of attempts the first and the last three are told: what began it, and how it stands."""


def requeue(
    on: writing.Transaction,
    task: database.Row,
    why: str,
    *,
    accepted: bool = False,
    disruption: bool = False,
    shape: int = 0,
) -> None:
    """Put it back into its queue. ``accepted``: by the report of its newest attempt. ``disruption``: as `give_up`.

    ``shape``: the number of another shape, that it has from now on.
    """
    sets: dict[str, object] = {"started_at": 0.0, **disrupted(task, disruption=disruption)}
    if shape:
        sets["shape"] = shape
    if accepted:
        sets["accepted"] = task["attempt"]
    _move(on, task, state.Move.REQUEUE, task["node_id"], why, **sets)


def disrupted(task: database.Row, *, disruption: bool) -> dict[str, int]:
    """Return the columns that say whether a task's newest attempt, and how many in all, were disrupted. Pure."""
    return {
        "disruptions": _earlier_disruptions(task) + disruption,
        "disrupted": task["attempt"] if disruption else 0,
    }


def repeat(on: writing.Transaction, task: database.Row) -> None:
    """Hand the same attempt to its node once more."""
    _write(
        on,
        task,
        "repeat",
        task["node_id"],
        "its first answer was lost",
        {"assigned_at": on.now, "given_at": on.lease_time},
    )


def note(on: writing.Transaction, task: database.Row, event: str, node_id: str = "", details: str = "") -> None:
    """Write something into the story that is no move, and make it known as a change."""
    _write(on, task, event, node_id, details, {})


def _move(
    on: writing.Transaction, task: database.Row, move: state.Move, node_id: str, details: str, **sets: object
) -> dict[str, object]:
    before = state.TaskState(task["state"])
    story_so_far = "" if (before, move) in state.TASK_MOVES else _told(on.sql, task["number"])
    sets["state"] = str(state.after(before, move, story_so_far))
    sets["node_id"] = node_id
    return {**sets, "version": _write(on, task, str(move), node_id, details, sets)}


def _write(
    on: writing.Transaction, task: database.Row, event: str, node_id: str, details: str, sets: dict[str, object]
) -> int:
    """Change a row and write that into its story; return its new version."""
    version: int = task["version"] + 1
    columns = "".join(f"{name} = ?, " for name in sets)  # our own names, never input
    on.sql.execute(
        f"UPDATE tasks SET {columns}version = ? WHERE number = ?",  # noqa: S608
        (*sets.values(), version, task["number"]),
    )
    attempt = sets.get("attempt", task["attempt"])
    on.sql.execute(
        "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)",
        (task["number"], version, on.now, event, attempt, node_id, details),
    )
    after = sets.get("state", task["state"])
    if (task["state"] == state.TaskState.QUEUED) != (after == state.TaskState.QUEUED):
        shape = sets.get("shape", task["shape"])
        _requeue_in_memory(on, {**dict(task), "shape": shape}, queued=after == state.TaskState.QUEUED)
    given = task["assigned_at"]
    ended = "ended_at" in sets
    on.changes.append(
        records.Change(
            task["id"],
            state.TaskState(str(after)),
            node_id or task["node_id"],
            bool(task["cancel_requested"]) or event == CANCEL_REQUESTED,
            reason=str(sets.get("reason", "")),
            waited_seconds=max(given - task["submitted_at"], 0.0) if given else 0.0,
            # One that was too short for news of its start began when it was given out, as near as we can know.
            ran_seconds=max(on.now - (task["started_at"] or given), 0.0) if ended and given else None,
        )
    )
    return version


def _requeue_in_memory(on: writing.Transaction, task: Mapping[str, Any], *, queued: bool) -> None:
    """Keep the queues in memory in step with the tables."""
    number, urgency = task["shape"], (-task["priority"], task["number"])
    on.undo.append((on.queue.distrust, number))
    if queued:
        on.queue.entered(number, shapes.shape(on.sql, number), urgency)
    else:
        on.queue.left(number, urgency)


CANCEL_REQUESTED = "cancel_requested"
"""The event of a submitter's wish that a node has to carry out."""


def request_cancel(on: writing.Transaction, task: database.Row) -> None:
    """Ask the node that holds it to stop it."""
    _write(on, task, CANCEL_REQUESTED, task["node_id"], "", {"cancel_requested": 1})


def story(sql: database.Connection, number: int) -> tuple[records.Event, ...]:
    """Return what happened to a task, oldest first."""
    found = sql.execute(
        "SELECT at, event, attempt, node_id, details FROM events WHERE number = ? ORDER BY version", (number,)
    )
    return tuple(records.Event(*event) for event in found)


def _told(sql: database.Connection, number: int) -> str:
    return " → ".join(
        f"{event.event}" + (f" (attempt {event.attempt} on {event.node_id})" if event.attempt else "")
        for event in story(sql, number)
    )


def task(
    found: Mapping[str, Any] | database.Row,
    shape: assignment.Shape,
    result: bytes | None,
    result_bytes: int | None = None,
) -> records.Task:
    """Return a row as the task it stands for. ``result_bytes``: of a result that was not read."""
    return records.Task(
        number=found["number"],
        id=found["id"],
        state=state.TaskState(found["state"]),
        shape=shape,
        attempt=found["attempt"],
        max_attempts=found["max_attempts"],
        disruptions=found["disruptions"],
        node_id=found["node_id"],
        priority=found["priority"],
        submitted_at=found["submitted_at"],
        assigned_at=found["assigned_at"],
        started_at=found["started_at"],
        ended_at=found["ended_at"],
        labels=json.loads(found["labels"]),
        cancel_requested=bool(found["cancel_requested"]),
        retry_of=found["retry_of"],
        version=found["version"],
        reason=found["reason"],
        error=found["error"],
        result=result,
        body_bytes=found["size"],
        result_bytes=len(result or b"") if result_bytes is None else result_bytes,
    )


def need(sql: database.Connection, task_id: str) -> database.Row:
    """Return the row of a task. Raises :class:`errors.NoSuchTask`."""
    found = row(sql, task_id)
    if found is None:
        raise errors.NoSuchTask(task_id)
    return found
