"""A copy of the store as it is at one moment, what it names, and how a copy becomes a store of a new epoch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hivemind_worker import errors
from hivemind_worker.pool.store import database, moves, records, schema, writing

RESTORED = "restored"
"""The boot id of a node whose session was forgotten: no worker has it, so none is taken for the same process."""


@dataclass(frozen=True, slots=True)
class Report:
    """A result's message as it came, and whether it counts."""

    body: bytes
    accepted: bool


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt of a task, for its output."""

    task_id: str
    attempt: int
    assigned: records.Assignment


def take(source: Path, target: Path, now: float) -> None:
    """Copy a store, which may be open in another process and written to, as one checked file of this version.

    Raises :class:`database.Damaged` where the store is damaged, :class:`errors.BadSettings` where it is none.
    """
    with contextlib.closing(database.reading(source)) as sql:
        try:
            database.copy(sql, target)
        except database.Error as error:
            raise database.Damaged(f"{source} cannot be copied: {error}") from None
    check(target)
    with contextlib.closing(database.writing(target)) as sql:
        schema.migrate(sql, now)
        database.close_as_one_file(sql)


def check(path: Path) -> None:
    """Look into every page of a store that nobody has open. Raises :class:`database.Damaged`."""
    with contextlib.closing(database.reading(path)) as sql:
        if damage := database.damage(sql):
            raise database.Damaged(f"{path} is damaged: {damage}")
        marked = sql.execute("PRAGMA application_id").fetchone()[0]
        if marked != schema.APPLICATION_ID:
            raise errors.BadSettings(f"{path} is no pool's store")


def epoch(path: Path) -> str:
    """Return the epoch of a store that nobody has open."""
    with contextlib.closing(database.reading(path)) as sql:
        return schema.epoch(sql)


def sealed_secrets(path: Path) -> int:
    """Return how many tasks of a store that nobody has open have secrets that were not erased yet."""
    with contextlib.closing(database.reading(path)) as sql:
        return int(sql.execute("SELECT count(*) AS found FROM sealed_secrets").fetchone()["found"])


def task_bodies(sql: database.Connection) -> Iterator[bytes]:
    """Every task's message."""
    for row in sql.execute("SELECT body FROM bodies"):
        yield row["body"]


def reports(sql: database.Connection) -> Iterator[Report]:
    """Every report of an end."""
    for row in sql.execute("SELECT body, verdict FROM reports"):
        yield Report(row["body"], row["verdict"] == records.Verdict.ACCEPTED)


def all_attempts(sql: database.Connection) -> Iterator[Attempt]:
    """Every attempt that was ever assigned."""
    for row in sql.execute("SELECT tasks.id, attempts.* FROM attempts JOIN tasks ON tasks.number = attempts.number"):
        assigned = records.Assignment(row["epoch"], row["node_id"], row["run_id"], bool(row["legacy_logs"]))
        yield Attempt(row["id"], row["attempt"], assigned)


def renew(path: Path, now: float, reason: str) -> str:
    """Make a copy into a store of a new epoch, and return that: sessions forgotten, what nodes held given up.

    Raises :class:`errors.BadSettings` for a newer version's store.
    """
    with contextlib.closing(database.writing(path)) as sql:
        schema.migrate(sql, now)
        sql.execute("BEGIN IMMEDIATE")
        sql.execute("INSERT INTO epochs (epoch, reason, at) VALUES (lower(hex(randomblob(16))), ?, ?)", (reason, now))
        lease_time = sql.execute("SELECT seconds FROM lease_clock").fetchone()["seconds"]
        tx = writing.Transaction(sql, now, lease_time, schema.epoch(sql))
        for task in sql.execute("SELECT * FROM tasks WHERE state IN ('assigned', 'running')").fetchall():
            moves.give_up(tx, task, f"the pool was {reason}", disruption=True)
        # Nobody goes on with an attempt of before, not even a node that names no epoch.
        sql.execute("UPDATE tasks SET node_id = '' WHERE state = 'queued'")
        sql.execute("DELETE FROM sessions")
        sql.execute(
            "UPDATE nodes SET session_id = ?, boot_id = ?, alive = 0, lease_until = ?, rest_until = 0, faults = 0",
            (tx.epoch, RESTORED, lease_time),
        )
        sql.execute("DELETE FROM shape_rests")
        sql.execute("COMMIT")
        database.close_as_one_file(sql)
        return tx.epoch
