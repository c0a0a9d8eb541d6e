"""What a node reports about an end, checked against what the pool itself knows of the attempt; used by `reports`."""

from __future__ import annotations

import dataclasses
from typing import Final

from hivemind_worker.pool.store import database, records, writing
from hivemind_worker.tasks import outcome, state

CLOCK_SHARE: Final = 0.99
"""Two machines' clocks differ by a hundredth at most."""

CLOCK_SECONDS: Final = 1.0
"""The lease clock is saved so often; what it has not saved when the pool is killed is lost."""


def checked(tx: writing.Transaction, task: database.Row, report: records.Report) -> records.Report:
    """Return the report of an attempt in force, changed where its reason cannot be true."""
    if report.status is outcome.Status.CANCELLED and not task["cancel_requested"]:
        return _stopped_by_node(report)
    if report.reason == outcome.Reason.TIMEOUT and report.run_limit and report.status is outcome.Status.FAILED:
        limit = min(report.run_limit, task["timeout"] or report.run_limit)
        had = _seconds_since_assigned(tx, task)
        if had < CLOCK_SHARE * limit - CLOCK_SECONDS:
            return _too_soon(report, limit, had)
    return report


def _stopped_by_node(report: records.Report) -> records.Report:
    """The report of a stop that no submitter wished: a task is cancelled by its submitter alone.

    A node has stopped it by itself and lost the reason, as with the process that knew it, or means an order to drop.
    """
    text = f"stopped by its node, and nobody had asked for that: {report.error}".removesuffix(": ")
    return dataclasses.replace(
        report, status=outcome.Status.FAILED, reason=str(outcome.Reason.NODE_SHUTDOWN), error=text, try_again=True
    )


def _too_soon(report: records.Report, limit: float, had: float) -> records.Report:
    """The report of a time limit that cannot have passed: the node's clock is wrong, or its word."""
    text = f"its node reports a timeout of {limit:g} s, {had:.1f} s after it was given the task: {report.error}"
    return dataclasses.replace(
        report, reason=str(outcome.Reason.INTERNAL), error=text.removesuffix(": "), try_again=True
    )


def _seconds_since_assigned(tx: writing.Transaction, task: database.Row) -> float:
    """The longest for which the node can have had the newest attempt, by either clock.

    The lease clock stands still while the pool is closed, and counts from the last time that the node was given the
    attempt; the wall's clock may have been set back meanwhile.
    """
    first = tx.sql.execute(
        "SELECT min(at) FROM events WHERE number = ? AND attempt = ? AND event = ?",
        (task["number"], task["attempt"], str(state.Move.ASSIGN)),
    ).fetchone()[0]
    by_wall = tx.now - first if first is not None else 0.0
    return max(float(tx.lease_time - task["given_at"]), by_wall)
