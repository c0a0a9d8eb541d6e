"""Polls answered: what was lost on the way first, then new attempts; at once, or in the commit that queues a task."""

from __future__ import annotations

import contextlib
import dataclasses
import queue
from collections.abc import Mapping, Sequence

from hivemind_worker import errors
from hivemind_worker.pool.matching import assignment, room_index
from hivemind_worker.pool.store import database, deadlines, moves, records, resting, sessions, shapes, writing
from hivemind_worker.tasks import outcome, resources, state

_NO_TASKS_WHILE = frozenset({"draining", "unhealthy", "offline"})
"""Words of a node about itself that mean: nothing new. They count for a node without a session only: one with a
session says in each poll whether it is paused, and that is newer than its last heartbeat. The last one of all,
"offline", counts for everybody: a poll that comes after it has been overtaken."""


@dataclasses.dataclass(frozen=True, slots=True)
class Candidate:
    """A poll that may be given tasks. ``place``: where its answer goes in this call; -1 for one that waited before.

    ``registration``: what its node had registered with when it was looked at.
    """

    poll: records.Poll
    worker: assignment.Worker
    registration: str
    place: int = -1


class WaitingPolls:
    """The polls that found nothing and wait: each transaction that queues a task looks at them before it ends.

    So what is queued and what waits for it meet in one commit, which costs what it gives, however many wait. Used by
    the thread that writes; `withdraw` by any.
    """

    def __init__(self) -> None:
        self.rooms = assignment.new_rooms()
        self._places: dict[str, int] = {}
        self._candidates: dict[int, Candidate] = {}
        self._withdrawn: queue.SimpleQueue[records.Poll] = queue.SimpleQueue()

    def __len__(self) -> int:
        return len(self._places)

    def at(self, place: int) -> Candidate:
        """Return who has a place in ``rooms``."""
        return self._candidates[place]

    def places(self, node_id: str) -> int:
        """Return the place of a node's poll, as a bit; 0 where none waits."""
        place = self._places.get(node_id)
        return 0 if place is None else 1 << place

    def put(self, candidate: Candidate) -> None:
        """Have one wait, in the place of any other of its node."""
        self.take(candidate.poll.node_id)
        place = self.rooms.add(candidate.worker)
        self._places[candidate.poll.node_id] = place
        self._candidates[place] = dataclasses.replace(candidate, place=-1)

    def put_back(self, candidate: Candidate) -> None:
        """Have one wait again whose answer was undone, unless its node has another by now."""
        if candidate.poll.node_id not in self._places:
            self.put(candidate)

    def take(self, node_id: str) -> Candidate | None:
        """Let a node's poll wait no more."""
        place = self._places.pop(node_id, None)
        if place is None:
            return None
        self.rooms.remove(place)
        return self._candidates.pop(place)

    def withdraw(self, poll: records.Poll) -> None:
        """Let this very poll wait no more: whoever waited for its answer has gone. From any thread; see `settle`."""
        self._withdrawn.put(poll)

    def remove(self, poll: records.Poll) -> None:
        """Let this very poll wait no more."""
        place = self._places.get(poll.node_id)
        if place is not None and self._candidates[place].poll is poll:
            self.take(poll.node_id)

    def settle(self) -> None:
        """Take note of what was withdrawn meanwhile."""
        with contextlib.suppress(queue.Empty):
            while True:
                self.remove(self._withdrawn.get_nowait())


def hand_out(
    on: writing.Transaction, polls: Sequence[records.Poll], lease_seconds: float, waiting: WaitingPolls
) -> list[records.Given]:
    """See :meth:`store.Store.hand_out`."""
    given = [records.Given() for _ in polls]
    candidates: list[Candidate] = []
    waiting.settle()
    for place, poll in enumerate(polls):
        try:
            row = sessions.check(on.sql, poll.node_id, poll.session_id)
        except errors.HiveMindError as error:
            given[place] = records.Given(refused=error)
            continue
        # Not before: a poll that is refused must not push out the one of the node's own session.
        if (older := waiting.take(poll.node_id)) is not None:
            on.undo.append((waiting.put_back, older))
        sessions.take_back(on, row, sorted(poll.held))
        sessions.renew(on, row, lease_seconds)
        held = moves.held_by(on.sql, poll.node_id)
        if poll.look and poll.session_id:
            given[place] = _look(on, poll, held)
        paused = poll.paused or (not poll.session_id and row["status"] in _NO_TASKS_WHILE)
        # Cancellations alone are no reason to leave a poll out: its session may have heard them, and waits for tasks.
        if given[place].tasks or paused or row["draining"] or row["status"] == sessions.OFFLINE:
            continue
        if (rest := resting.left(row, on.lease_time)) > 0:
            given[place] = dataclasses.replace(given[place], again_in=rest)
            continue
        worker = _worker(on.sql, poll, sessions.node_from(row, on.lease_time), held)
        if worker.slots > 0:
            candidates.append(Candidate(poll, worker, row["said"], place))
    on.queue.settle(on.sql)  # of what was taken back above
    for candidate, tasks, rest in _give(on, candidates, waiting, lease_seconds):
        given[candidate.place] = dataclasses.replace(given[candidate.place], tasks=tasks, again_in=rest)
    return given


def answer_waiting(on: writing.Transaction, waiting: WaitingPolls, lease_seconds: float) -> None:
    """Give what this transaction has queued to the polls that wait."""
    if on.queue.grown:
        _give(on, [], waiting, lease_seconds)


def _give(
    on: writing.Transaction, fresh: Sequence[Candidate], waiting: WaitingPolls, lease_seconds: float
) -> list[tuple[Candidate, tuple[records.Handed, ...], float]]:
    """Give tasks to the fresh polls, and where there are new tasks to those that wait; return what the fresh get.

    The fresh that get nothing wait from now on, where they may; the number with each says in how many seconds it may
    get something that it does not get now.
    """
    waiting.settle()
    with_waiting = on.queue.grown and len(waiting) > 0
    on.queue.grown = False
    rooms = waiting.rooms if with_waiting else assignment.new_rooms()
    places = {rooms.add(candidate.worker): candidate for candidate in fresh}
    rests = resting.of_shapes(on.sql, on.lease_time) if rooms.free else []
    try:
        pairs = _assigned(on, places, waiting if with_waiting else None, rooms, rests)
    finally:
        rooms.reset()
        for place in places:
            rooms.remove(place)
    tasks: dict[str, list[records.Handed]] = {}
    takers: dict[str, Candidate] = {}
    for task, candidate in pairs:
        poll = candidate.poll
        seconds = deadlines.seconds(task["timeout"], with_session=bool(poll.session_id), lease_seconds=lease_seconds)
        attempt = moves.assign(on, task, poll.node_id, seconds)
        key = f"{candidate.place} {poll.node_id}"
        takers[key] = candidate
        tasks.setdefault(key, []).append(_handed(on.sql, task, attempt))
    for key, candidate in takers.items():
        if candidate.place < 0:
            _answer(on, waiting, candidate, records.Given(tuple(tasks[key])))
    results = []
    for candidate in fresh:
        node_id = candidate.poll.node_id
        handed = tuple(tasks.get(f"{candidate.place} {node_id}", ()))
        ends = [row["rest_until"] for row in rests if row["node_id"] == node_id]
        results.append((candidate, handed, min(ends) - on.lease_time if ends else 0.0))
        if not handed and candidate.poll.stays:
            waiting.put(candidate)
            on.undo.append((waiting.remove, candidate.poll))
    return results


def _assigned(
    on: writing.Transaction,
    fresh: Mapping[int, Candidate],
    waiting: WaitingPolls | None,
    rooms: room_index.RoomIndex,
    rests: Sequence[database.Row],
) -> list[tuple[database.Row, Candidate]]:
    """Which task goes to which candidate; to none that rests from its shape.

    Those that waited and are not as they were when they were looked at are answered so, and left out.
    """
    bits: dict[str, int] = {}
    for place, candidate in fresh.items():
        bits[candidate.poll.node_id] = bits.get(candidate.poll.node_id, 0) | 1 << place
    while True:
        excluded: dict[int, int] = {}
        for row in rests:
            resting_places = bits.get(row["node_id"], 0) | (waiting.places(row["node_id"]) if waiting else 0)
            excluded[row["shape"]] = excluded.get(row["shape"], 0) | resting_places
        pairs = on.queue.assigned(on.sql, rooms, excluded)
        takers = {place: fresh[place] if place in fresh or waiting is None else waiting.at(place) for _, place in pairs}
        outdated = [candidate for candidate in takers.values() if candidate.place < 0 and not _as_it_was(on, candidate)]
        if not outdated or waiting is None:
            return [(row, takers[place]) for row, place in pairs]
        rooms.reset()
        for candidate in outdated:
            _answer(on, waiting, candidate, records.Given(outdated=True))


def _as_it_was(on: writing.Transaction, candidate: Candidate) -> bool:
    """Whether a poll that waited may still be given what it could be given when it was looked at."""
    poll = candidate.poll
    row = on.sql.execute("SELECT * FROM nodes WHERE node_id = ?", (poll.node_id,)).fetchone()
    return bool(
        row is not None
        and row["session_id"] == poll.session_id
        and row["said"] == candidate.registration
        and row["alive"]
        and not row["draining"]
        and row["status"] != sessions.OFFLINE
        and resting.left(row, on.lease_time) == 0
    )


def _answer(on: writing.Transaction, waiting: WaitingPolls, candidate: Candidate, given: records.Given) -> None:
    waiting.remove(candidate.poll)
    on.undo.append((waiting.put_back, candidate))
    on.answers.append((candidate.poll, given))


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
            again.append(_handed(on.sql, task, task["attempt"]))
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
    elif free is None and node.max_concurrent_tasks:
        slots = min(slots, node.max_concurrent_tasks - len(held))
    if free is None:
        free = node.capacity
        if held:
            wants = shapes.shapes(sql, (task["shape"] for task in held))
            free -= sum((wants[task["shape"]].needs for task in held), resources.Resources())
    return assignment.Worker(node.site, free, slots, poll.images)


def _handed(sql: database.Connection, task: database.Row, attempt: int) -> records.Handed:
    sealed = b""
    if task["has_secrets"]:
        found = sql.execute("SELECT sealed FROM sealed_secrets WHERE number = ?", (task["number"],)).fetchone()
        sealed = found["sealed"] if found is not None else b""
    if task["size"] > records.MAX_HANDED_BODY:
        return records.Handed(task["id"], attempt, None, task["size"], secrets=sealed)
    body: bytes = sql.execute("SELECT body FROM bodies WHERE number = ?", (task["number"],)).fetchone()["body"]
    return records.Handed(task["id"], attempt, body, secrets=sealed)
