"""What submitters do to tasks: submit all or none, cancel, submit ended ones anew."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence

import uuid_utils

from hivemind_worker.nodepool import assignment
from hivemind_worker.nodepool.store import moves, records, shapes, writing
from hivemind_worker.task import errors, outcome, state


def submit(on: writing.Transaction, tasks: Sequence[records.NewTask], key: str, key_digest: str) -> tuple[str, ...]:
    """See :meth:`store.Store.submit`."""
    return _once(on, key, key_digest, lambda: tuple(_keep(on, task) for task in tasks))


def _once(on: writing.Transaction, key: str, key_digest: str, make: Callable[[], tuple[str, ...]]) -> tuple[str, ...]:
    """Return the ids that ``make`` makes, or those of the first time that this key came with this digest."""
    if not key:
        return make()
    known = on.sql.execute("SELECT digest, ids FROM submissions WHERE key = ?", (key,)).fetchone()
    if known is not None and known["digest"] != key_digest:
        raise errors.Conflict(f"the idempotency key {key[:80]!r} was used before, for other tasks")
    if known is not None:
        return tuple(json.loads(known["ids"]))
    ids = make()
    on.sql.execute("INSERT INTO submissions VALUES (?, ?, ?, ?)", (key, key_digest, json.dumps(ids), on.now))
    return ids


def _keep(on: writing.Transaction, task: records.NewTask) -> str:
    if task.id:
        known = on.sql.execute("SELECT digest FROM tasks WHERE id = ?", (task.id,)).fetchone()
        if known is not None and known["digest"] != task.digest:
            raise errors.Conflict(f"there is a task {task.id!r} already, and it is another one: choose another id")
        if known is not None:
            return task.id
    task_id = task.id or new_id()
    shape = _intern(on, task.shape)
    number = on.sql.execute(
        "INSERT INTO tasks (id, digest, shape, kind, image, size, priority, max_attempts, state, submitted_at,"
        " retry_of, labels, timeout) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            task_id,
            task.digest,
            shape,
            task.shape.kind,
            task.image,
            len(task.body),
            task.priority,
            task.max_attempts,
            str(state.TaskState.QUEUED),
            on.now,
            task.retry_of,
            json.dumps(dict(task.labels)),
            task.timeout,
        ),
    ).lastrowid
    assert number is not None
    on.sql.execute("INSERT INTO bodies VALUES (?, ?)", (number, task.body))
    on.undo.append((on.queue.distrust, shape))
    on.queue.entered(shape, task.shape, (-task.priority, number))
    for label, value in task.labels.items():
        on.sql.execute("INSERT INTO task_labels VALUES (?, ?, ?)", (label, value, number))
    told = f"anew, after {task.retry_of}" if task.retry_of else ""
    on.sql.execute("INSERT INTO events VALUES (?, 0, ?, 'submit', 0, '', ?)", (number, on.now, told))
    on.changes.append(records.Change(task_id, state.TaskState.QUEUED, new=True))
    return task_id


def _intern(on: writing.Transaction, shape: assignment.Shape) -> int:
    text = shapes.shape_text(shape)
    known = on.sql.execute("SELECT number FROM shapes WHERE wants = ?", (text,)).fetchone()
    if known is not None:
        return int(known["number"])
    return int(on.sql.execute("INSERT INTO shapes (wants) VALUES (?)", (text,)).lastrowid or 0)


def retry(on: writing.Transaction, task_ids: Sequence[str], key: str) -> tuple[str, ...]:
    """See :meth:`store.Store.retry`."""
    digest = hashlib.sha256("".join(f"anew\0{task_id}\0" for task_id in task_ids).encode()).hexdigest()
    return _once(on, key, digest, lambda: _anew(on, task_ids))


def _anew(on: writing.Transaction, task_ids: Sequence[str]) -> tuple[str, ...]:
    new = []
    for task_id in task_ids:
        old = moves.need(on.sql, task_id)
        if old["state"] not in state.ENDED:
            raise errors.Conflict(f"task {task_id!r} is {old['state']}: only an ended task is submitted anew")
        body = on.sql.execute("SELECT body FROM bodies WHERE number = ?", (old["number"],)).fetchone()["body"]
        again = records.NewTask(
            id="",
            body=body,
            digest=old["digest"],
            shape=shapes.shape(on.sql, old["shape"]),
            image=old["image"],
            priority=old["priority"],
            max_attempts=old["max_attempts"],
            labels=json.loads(old["labels"]),
            retry_of=task_id,
            timeout=old["timeout"],
        )
        new.append(_keep(on, again))
    return tuple(new)


def cancel(on: writing.Transaction, task_ids: Sequence[str]) -> None:
    """See :meth:`store.Store.cancel`."""
    for task in [moves.need(on.sql, task_id) for task_id in dict.fromkeys(task_ids)]:
        if task["state"] == state.TaskState.QUEUED:
            moves.end(on, task, state.Move.CANCEL, str(outcome.Reason.CANCELLED), "cancelled before it ran")
        elif task["state"] not in state.ENDED and not task["cancel_requested"]:
            moves.request_cancel(on, task)


def new_id() -> str:
    """Return a new id: a UUIDv7, so that ids sort by age."""
    return str(uuid_utils.uuid7())
