"""Sessions of nodes: who may speak for a node, what it holds, and when its lease runs out."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence

from hivemind_worker import errors
from hivemind_worker.pool.matching import assignment
from hivemind_worker.pool.store import attempts, database, moves, records, resting, submissions, takeover, writing
from hivemind_worker.tasks import resources, state

SESSIONS_KEPT = 20
"""Past sessions of a node that are remembered: a process that was replaced so often has long heard of it."""

OFFLINE = "offline"
"""A node's last word about itself: it stops in order."""

_STARTED = frozenset({state.Phase.RUNNING, state.Phase.COLLECTING})
"""Phases that prove that the task's own process has run."""


@dataclasses.dataclass(frozen=True, slots=True)
class Leases:
    """How long a lease is, and since when, by the lease clock, all of them have run: they may have begun anew."""

    seconds: float
    since: float


def register(
    on: writing.Transaction,
    node: records.NewNode,
    held: Sequence[records.Ref],
    leases: Leases,
    silent_session: str = "",
) -> records.Registration:
    """See :meth:`store.Store.register`."""
    row = on.sql.execute("SELECT * FROM nodes WHERE node_id = ?", (node.node_id,)).fetchone()
    incumbent = None if row is None else _incumbent(row, on.lease_time)
    decision = takeover.decide(incumbent, node.boot_id, node.state_lock_id, silent_session)
    if incumbent is not None and decision is takeover.Decision.CHALLENGE:
        address = json.loads(row["said"])["address"]
        # Leases were all made to end at one time when they began anew: what ends later was renewed since.
        was_heard = row["lease_until"] > leases.since + leases.seconds
        returning = math.inf if was_heard else on.lease_time - leases.since
        raise takeover.SessionLives(node.node_id, address, incumbent.session_id, returning)
    same = decision is takeover.Decision.SAME_PROCESS
    session_id = incumbent.session_id if incumbent is not None and same else submissions.new_id()
    lease_seconds = leases.seconds
    said = {
        "capacity": dataclasses.asdict(node.capacity),
        "labels": dict(node.labels),
        "capabilities": list(node.capabilities),
        "version": node.version,
        "address": node.address,
        "max_concurrent_tasks": node.max_concurrent_tasks,
    }
    on.sql.execute(
        "INSERT INTO nodes (node_id, session_id, boot_id, state_lock_id, said, registered_at, heartbeat_at,"
        " lease_until) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (node_id) DO UPDATE"
        " SET session_id = excluded.session_id, boot_id = excluded.boot_id, state_lock_id = excluded.state_lock_id,"
        " said = excluded.said, registered_at = excluded.registered_at,"
        " heartbeat_at = excluded.heartbeat_at, lease_until = excluded.lease_until, alive = 1, status = 'idle',"
        " message = '', readings = '{}', told_to_drain = 0, unheard = 0",
        (
            node.node_id,
            session_id,
            node.boot_id,
            node.state_lock_id,
            json.dumps(said),
            on.now,
            on.now,
            on.lease_time + lease_seconds,
        ),
    )
    if not same:
        on.sql.execute("INSERT INTO sessions VALUES (?, ?, ?)", (session_id, node.node_id, on.lease_time))
        on.sql.execute(
            "DELETE FROM sessions WHERE node_id = ? AND session_id NOT IN"
            " (SELECT session_id FROM sessions WHERE node_id = ? ORDER BY at DESC, session_id DESC LIMIT ?)",
            (node.node_id, node.node_id, SESSIONS_KEPT),
        )
    drop = _settle(on, node.node_id, held)
    if not same:
        listed = _without(held, drop)
        for task in moves.held_by(on.sql, node.node_id):
            if (task["id"], task["attempt"]) not in listed:
                clash = takeover.is_clash(incumbent, node.state_lock_id, node.former_state_lock_ids)
                reason = "was taken over by another state folder" if clash else "started anew"
                if clash:  # such takeovers can follow each other within seconds, too
                    resting.after_hand_back(on, node.node_id, task)
                moves.give_up(on, task, f"{node.node_id} {reason} without it", disruption=clash)
    return records.Registration(session_id, drop)


def _incumbent(row: database.Row, lease_time: float) -> takeover.Incumbent:
    return takeover.Incumbent(
        row["session_id"],
        row["boot_id"],
        row["state_lock_id"],
        leased=bool(row["alive"] and row["lease_until"] >= lease_time),
        offline=row["status"] == OFFLINE,
    )


def heartbeat(on: writing.Transaction, beat: records.Beat, leases: Leases) -> records.Directives:
    """See :meth:`store.Store.heartbeat`."""
    lease_seconds = leases.seconds
    node = check(on.sql, beat.node_id, beat.session_id)
    on.sql.execute(
        "UPDATE nodes SET status = ?, told_to_drain = draining, message = ?, readings = ?, heartbeat_at = ?,"
        " lease_until = ?, alive = 1, unheard = 0 WHERE node_id = ?",
        (
            beat.status if node["draining"] else _status(on.sql, node, beat.status),
            beat.message,
            json.dumps(dict(beat.readings)),
            on.now,
            on.lease_time + lease_seconds,
            beat.node_id,
        ),
    )
    drop = _settle(on, beat.node_id, beat.held or ())
    if beat.session_id and beat.held is not None:
        listed = _without(beat.held, drop)
        if beat.status == OFFLINE:
            _give_up_left(on, beat.node_id, listed)
        # Within a lease of the pool's return the poll may be still to come that asks for an answer it took with it.
        elif leases.since < on.lease_time - lease_seconds:
            _give_up_unlisted(on, beat.node_id, listed, on.lease_time - lease_seconds)
    cancel = tuple(moves.ref(task) for task in moves.held_by(on.sql, beat.node_id) if task["cancel_requested"])
    return records.Directives(bool(node["draining"]), cancel, drop)


def check(sql: database.Connection, node_id: str, session_id: str) -> database.Row:
    """Return the row of a node whose session this is.

    The node's name alone is enough where it registered without a boot id, as the reference document's clients do: they
    know no sessions. Raises :class:`errors.UnknownNode`, or :class:`errors.StateInUse` for a session that another has
    replaced.
    """
    node = _node(sql, node_id)
    if node["session_id"] == session_id or not (session_id or node["boot_id"]):
        return node
    if not session_id:
        raise errors.UnknownNode(
            f"{node_id[:80]!r} registered with a boot id: each of its calls shows its session; register again",
            "UNKNOWN_SESSION",
        )
    past = sql.execute("SELECT 1 FROM sessions WHERE session_id = ? AND node_id = ?", (session_id, node_id)).fetchone()
    if past is None:
        raise errors.UnknownNode(f"no such session of {node_id[:80]!r}: register again", "UNKNOWN_SESSION")
    raise errors.StateInUse(f"another process has registered as {node_id!r} since this session was opened")


def _node(sql: database.Connection, node_id: str) -> database.Row:
    """Return the row of a node. Raises :class:`errors.UnknownNode`."""
    node: database.Row | None = sql.execute("SELECT * FROM nodes WHERE node_id = ?", (node_id,)).fetchone()
    if node is None:
        raise errors.UnknownNode(f"no node {node_id[:80]!r} is registered here", "UNKNOWN_NODE")
    return node


def renew(on: writing.Transaction, node: database.Row, lease_seconds: float) -> None:
    """Renew a lease, unless that was done a moment ago: polls are many, and each renewal is a write to the disk."""
    if node["lease_until"] - on.lease_time > 0.75 * lease_seconds and node["alive"] and not node["unheard"]:
        return
    on.sql.execute(
        "UPDATE nodes SET lease_until = ?, alive = 1, unheard = 0 WHERE node_id = ?",
        (on.lease_time + lease_seconds, node["node_id"]),
    )


def take_back(on: writing.Transaction, node: database.Row, held: Iterable[tuple[str, int]]) -> None:
    """Give a node back what it still holds, where its lease was lost and nobody else was given it since.

    To be done before its poll is answered: else it would be given a second time what it runs or has done already.
    """
    if node["alive"]:
        return
    for task_id, attempt in held:
        task = moves.row(on.sql, task_id)
        if task is not None and may_resume(task, attempt, node["node_id"], on.lease_time):
            moves.resume(on, task, "its node still holds it")


def _settle(on: writing.Transaction, node_id: str, held: Iterable[records.Ref]) -> tuple[records.Ref, ...]:
    """Compare what a node says it holds with what is its own; return what it must drop."""
    drop = []
    for each in held:
        if attempts.is_other_epoch(on, each.epoch):
            drop.append(each)
            continue
        task = moves.row(on.sql, each.task_id)
        if task is not None and not _is_this_run(on, task, node_id, each):
            drop.append(each)
            continue
        if task is not None and may_resume(task, each.attempt, node_id, on.lease_time):
            task = moves.resume(on, task, "its node still holds it")
        mine = (
            task is not None
            and task["state"] in (state.TaskState.ASSIGNED, state.TaskState.RUNNING)
            and task["attempt"] == each.attempt
            and task["node_id"] == node_id
        )
        if not mine or task is None:
            drop.append(each)
        elif task["state"] == state.TaskState.ASSIGNED and each.phase in _STARTED:
            moves.start(on, task)
    return tuple(drop)


def _is_this_run(on: writing.Transaction, task: database.Row, node_id: str, ref: records.Ref) -> bool:
    """Whether a node lists the run that counts, of the attempt that is its own; not yet begun, it has no id.

    Binds the attempt to the first run that is listed.
    """
    if not ref.run_id or ref.attempt != task["attempt"] or node_id != task["node_id"]:
        return True
    return attempts.bind(on, task["number"], ref.attempt, ref.run_id)


def _without(held: Sequence[records.Ref], drop: Sequence[records.Ref]) -> set[tuple[str, int]]:
    """The attempts that a node lists and may go on with: one that it must drop is as good as not listed."""
    dropped = set(drop)
    return {(ref.task_id, ref.attempt) for ref in held if ref not in dropped}


def _give_up_unlisted(on: writing.Transaction, node_id: str, listed: set[tuple[str, int]], given_before: float) -> None:
    """Give up what a node was given long ago and does not name: otherwise its heartbeats would keep it for ever."""
    for task in moves.held_by(on.sql, node_id):
        if (task["id"], task["attempt"]) not in listed and task["given_at"] < given_before:
            moves.give_up(on, task, f"{node_id} holds it no more")


def _give_up_left(tx: writing.Transaction, node_id: str, listed: set[tuple[str, int]]) -> None:
    """Give up at once what a node that stops does not name: it polls no more, so it never received that."""
    for task in moves.held_by(tx.sql, node_id):
        if (task["id"], task["attempt"]) not in listed:
            resting.after_hand_back(tx, node_id, task)
            moves.give_up(tx, task, f"{node_id} stopped before it received it", disruption=True)


def may_resume(task: database.Row, attempt: int, node_id: str, lease_time: float) -> bool:
    """Whether a queued task's newest attempt was this node's, and was lost rather than ended or overdue."""
    return bool(
        task["state"] == state.TaskState.QUEUED
        and 0 < task["attempt"] == attempt
        and task["node_id"] == node_id
        and task["accepted"] != attempt
        and lease_time < task["deadline"]
    )


def drain(on: writing.Transaction, node_id: str, *, draining: bool) -> None:
    """See :meth:`store.Store.drain`."""
    node = _node(on.sql, node_id)
    status = node["status"] if draining else _status(on.sql, node, node["status"])
    on.sql.execute("UPDATE nodes SET draining = ?, status = ? WHERE node_id = ?", (draining, status, node_id))


def _status(sql: database.Connection, node: database.Row, word: str) -> str:
    """Return what is shown of a node that says ``word`` of itself while the pool does not drain it.

    Until it has heard that, it says that it drains because the pool had told it so: that is our own word, not its.
    """
    if word != _DRAINING or not node["told_to_drain"]:
        return word
    return "busy" if moves.held_by(sql, node["node_id"]) else "idle"


_DRAINING = "draining"


def node_from(
    row: database.Row,
    lease_time: float,
    attempts: tuple[records.Ref, ...] = (),
    used: resources.Resources | None = None,
    shape_rests: Mapping[assignment.Shape, float] | None = None,
) -> records.Node:
    """Return a row as the node it stands for."""
    said = json.loads(row["said"])
    return records.Node(
        node_id=row["node_id"],
        session_id=row["session_id"],
        capacity=resources.Resources(**said["capacity"]),
        boot_id=row["boot_id"],
        labels=said["labels"],
        capabilities=tuple(said["capabilities"]),
        version=said["version"],
        address=said["address"],
        max_concurrent_tasks=said["max_concurrent_tasks"],
        status=row["status"],
        message=row["message"],
        readings=json.loads(row["readings"]),
        draining=bool(row["draining"]),
        registered_at=row["registered_at"],
        heartbeat_at=row["heartbeat_at"],
        alive=bool(row["alive"]),
        faults=row["faults"],
        rest_seconds=resting.left(row, lease_time),
        attempts=attempts,
        used=used or resources.Resources(),
        shape_rests=shape_rests or {},
    )
