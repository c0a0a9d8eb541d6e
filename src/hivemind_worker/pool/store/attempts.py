"""The record of each assignment: in which epoch it was made, to which node, and which run of it counts."""

from __future__ import annotations

import dataclasses

from hivemind_worker import errors
from hivemind_worker.pool.store import database, records, writing


def is_other_epoch(tx: writing.Transaction, sent: str) -> bool:
    """Whether ``sent`` names another epoch than the store's. A peer that names none is taken to mean this one."""
    return sent not in ("", tx.epoch)


def add(tx: writing.Transaction, number: int, attempt: int, node_id: str) -> None:
    """Record that an attempt was assigned to a node in this epoch."""
    tx.sql.execute(
        "INSERT INTO attempts (number, attempt, epoch, node_id) VALUES (?, ?, ?, ?)",
        (number, attempt, tx.epoch, node_id),
    )


def find(sql: database.Connection, number: int, attempt: int) -> records.Assignment | None:
    """Return the record of an attempt of the task ``number``, ``None`` where it was never assigned."""
    row = sql.execute(
        "SELECT epoch, node_id, run_id, legacy_logs FROM attempts WHERE number = ? AND attempt = ?", (number, attempt)
    ).fetchone()
    if row is None:
        return None
    return records.Assignment(row["epoch"], row["node_id"], row["run_id"], bool(row["legacy_logs"]))


def set_lease_lost(tx: writing.Transaction, number: int, attempt: int, *, lost: bool) -> None:
    """Record that an attempt was given up for its node's lease alone, or that it goes on after all."""
    tx.sql.execute(
        "UPDATE attempts SET lease_lost = ? WHERE number = ? AND attempt = ? AND lease_lost <> ?",
        (lost, number, attempt, lost),
    )


def was_lease_lost(sql: database.Connection, number: int, attempt: int) -> bool:
    """Whether an attempt was given up for its node's lease alone, and that used up one of its task's attempts."""
    row = sql.execute("SELECT lease_lost FROM attempts WHERE number = ? AND attempt = ?", (number, attempt)).fetchone()
    return row is not None and bool(row["lease_lost"])


def set_crashed(tx: writing.Transaction, number: int, attempt: int, *, crashed: bool) -> None:
    """Record whether a node's worker was lost with an attempt."""
    tx.sql.execute(
        "UPDATE attempts SET crashed = ? WHERE number = ? AND attempt = ? AND crashed <> ?",
        (crashed, number, attempt, crashed),
    )


def crashed_nodes(sql: database.Connection, number: int) -> int:
    """Return on how many different nodes a worker was lost with the task ``number``."""
    row = sql.execute(
        "SELECT count(DISTINCT node_id) AS nodes FROM attempts WHERE number = ? AND crashed = 1", (number,)
    ).fetchone()
    return int(row["nodes"])


def newest_of(sql: database.Connection, number: int, node_id: str) -> int | None:
    """Return the newest attempt that a node was ever assigned of the task ``number``; ``None``: it never was."""
    row = sql.execute(
        "SELECT max(attempt) AS attempt FROM attempts WHERE number = ? AND node_id = ?", (number, node_id)
    ).fetchone()
    return None if row["attempt"] is None else int(row["attempt"])


def bind(tx: writing.Transaction, number: int, attempt: int, run_id: str) -> bool:
    """Bind an attempt to the first run that is seen of it; return whether ``run_id`` is the run that counts.

    An empty ``run_id`` binds nothing, and is the right one for as long as no run has been seen.
    """
    row = tx.sql.execute("SELECT run_id FROM attempts WHERE number = ? AND attempt = ?", (number, attempt)).fetchone()
    if row is None:
        return False
    if row["run_id"] == run_id:
        return True
    if row["run_id"]:
        return False
    tx.sql.execute("UPDATE attempts SET run_id = ? WHERE number = ? AND attempt = ?", (run_id, number, attempt))
    return True


def check_output(
    sql: database.Connection, epoch: str, number: int, ref: records.Ref, node_id: str
) -> records.Assignment:
    """Return the record of an attempt that ``node_id`` may send output of; it may still have to be bound to its run.

    Raises :class:`errors.UserError` for an attempt that was never assigned, :class:`errors.Rejected` for one of
    another node, epoch or run.
    """
    if ref.epoch not in ("", epoch):
        raise errors.Rejected(
            f"attempt {ref.attempt} was assigned in another epoch of the store: it was restored or made anew since"
        )
    assigned = find(sql, number, ref.attempt)
    if assigned is None:
        raise errors.UserError(f"attempt: {ref.attempt} of this task was never handed out")
    if assigned.node_id != node_id:
        raise errors.Rejected(f"attempt {ref.attempt} is not {node_id}'s")
    if assigned.epoch != epoch:
        raise errors.Rejected(f"attempt {ref.attempt} was given up when the store was restored")
    if ref.run_id and assigned.run_id not in ("", ref.run_id):
        raise errors.Rejected(f"attempt {ref.attempt} is bound to another run: its output is that run's alone")
    return assigned


def bind_output(tx: writing.Transaction, number: int, ref: records.Ref, node_id: str) -> records.Assignment:
    """Bind an attempt to the run whose output comes; return its record. Raises as :func:`check_output`."""
    assigned = check_output(tx.sql, tx.epoch, number, ref, node_id)
    bind(tx, number, ref.attempt, ref.run_id)
    return dataclasses.replace(assigned, run_id=ref.run_id)
