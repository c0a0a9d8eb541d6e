"""What submitters do to tasks: submit all or none, cancel, submit ended ones anew."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence

import uuid_utils

from hivemind_worker import errors
from hivemind_worker.pool.store import database, moves, records, shapes, writing
from hivemind_worker.tasks import outcome, state


def submit(on: writing.Transaction, tasks: Sequence[records.NewTask], key: str, key_digest: str) -> tuple[str, ...]:
    """See :meth:`store.Store.submit`."""
    if (before := ids_of(on, key, key_digest)) is not None:
        return before
    ids = tuple(keep(on, task) for task in tasks)
    remember(on, key, key_digest, ids)
    return ids


def ids_of(on: writing.Transaction, key: str, key_digest: str) -> tuple[str, ...] | None:
    """Return the ids of the first time that this key came with this digest; ``None`` where it did not, or for none.

    Raises :class:`errors.Conflict` where it came with another.
    """
    if not key:
        return None
    row = on.sql.execute("SELECT digest, ids FROM submissions WHERE key = ?", (key,)).fetchone()
    if row is None:
        return None
    if row["digest"] != key_digest:
        raise errors.Conflict(f"the idempotency key {key[:80]!r} was used before, for other tasks")
    return tuple(json.loads(row["ids"]))


def remember(on: writing.Transaction, key: str, key_digest: str, ids: Sequence[str]) -> None:
    """Take note of the ids that a key stands for from now on."""
    if key:
        on.sql.execute("INSERT INTO submissions VALUES (?, ?, ?, ?)", (key, key_digest, json.dumps(ids), on.now))


def keep(on: writing.Transaction, task: records.NewTask, *, staged_after: int = -1) -> str:
    """Keep one task, queued; return its id. Raises :class:`errors.Conflict` for an id that stands for another.

    ``staged_after``: of a batch whose tasks have larger numbers than this; nobody sees it before it is published.
    """
    if task.id and _is_kept(on, task, staged_after):
        return task.id
    task_id = task.id or new_id()
    shape = shapes.intern(on.sql, task.shape)
    staged = staged_after >= 0
    number = on.sql.execute(
        "INSERT INTO tasks (id, digest, shape, kind, image, size, priority, max_attempts, state, submitted_at,"
        " retry_of, labels, timeout, has_secrets, submitter)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            task_id,
            task.digest,
            shape,
            task.shape.kind,
            task.image,
            len(task.body) + len(task.secrets),  # handed out it has both
            task.priority,
            task.max_attempts,
            STAGED if staged else str(state.TaskState.QUEUED),
            on.now,
            task.retry_of,
            json.dumps(dict(task.labels)),
            task.timeout,
            int(bool(task.secrets)),
            task.submitter,
        ),
    ).lastrowid
    assert number is not None
    on.sql.execute("INSERT INTO bodies VALUES (?, ?)", (number, task.body))
    if task.secrets:
        on.sql.execute("INSERT INTO sealed_secrets VALUES (?, ?)", (number, task.secrets))
    for label, value in task.labels.items():
        on.sql.execute("INSERT INTO task_labels VALUES (?, ?, ?)", (label, value, number))
    details = f"anew, after {task.retry_of}" if task.retry_of else ""
    on.sql.execute("INSERT INTO events VALUES (?, 0, ?, 'submit', 0, '', ?)", (number, on.now, details))
    if not staged:
        on.undo.append((on.queue.distrust, shape))
        on.queue.entered(shape, task.shape, (-task.priority, number))
        on.changes.append(records.Change(task_id, state.TaskState.QUEUED, new=True))
    return task_id


STAGED = "staged"
"""In the place of a state: of a batch that is still being submitted, see `staging`. No such task is ever shown."""


def _is_kept(on: writing.Transaction, task: records.NewTask, staged_after: int) -> bool:
    """Whether a task of a chosen id is in the store already, as the same."""
    row = on.sql.execute("SELECT number, digest, state FROM tasks WHERE id = ?", (task.id,)).fetchone()
    if row is None:
        return False
    if row["state"] == STAGED and not 0 <= staged_after < row["number"]:
        raise errors.Unavailable(f"the pool is taking a task {task.id!r} at this moment: submit again")
    if row["digest"] != task.digest:
        raise errors.Conflict(f"there is a task {task.id!r} already, and it is another one: choose another id")
    return True


def retry(on: writing.Transaction, task_ids: Sequence[str], key: str) -> tuple[str, ...]:
    """See :meth:`store.Store.retry`."""
    digest = digest_of_retry(task_ids)
    if (before := ids_of(on, key, digest)) is not None:
        return before
    ids = tuple(keep(on, again(on.sql, task_id)) for task_id in task_ids)
    remember(on, key, digest, ids)
    return ids


def digest_of_retry(task_ids: Sequence[str]) -> str:
    """Return what tells two retries of one key apart."""
    return hashlib.sha256("".join(f"anew\0{task_id}\0" for task_id in task_ids).encode()).hexdigest()


def again(sql: database.Connection, task_id: str) -> records.NewTask:
    """Return an ended task as a new one. Raises :class:`errors.NoSuchTask`, :class:`errors.Conflict`."""
    row = moves.need(sql, task_id)
    if row["state"] not in state.ENDED:
        raise errors.Conflict(f"task {task_id!r} is {row['state']}: only an ended task is submitted anew")
    if row["has_secrets"]:
        raise errors.Conflict(
            f"task {task_id!r} had secrets, which were erased when it ended: submit it again, with them"
        )
    body = sql.execute("SELECT body FROM bodies WHERE number = ?", (row["number"],)).fetchone()["body"]
    return records.NewTask(
        id="",
        body=body,
        digest=row["digest"],
        shape=dataclasses.replace(shapes.shape(sql, row["shape"]), suspect_image=""),
        image=row["image"],
        priority=row["priority"],
        max_attempts=row["max_attempts"],
        labels=json.loads(row["labels"]),
        retry_of=task_id,
        timeout=row["timeout"],
        submitter=row["submitter"],
    )


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
