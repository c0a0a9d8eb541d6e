"""What is asked of the store: on connections that can only read, a few threads of them, beside the one that writes."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from hivemind_worker import errors
from hivemind_worker.pool.store import database, moves, records, resting, sessions, shapes
from hivemind_worker.tasks import resources, state

T = TypeVar("T")

THREADS = 2
"""Readers at once: a long listing must not hold up a short question; more would only contend for the interpreter."""


class Reader:
    """Runs questions, each in one snapshot."""

    def __init__(self, path: Path, failed: Callable[[database.Error], str]) -> None:
        """``failed`` is called with every error of the database, on whatever thread meets it.

        It returns what is wrong with the store as a whole; empty where nothing is known to be.
        """
        self._path = path
        self._failed = failed
        self._threads = concurrent.futures.ThreadPoolExecutor(THREADS, thread_name_prefix="pool-reader")
        self._own = threading.local()
        self._connections: list[database.Connection] = []

    async def ask(self, question: Callable[[database.Connection], T]) -> T:
        """Return the answer. Raises what the question raises; :class:`errors.Unavailable` where it cannot be read."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._answer, question)

    def close(self) -> None:
        """End the threads, then the connections. Blocks until the last answer."""
        self._threads.shutdown()
        while self._connections:
            self._connections.pop().close()

    def _answer(self, question: Callable[[database.Connection], T]) -> T:
        try:
            connection: database.Connection | None = getattr(self._own, "connection", None)
            if connection is None:
                connection = self._own.connection = database.reading(self._path)
                self._connections.append(connection)
            connection.execute("BEGIN")
            try:
                return question(connection)
            finally:
                connection.execute("COMMIT")
        except database.Error as error:
            damage = self._failed(error)
            raise errors.Unavailable(damage or f"the pool's store cannot be read: {error}") from None


def tasks(
    sql: database.Connection, task_ids: Sequence[str], *, max_result_bytes: int | None = None
) -> tuple[records.Task, ...]:
    """See :meth:`store.Store.tasks`."""
    return tuple(_task(sql, moves.need(sql, task_id), max_result_bytes) for task_id in task_ids)


def _task(sql: database.Connection, row: database.Row, max_result_bytes: int | None) -> records.Task:
    shape = shapes.shape(sql, row["shape"])
    if max_result_bytes is None or not row["result"]:
        return moves.task(row, shape, _result(sql, row))
    # SQLite takes the length from the head of the row, without the megabytes behind it.
    found = sql.execute(
        "SELECT length(body) AS size, CASE WHEN length(body) <= ? THEN body END AS body FROM reports"
        " WHERE number = ? AND attempt = ?",
        (max_result_bytes, row["number"], row["result"]),
    ).fetchone()
    return moves.task(row, shape, found["body"], found["size"])


def need_all(sql: database.Connection, task_ids: Sequence[str]) -> None:
    """Raise :class:`errors.NoSuchTask` where one of these tasks is not there."""
    for task_id in task_ids:
        moves.need(sql, task_id)


def story(sql: database.Connection, task_id: str) -> tuple[records.Event, ...]:
    """See :meth:`store.Store.story`."""
    return moves.story(sql, moves.need(sql, task_id)["number"])


def body(sql: database.Connection, task_id: str) -> bytes:
    """See :meth:`store.Store.body`."""
    number = moves.need(sql, task_id)["number"]
    kept: bytes = sql.execute("SELECT body FROM bodies WHERE number = ?", (number,)).fetchone()["body"]
    return kept


def find(sql: database.Connection, wanted: records.Filter) -> tuple[records.Task, ...]:
    """See :meth:`store.Store.find`."""
    conditions, values = ["state <> 'staged'"], list[object]()
    if wanted.before:
        conditions.append("number < ?")
        values.append(wanted.before)
    if wanted.states:
        conditions.append(f"state IN ({', '.join('?' * len(wanted.states))})")
        values += wanted.states
    if wanted.node_id:
        conditions.append("node_id = ?")
        values.append(wanted.node_id)
    if wanted.kind:
        conditions.append("kind = ?")
        values.append(wanted.kind)
    for label in wanted.labels.items():
        conditions.append("number IN (SELECT number FROM task_labels WHERE key = ? AND value = ?)")
        values += label
    found = sql.execute(
        f"SELECT * FROM tasks WHERE {' AND '.join(conditions)} ORDER BY number DESC LIMIT ?",  # noqa: S608  (our own words)
        (*values, wanted.most),
    )
    tasks: list[records.Task] = []
    size = 0
    for row in found:  # one result in memory at a time, however many there are
        body = _summary(sql, row)
        if body is None and (body := _result(sql, row)) is not None:
            body = wanted.summary(body)
        size += len(body or b"") + len(row["error"] or "")
        if tasks and 0 < wanted.max_bytes < size:
            break
        tasks.append(moves.task(row, shapes.shapes(sql, [row["shape"]])[row["shape"]], body))
    return tuple(tasks)


def _summary(sql: database.Connection, task: database.Row) -> bytes | None:
    """What a list shows of a result, where that was put beside it."""
    if not task["result"]:
        return None
    row = sql.execute(
        "SELECT summary FROM summaries WHERE number = ? AND attempt = ?", (task["number"], task["result"])
    ).fetchone()
    return None if row is None else bytes(row["summary"])


def _result(sql: database.Connection, task: database.Row) -> bytes | None:
    if not task["result"]:
        return None
    found = sql.execute(
        "SELECT body FROM reports WHERE number = ? AND attempt = ?", (task["number"], task["result"])
    ).fetchone()
    body: bytes = found["body"]
    return body


def nodes(
    sql: database.Connection,
    lease_time: float,
    *,
    alive_only: bool,
    after: str = "",
    max_count: int = -1,
    max_bytes: int = 0,
) -> tuple[records.Node, ...]:
    """See :meth:`store.Store.nodes`."""
    found, size = list[records.Node](), 0
    for node, row_bytes in _nodes(sql, lease_time, _ALIVE if alive_only else _NODES, after, max_count):
        size += row_bytes
        if found and 0 < max_bytes < size:
            break
        found.append(node)
    return tuple(found)


def survey(sql: database.Connection, lease_time: float, fold: Callable[[Iterator[records.Node]], T]) -> T:
    """See :meth:`store.Store.survey`."""
    return fold(node for node, _ in _nodes(sql, lease_time, _ALIVE, "", -1))


def _nodes(
    sql: database.Connection, lease_time: float, names: str, after: str, max_count: int
) -> Iterator[tuple[records.Node, int]]:
    """Yield nodes by name, each with the bytes of what it says of itself. One is in memory at a time.

    The names first: SQLite would sort the whole rows, and a row may have megabytes.
    """
    rests: dict[str, dict[int, float]] = {}
    for rest in resting.of_shapes(sql, lease_time):
        rests.setdefault(rest["node_id"], {})[rest["shape"]] = rest["rest_until"] - lease_time
    for name in sql.execute(names, (after, max_count)).fetchall():
        row = sql.execute("SELECT * FROM nodes WHERE node_id = ?", (name["node_id"],)).fetchone()
        held = moves.held_by(sql, row["node_id"])
        wants = shapes.shapes(sql, (task["shape"] for task in held))
        used = sum((wants[task["shape"]].needs for task in held), resources.Resources())
        own = rests.get(row["node_id"], {})
        shape_rests = {shape: own[number] for number, shape in shapes.shapes(sql, own).items()}
        attempts = tuple(moves.ref(task) for task in held)
        row_bytes = len(row["said"]) + len(row["readings"]) + len(row["message"]) + _ATTEMPT_BYTES * len(attempts)
        yield sessions.node_from(row, lease_time, attempts, used, shape_rests), row_bytes


_ATTEMPT_BYTES = 200
"""What is told of an attempt that a node holds, about."""

# By the index of those alive: dead ones may be thousands.
_ALIVE = "SELECT node_id FROM nodes INDEXED BY leases WHERE alive = 1 AND node_id > ? ORDER BY node_id LIMIT ?"

_NODES = "SELECT node_id FROM nodes WHERE node_id > ? ORDER BY node_id LIMIT ?"


def living_nodes(sql: database.Connection) -> int:
    """See :meth:`store.Store.living_nodes`."""
    return int(sql.execute("SELECT count(*) FROM nodes INDEXED BY leases WHERE alive = 1").fetchone()[0])


def lost_nodes(sql: database.Connection) -> int:
    """See :meth:`store.Store.lost_nodes`."""
    return int(sql.execute("SELECT count(*) FROM nodes INDEXED BY lost_nodes WHERE alive = 0").fetchone()[0])


def oldest_queued(sql: database.Connection) -> float:
    """See :meth:`store.Store.oldest_queued`."""
    found = sql.execute(
        "SELECT submitted_at FROM tasks INDEXED BY by_state WHERE state = 'queued' ORDER BY number LIMIT 1"
    ).fetchone()
    return float(found["submitted_at"]) if found else 0.0


def counts(sql: database.Connection) -> dict[str, int]:
    """See :meth:`store.Store.counts`."""
    found = dict.fromkeys(map(str, state.TaskState), 0)
    rows = sql.execute("SELECT state, count(*) FROM tasks GROUP BY state").fetchall()
    found.update((name, count) for name, count in rows if name in found)  # what is only staged is not shown
    return found
