"""What runs out by the lease clock: leases, deadlines of attempts, and the memory of nodes that never came back."""

from __future__ import annotations

from hivemind_worker.pool.store import attempts, deadlines, moves, records, resting, sessions, writing

FORGET_SECONDS = 86_400.0
"""A node that was not heard for a day is forgotten, if it holds nothing. Where it returns it registers again."""

FORGET_DRAINED_SECONDS = 30 * 86_400.0
"""A drained node later: it may be in repair, and must not come back and take tasks against its operator's word."""

FORGET_AT_ONCE = 1_000
"""Most nodes forgotten in one transaction: others wait for it."""

# Each node that holds something, found by one step in the index however much it holds.
HELD_BY_THE_DEAD = """
WITH RECURSIVE holders (node_id) AS (
    SELECT (
        SELECT node_id FROM tasks INDEXED BY held
        WHERE state IN ('assigned', 'running') ORDER BY node_id LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT node_id FROM tasks INDEXED BY held
        WHERE state IN ('assigned', 'running') AND node_id > holders.node_id ORDER BY node_id LIMIT 1
    )
    FROM holders WHERE holders.node_id IS NOT NULL
)
SELECT holders.node_id, coalesce(nodes.status, '') AS status, coalesce(nodes.unheard, 0) AS unheard
FROM holders LEFT JOIN nodes ON nodes.node_id = holders.node_id
WHERE holders.node_id IS NOT NULL AND coalesce(nodes.alive, 0) = 0
"""

OVERDUE = """
SELECT tasks.*, coalesce(nodes.boot_id, '') <> '' AS with_session
FROM tasks INDEXED BY attempt_deadlines LEFT JOIN nodes ON nodes.node_id = tasks.node_id
WHERE tasks.state IN ('assigned', 'running') AND tasks.deadline < ?
"""

LONG_LOST = """
SELECT node_id FROM nodes INDEXED BY lost_nodes
WHERE alive = 0 AND lease_until < ? AND (draining = 0 OR lease_until < ?) LIMIT ?
"""


def opened(tx: writing.Transaction, lease_seconds: float) -> None:
    """The store has been opened: every stored moment is brought within its bounds, and every lease begins anew.

    A moment that cannot be (a restored or damaged row, a clock that lost a few seconds in a crash) would otherwise make
    a node rest, or an attempt be held, for ever.
    """
    resting.clamp(tx)
    tx.sql.execute(
        "UPDATE tasks SET given_at = min(given_at, ?) WHERE state IN ('assigned', 'running')", (tx.lease_time,)
    )
    held = tx.sql.execute("SELECT number, timeout, deadline FROM tasks WHERE state IN ('assigned', 'running')")
    for task in held.fetchall():
        latest = tx.lease_time + deadlines.seconds(task["timeout"], with_session=True, lease_seconds=lease_seconds)
        # 0: a version without deadlines handed it out.
        if not 0 < task["deadline"] <= latest:
            tx.sql.execute("UPDATE tasks SET deadline = ? WHERE number = ?", (latest, task["number"]))
    begin_leases_anew(tx, lease_seconds)
    if tx.sql.execute("SELECT closed FROM lease_clock").fetchone()["closed"]:
        tx.sql.execute("UPDATE lease_clock SET closed = 0")
        tx.sql.execute("UPDATE nodes SET unheard = 1 WHERE alive = 1")
    _give_up_of_the_dead(tx)


def begin_leases_anew(tx: writing.Transaction, lease_seconds: float) -> None:
    """See :meth:`store.Store.begin_leases_anew`."""
    whole = tx.lease_time + lease_seconds
    tx.sql.execute("UPDATE nodes SET lease_until = ? WHERE alive = 1", (whole,))
    tx.sql.execute(
        "UPDATE tasks SET deadline = ? WHERE state IN ('assigned', 'running') AND deadline < ?", (whole, whole)
    )


def expire(tx: writing.Transaction, lease_seconds: float, as_of: float | None = None) -> records.Lost:
    """See :meth:`store.Store.expire`."""
    now = tx.lease_time if as_of is None else min(as_of, tx.lease_time)
    late = tx.sql.execute("SELECT node_id FROM nodes WHERE alive = 1 AND lease_until < ?", (now,)).fetchall()
    for node in late:
        tx.sql.execute("UPDATE nodes SET alive = 0 WHERE node_id = ?", (node["node_id"],))
    given_up = _give_up_of_the_dead(tx)
    for task in tx.sql.execute(OVERDUE, (now,)).fetchall():
        given_up.append(moves.ref(task))
        with_session = bool(task["with_session"])
        moves.give_up(
            tx, task, deadlines.words(task["timeout"], with_session=with_session, lease_seconds=lease_seconds)
        )
    _forget(tx)
    resting.forget_shapes(tx)
    # A crash loses no more of the clock than this, and an idle pool writes only once a lease.
    tx.sql.execute(
        "UPDATE lease_clock SET seconds = ? WHERE seconds < ?", (tx.lease_time, tx.lease_time - lease_seconds)
    )
    return records.Lost(tuple(node["node_id"] for node in late), tuple(given_up))


def _give_up_of_the_dead(tx: writing.Transaction) -> list[records.Ref]:
    """Give up whatever is held by nodes that are not alive, by whichever way they came to hold it.

    By a disruption where the node had said that it stops, or was not heard since the pool itself was stopped in order.
    """
    lost = []
    for holder in tx.sql.execute(HELD_BY_THE_DEAD).fetchall():
        node_id = holder["node_id"]
        if holder["status"] == sessions.OFFLINE:
            disruption, reason = True, f"{node_id} stopped in order and did not return for a whole lease"
        elif holder["unheard"]:
            disruption = True
            reason = f"nothing was heard of {node_id} for a whole lease after the pool itself was stopped and started"
        else:
            disruption, reason = False, f"nothing was heard of {node_id} for a whole lease"
        for task in moves.held_by(tx.sql, node_id):
            lost.append(moves.ref(task))
            attempts.set_lease_lost(tx, task["number"], task["attempt"], lost=not disruption)
            moves.give_up(tx, task, reason, disruption=disruption)
    return lost


def _forget(tx: writing.Transaction) -> None:
    """Forget nodes, with their sessions, that were last heard long ago: a fleet that scales makes thousands of them."""
    gone = tx.sql.execute(
        LONG_LOST,
        (tx.lease_time - FORGET_SECONDS, tx.lease_time - FORGET_DRAINED_SECONDS, FORGET_AT_ONCE),
    ).fetchall()
    for node in gone:
        tx.sql.execute("DELETE FROM sessions WHERE node_id = ?", (node["node_id"],))
        tx.sql.execute("DELETE FROM nodes WHERE node_id = ?", (node["node_id"],))


def saved_clock(tx: writing.Transaction) -> float:
    """Return where the lease clock stood when it was last saved."""
    return float(tx.sql.execute("SELECT seconds FROM lease_clock").fetchone()["seconds"])


def keep_clock(tx: writing.Transaction) -> None:
    """Save where the lease clock stands. Each time that is a write, which a disk takes or not."""
    tx.sql.execute("UPDATE lease_clock SET seconds = ?", (tx.lease_time,))


def save_clock(tx: writing.Transaction) -> None:
    """Save where the lease clock stands, and that the store is closed in order."""
    tx.sql.execute("UPDATE lease_clock SET seconds = ?, closed = 1", (tx.lease_time,))
