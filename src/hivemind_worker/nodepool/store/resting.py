"""Rests of nodes: from all tasks after faults of their own, from tasks of one shape after handing one back."""

from __future__ import annotations

from hivemind_worker.nodepool.store import database, writing
from hivemind_worker.task import outcome

FIRST_SECONDS = 1.0
FACTOR = 4.0
MOST_SECONDS = 60.0
"""1, 4, 16, then 60 s: a dead engine fails an attempt in milliseconds, and would else have a task's three tries within
one; a sick node comes to see one incident a minute, which costs a queue with healthy nodes next to nothing."""

MAX_SHAPE_SECONDS = 600.0
"""1, 4, 16, 64, 256, then 600 s: one node that never has room takes four hours to disrupt a task 30 times, and other
nodes are offered it meanwhile. After so long without another, the next hand-back is a first one again."""

# It took part in no sickness: what it hands back is not offered to it for a while, all else is.
_NO_SICKNESS = frozenset({"", outcome.Reason.NODE_SHUTDOWN})


def seconds(faults: int) -> float:
    """Return how long a node rests after so many incidents in a row. Pure."""
    return min(FIRST_SECONDS * FACTOR ** (min(faults, 10) - 1), MOST_SECONDS) if faults > 0 else 0.0


def shape_seconds(hand_backs: int) -> float:
    """Return for how long a node is offered no task of a shape after so many hand-backs in a row. Pure."""
    return min(FIRST_SECONDS * FACTOR ** (min(hand_backs, 10) - 1), MAX_SHAPE_SECONDS) if hand_backs > 0 else 0.0


def after_end(on: writing.Transaction, node_id: str, task: database.Row, reason: str) -> None:
    """Take note of how a task's newest attempt ended, before its row is changed.

    What was given before the last incident ended by the same one: it counts neither for nor against the node.
    """
    given_at = task["given_at"]
    if reason == outcome.Reason.NODE_SHUTDOWN:
        after_hand_back(on, node_id, task)
    elif not reason or outcome.FAULTS[outcome.Reason(reason)] is not outcome.Fault.NODE:
        on.sql.execute(
            "DELETE FROM shape_rests WHERE node_id = ? AND shape = ? AND handed_back_at < ?",
            (node_id, task["shape"], given_at),
        )
    node = on.sql.execute("SELECT faults, faulted_at FROM nodes WHERE node_id = ?", (node_id,)).fetchone()
    if node is None or given_at <= node["faulted_at"]:
        return
    if reason in _NO_SICKNESS or outcome.FAULTS[outcome.Reason(reason)] is not outcome.Fault.NODE:
        if node["faults"]:
            on.sql.execute("UPDATE nodes SET faults = 0, rest_until = 0 WHERE node_id = ?", (node_id,))
        return
    faults = node["faults"] + 1
    on.sql.execute(
        "UPDATE nodes SET faults = ?, faulted_at = ?, rest_until = ? WHERE node_id = ?",
        (faults, on.lease_time, on.lease_time + seconds(faults), node_id),
    )


def after_hand_back(tx: writing.Transaction, node_id: str, task: database.Row) -> None:
    """Offer the node no task of this shape for a while: it has disrupted one that it was given."""
    shape = task["shape"]
    row = tx.sql.execute(
        "SELECT hand_backs, handed_back_at, rest_until FROM shape_rests WHERE node_id = ? AND shape = ?",
        (node_id, shape),
    ).fetchone()
    if row is not None and task["given_at"] <= row["handed_back_at"]:
        return
    in_a_row = row is not None and tx.lease_time - row["rest_until"] <= MAX_SHAPE_SECONDS
    hand_backs = row["hand_backs"] + 1 if row is not None and in_a_row else 1
    tx.sql.execute(
        "INSERT OR REPLACE INTO shape_rests VALUES (?, ?, ?, ?, ?)",
        (node_id, shape, hand_backs, tx.lease_time, tx.lease_time + shape_seconds(hand_backs)),
    )


def of_shapes(sql: database.Connection, lease_time: float) -> list[database.Row]:
    """Return every rest from one shape that goes on: its node_id, shape and rest_until."""
    return sql.execute(
        "SELECT node_id, shape, rest_until FROM shape_rests INDEXED BY shape_rests_end WHERE rest_until > ?",
        (lease_time,),
    ).fetchall()


def forget_shapes(tx: writing.Transaction) -> None:
    """Forget the rests that ended so long ago that the next one would be a first one."""
    tx.sql.execute(
        "DELETE FROM shape_rests WHERE rest_until < ?",
        (tx.lease_time - MAX_SHAPE_SECONDS,),
    )


def clamp(tx: writing.Transaction) -> None:
    """Bring every stored rest within its bounds: a moment that cannot be would make a node rest for ever."""
    now = tx.lease_time
    tx.sql.execute(
        "UPDATE nodes SET rest_until = min(rest_until, ?), faulted_at = min(faulted_at, ?)", (now + MOST_SECONDS, now)
    )
    tx.sql.execute(
        "UPDATE shape_rests SET rest_until = min(rest_until, ?), handed_back_at = min(handed_back_at, ?)",
        (now + MAX_SHAPE_SECONDS, now),
    )


def left(node: database.Row, lease_time: float) -> float:
    """Return for how many more seconds a node rests; 0 when it does not."""
    return float(min(max(node["rest_until"] - lease_time, 0.0), MOST_SECONDS))
