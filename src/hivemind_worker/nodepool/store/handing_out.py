"""All waiting polls answered in one transaction: what was lost on the way first, then new attempts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from hivemind_worker.nodepool import assignment
from hivemind_worker.nodepool.store import database, deadlines, moves, records, resting, sessions, writing
from hivemind_worker.task import errors, outcome, resources, state

_NO_TASKS_WHILE = frozenset({"draining", "unhealthy", "offline"})
"""Words of a node about itself that mean: nothing new. They count for a node without a session only: one with a
session says in each poll whether it is paused, and that is newer than its last heartbeat."""

# The shapes that have a queue, each found by one step in the index however many tasks wait.
QUEUED_SHAPES = """
WITH RECURSIVE waiting (shape) AS (
    SELECT (SELECT shape FROM tasks INDEXED BY queue WHERE state = 'queued' ORDER BY shape LIMIT 1)
    UNION ALL
    SELECT (
        SELECT shape FROM tasks INDEXED BY queue
        WHERE state = 'queued' AND shape > waiting.shape ORDER BY shape LIMIT 1
    )
    FROM waiting WHERE waiting.shape IS NOT NULL
)
SELECT waiting.shape, shapes.wants FROM waiting JOIN shapes ON shapes.number = waiting.shape
"""

# The planner, who counts nothing, would rather walk over all that is queued in search of a shape.
HEADS = """
SELECT * FROM tasks INDEXED BY queue WHERE state = 'queued' AND shape = ? ORDER BY priority DESC, number LIMIT ?
"""


def hand_out(on: writing.Transaction, polls: Sequence[records.Poll], lease_seconds: float) -> list[records.Given]:
    """See :meth:`store.Store.hand_out`."""
    given = [records.Given() for _ in polls]
    workers: list[assignment.Worker] = []
    places: list[int] = []
    for place, poll in enumerate(polls):
        try:
            row = sessions.check(on.sql, poll.node_id, poll.session_id)
        except errors.HiveMindError as error:
            given[place] = records.Given(refused=error)
            continue
        sessions.take_back(on, row, sorted(poll.held))
        sessions.renew(on, row, lease_seconds)
        held = moves.held_by(on.sql, poll.node_id)
        if poll.look and poll.session_id:
            given[place] = _look(on, poll, held)
        paused = poll.paused if poll.session_id else row["status"] in _NO_TASKS_WHILE
        if given[place] or paused or row["draining"]:
            continue
        if (rest := resting.left(row, on.lease_time)) > 0:
            given[place] = records.Given(again_in=rest)
            continue
        worker = _worker(on.sql, poll, sessions.node_from(row, on.lease_time), held)
        if worker.slots > 0:
            workers.append(worker)
            places.append(place)
    for task, worker_place in _assigned(on.sql, workers):
        place = places[worker_place]
        with_session = bool(polls[place].session_id)
        seconds = deadlines.seconds(task["timeout"], with_session=with_session, lease_seconds=lease_seconds)
        attempt = moves.assign(on, task, polls[place].node_id, seconds)
        handed = records.Handed(task["id"], attempt, _body(on.sql, task))
        given[place] = dataclasses.replace(given[place], tasks=(*given[place].tasks, handed))
    return given


def _look(on: writing.Transaction, poll: records.Poll, held: Sequence[database.Row]) -> records.Given:
    """What this session should have heard before: attempts whose answer was lost, cancellations."""
    again, cancel = list[records.Handed](), list[records.Ref]()
    size = 0
    for task in held:
        received = (task["id"], task["attempt"]) in poll.held
        if received or task["state"] == state.TaskState.RUNNING:
            if task["cancel_requested"]:
                cancel.append(moves.ref(task))
        elif task["cancel_requested"]:
            moves.end(on, task, state.Move.CANCEL, str(outcome.Reason.CANCELLED), "cancelled before it ran")
        elif not poll.paused and (not again or size + task["size"] <= assignment.ANSWER_BYTES):
            size += task["size"]
            again.append(records.Handed(task["id"], task["attempt"], _body(on.sql, task)))
            moves.repeat(on, task)
    return records.Given(tuple(again), tuple(cancel))


def _worker(
    sql: database.Connection, poll: records.Poll, node: records.Node, held: Sequence[database.Row]
) -> assignment.Worker:
    """The waiting node as the assignment sees it."""
    free = poll.free
    # A node with a session counts for itself: what it has ended and not yet reported takes no slot there any more, and
    # to hold a task back for it would leave the node idle until its next poll.
    slots = poll.most
    if not poll.session_id:
        slots = 0 if held else 1  # the reference's client does one thing at a time
    if free is None:
        free = node.capacity
        if held:
            wants = moves.shapes(sql, (task["shape"] for task in held))
            free -= sum((wants[task["shape"]].needs for task in held), resources.Resources())
    return assignment.Worker(node.site, free, slots, poll.images)


def _assigned(sql: database.Connection, workers: Sequence[assignment.Worker]) -> list[tuple[database.Row, int]]:
    """The rows of tasks that are to be given out now, each with the place of its worker."""
    if not workers:
        return []
    shapes = {row["shape"]: moves.shape_from(row["wants"]) for row in sql.execute(QUEUED_SHAPES)}
    rows: dict[int, database.Row] = {}
    heads: dict[int, list[assignment.Head]] = {}
    for shape, most in assignment.wanted(workers, shapes).items():
        found = sql.execute(HEADS, (shape, most)).fetchall()
        rows |= {row["number"]: row for row in found}
        heads[shape] = [assignment.Head(row["number"], row["priority"], row["image"], row["size"]) for row in found]
    return [(rows[head.number], place) for head, place in assignment.assign(workers, shapes, heads)]


def _body(sql: database.Connection, task: database.Row) -> bytes:
    body: bytes = sql.execute("SELECT body FROM bodies WHERE number = ?", (task["number"],)).fetchone()["body"]
    return body
