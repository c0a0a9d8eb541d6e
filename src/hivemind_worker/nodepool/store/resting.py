"""A node that fails one attempt after the other by its own fault rests: it must not use up every task's attempts."""

from __future__ import annotations

from hivemind_worker.nodepool.store import database, writing
from hivemind_worker.task import outcome

FIRST_SECONDS = 1.0
FACTOR = 4.0
MOST_SECONDS = 60.0
"""1, 4, 16, then 60 s: a dead engine fails an attempt in milliseconds, and would else have a task's three tries within
one; a sick node comes to see one incident a minute, which costs a queue with healthy nodes next to nothing."""

# In order, as it was told to: it takes nothing new anyway, and is as sound as before when it comes back.
_NO_SICKNESS = frozenset({"", outcome.Reason.NODE_SHUTDOWN})


def seconds(faults: int) -> float:
    """Return how long a node rests after so many incidents in a row. Pure."""
    return min(FIRST_SECONDS * FACTOR ** (min(faults, 10) - 1), MOST_SECONDS) if faults > 0 else 0.0


def after_end(on: writing.Transaction, node_id: str, given_at: float, reason: str) -> None:
    """Take note of how an attempt ended that was given to a node at ``given_at`` on the lease clock.

    What was given before the last incident ended by the same one: it counts neither for nor against the node.
    """
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


def left(node: database.Row, lease_time: float) -> float:
    """Return for how many more seconds a node rests; 0 when it does not."""
    return float(min(max(node["rest_until"] - lease_time, 0.0), MOST_SECONDS))
