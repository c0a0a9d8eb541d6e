"""Rests of nodes: from all tasks after faults of their own, from tasks of one shape after handing one back.

A node is at fault where it found itself sick, or where unrelated tasks fail on it: see `blame`.
"""

from __future__ import annotations

from hivemind_worker.pool.store import blame, database, shapes, writing
from hivemind_worker.tasks import outcome

FIRST_SECONDS = 1.0
FACTOR = 4.0
MOST_SECONDS = 60.0
"""1, 4, 16, then 60 s: a dead engine fails an attempt in milliseconds, and would else have a task's three tries within
one; a sick node comes to see one incident a minute, which costs a queue with healthy nodes next to nothing."""

MAX_SHAPE_SECONDS = 600.0
"""1, 4, 16, 64, 256, then 600 s: one node that never has room takes four hours to disrupt a task 30 times, and other
nodes are offered it meanwhile. After so long without another, the next hand-back is a first one again."""


def seconds(faults: int) -> float:
    """Return how long a node rests after so many incidents in a row. Pure."""
    return min(FIRST_SECONDS * FACTOR ** (min(faults, 10) - 1), MOST_SECONDS) if faults > 0 else 0.0


def shape_seconds(hand_backs: int) -> float:
    """Return for how long a node is offered no task of a shape after so many hand-backs in a row. Pure."""
    return min(FIRST_SECONDS * FACTOR ** (min(hand_backs, 10) - 1), MAX_SHAPE_SECONDS) if hand_backs > 0 else 0.0


def after_end(tx: writing.Transaction, node_id: str, task: database.Row, reason: str, check: outcome.NodeCheck) -> int:
    """Take note of how a task's newest attempt ended, before its row is changed.

    What was given before the last incident ended by the same one: it counts neither for nor against the node. Returns
    the number of the shape that the task has from now on, should it be queued again; 0: the one it has.
    """
    given_at, blamed = task["given_at"], blame.judge(reason, check)
    suspect_shape = 0
    if reason == outcome.Reason.NODE_SHUTDOWN:
        after_hand_back(tx, node_id, task)
    elif blamed is blame.Blame.NOBODY:
        tx.sql.execute(
            "DELETE FROM shape_rests WHERE node_id = ? AND shape = ? AND handed_back_at < ?",
            (node_id, task["shape"], given_at),
        )
    elif blamed is blame.Blame.UNPROVEN:
        suspect_shape = shapes.suspect(tx.sql, task)
        _rest_from_shape(tx, node_id, suspect_shape, given_at, MOST_SECONDS)
    node = tx.sql.execute(_NODE, (node_id,)).fetchone()
    if node is None or given_at <= node["faulted_at"]:
        return suspect_shape
    if blamed is blame.Blame.NOBODY:
        if node["faults"] or node["suspected"]:
            tx.sql.execute("UPDATE nodes SET faults = 0, rest_until = 0, suspected = 0 WHERE node_id = ?", (node_id,))
    elif blamed is blame.Blame.NODE or _is_unrelated(tx, node_id, node, task):
        faults = node["faults"] + 1
        tx.sql.execute(
            "UPDATE nodes SET faults = ?, faulted_at = ?, rest_until = ? WHERE node_id = ?",
            (faults, tx.lease_time, tx.lease_time + seconds(faults), node_id),
        )
    return suspect_shape


_NODE = "SELECT faults, faulted_at, suspected, suspect_submitter, suspect_image FROM nodes WHERE node_id = ?"


def _is_unrelated(tx: writing.Transaction, node_id: str, node: database.Row, task: database.Row) -> bool:
    """Whether a task that failed has nothing to do with the one that failed there before it; it is remembered now."""
    tx.sql.execute(
        "UPDATE nodes SET suspected = 1, suspect_submitter = ?, suspect_image = ? WHERE node_id = ?",
        (task["submitter"], task["image"], node_id),
    )
    before = blame.Origin(node["suspect_submitter"], node["suspect_image"])
    return bool(node["suspected"]) and not blame.are_related(before, blame.Origin(task["submitter"], task["image"]))


def after_hand_back(tx: writing.Transaction, node_id: str, task: database.Row) -> None:
    """Offer the node no task of this shape for a while: it has disrupted one that it was given."""
    _rest_from_shape(tx, node_id, task["shape"], task["given_at"], MAX_SHAPE_SECONDS)


def _rest_from_shape(tx: writing.Transaction, node_id: str, shape: int, given_at: float, max_seconds: float) -> None:
    row = tx.sql.execute(
        "SELECT hand_backs, handed_back_at, rest_until FROM shape_rests WHERE node_id = ? AND shape = ?",
        (node_id, shape),
    ).fetchone()
    if row is not None and given_at <= row["handed_back_at"]:
        return
    in_a_row = row is not None and tx.lease_time - row["rest_until"] <= MAX_SHAPE_SECONDS
    hand_backs = row["hand_backs"] + 1 if row is not None and in_a_row else 1
    rest = min(shape_seconds(hand_backs), max_seconds)
    tx.sql.execute(
        "INSERT OR REPLACE INTO shape_rests VALUES (?, ?, ?, ?, ?)",
        (node_id, shape, hand_backs, tx.lease_time, tx.lease_time + rest),
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
