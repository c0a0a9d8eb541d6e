"""Every answer must be the one that the promise names: refusals, verdicts, cancellations, drops, attempts given out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import model_calls as calls
from model_calls import Done, Key, Refusal, TaskView, View
from model_ledger import Ledger, Session, demand

from hivemind_worker.tasks import resources


def check(ledger: Ledger, before: View, done: Sequence[Done], after: View) -> None:
    """Check the answers of one step. What depends on the order of calls is checked where one call was made alone."""
    alone = len(done) == 1
    for one in done:
        if one.answer.lost:
            continue
        _check_new_attempts(ledger, one, after)
        _check_ends(ledger, done)
        if alone:
            _Alone(ledger, before, one, after).check()


def _check_ends(ledger: Ledger, done: Sequence[Done]) -> None:
    """No attempt's end is accepted twice, and none of an attempt that its node was not given."""
    new: set[Key] = set()
    for one in done:
        if isinstance(one.call, calls.Report) and one.call.status and one.answer.verdict == "accepted":
            key = ledger.fenced(one.call)
            demand(
                key not in ledger.accepted and key not in new, f"a second end of {key} was accepted: {calls.brief(one)}"
            )
            demand(
                ledger.owner.get(key) == one.call.node,
                f"accepted from a node that was not given {key}: {calls.brief(one)}",
            )
            new.add(key)


def _check_new_attempts(ledger: Ledger, one: Done, after: View) -> None:
    call, answer = one.call, one.answer
    if not isinstance(call, calls.Poll):
        return
    new = 0
    for item in answer.assigned:
        demand(
            item.key.epoch == ledger.epoch or not calls.PROMISES.epochs,
            f"an attempt of another epoch: {calls.brief(one)}",
        )
        spec = ledger.specs.get(item.key.task)
        demand(spec is not None and spec.digest == item.body, f"not what was submitted: {item}")
        new += item.key not in ledger.owner
        demand(item.key not in ledger.started, f"given out again although it had started: {item} by {calls.brief(one)}")
        demand(item.key not in ledger.accepted, f"given out again although it had ended: {item} by {calls.brief(one)}")
        demand(
            item.key not in {entry.key for entry in call.listed}, f"given out although it is listed: {calls.brief(one)}"
        )
        ledger.own(item.key, call.node)
        task = after.tasks[item.key.task]
        demand(task.attempt >= item.key.attempt, f"{item} is not in the store: {task}")
    demand(new <= call.max_tasks, f"more than was asked for: {calls.brief(one)}")
    demand(not (call.paused and new), f"tasks for a paused poll: {calls.brief(one)}")


class _Alone:
    """One call, made alone, between two views."""

    def __init__(self, ledger: Ledger, before: View, one: Done, after: View) -> None:
        self.ledger, self.before, self.after = ledger, before, after
        self.answer = one.answer
        self.text = calls.brief(one)
        self.call = one.call

    def check(self) -> None:
        if self.answer.refusal is not None:
            demand(self.before.tasks == self.after.tasks, f"refused, and yet something changed: {self.text}")
        match self.call:
            case calls.Submit():
                self._submit(self.call)
            case calls.Retry():
                self._retry(self.call)
            case calls.Cancel():
                self._cancel(self.call)
            case calls.Drain():
                self._drain(self.call)
            case calls.Register():
                self._register(self.call)
            case calls.Beat() | calls.Poll() | calls.Report():
                self._in_session(self.call)
            case _:
                demand(self.answer.fine, self.text)

    # -- submitters ----------------------------------------------------------------------------------------------------

    def _submit(self, call: calls.Submit) -> None:
        earlier = self.ledger.requests.get(call.request_key) if call.request_key else None
        if earlier is not None:
            if earlier[0] == call:
                demand(self.answer.ids == earlier[1], f"the key stood for {earlier}: {self.text}")
            else:
                demand(self.answer.refusal is Refusal.CONFLICT, f"the key stood for {earlier}: {self.text}")
            return
        other = [spec for spec in call.specs if self._digest(spec.id) not in {None, spec.digest}]
        if other:
            demand(self.answer.refusal is Refusal.CONFLICT, f"these ids are other tasks' {other}: {self.text}")
            return
        demand(self.answer.fine, self.text)
        demand(len(self.answer.ids) == len(call.specs), self.text)
        for task_id, spec in zip(self.answer.ids, call.specs, strict=True):
            demand(spec.id in {"", task_id}, f"another id: {self.text}")
            demand(task_id in self.after.tasks, f"{task_id} was acknowledged, and cannot be read: {self.text}")

    def _digest(self, task_id: str) -> str | None:
        """What a task of that id was submitted as; before this step it was not there: None."""
        return self.ledger.specs[task_id].digest if task_id in self.before.tasks else None

    def _retry(self, call: calls.Retry) -> None:
        earlier = self.ledger.requests.get(call.request_key) if call.request_key else None
        if any(task_id not in self.before.tasks for task_id in call.ids):
            demand(self.answer.refusal is Refusal.NO_SUCH_TASK, self.text)
            return
        if earlier is not None:
            demand(
                self.answer.ids == earlier[1] if earlier[0] == call else self.answer.refusal is Refusal.CONFLICT,
                self.text,
            )
            return
        if not all(self.before.tasks[task_id].ended for task_id in call.ids):
            demand(self.answer.refusal is Refusal.CONFLICT, self.text)
            return
        demand(self.answer.fine and len(self.answer.ids) == len(call.ids), self.text)
        for task_id, new_id in zip(call.ids, self.answer.ids, strict=True):
            demand(new_id not in self.before.tasks, f"not a new task: {self.text}")
            demand(self.after.tasks[new_id].retry_of == task_id, f"it does not name the old: {self.text}")

    def _cancel(self, call: calls.Cancel) -> None:
        if any(task_id not in self.before.tasks for task_id in call.ids):
            demand(self.answer.refusal is Refusal.NO_SUCH_TASK, self.text)
            return
        demand(self.answer.fine, self.text)
        for task_id in call.ids:
            old, new = self.before.tasks[task_id], self.after.tasks[task_id]
            demand(new.ended or new.cancel, f"acknowledged, and goes on as if nothing was: {new}; {self.text}")
            demand(old.state != "queued" or new.state == "cancelled", f"queued tasks end at once: {new}; {self.text}")

    def _drain(self, call: calls.Drain) -> None:
        if call.node not in self.before.nodes:
            demand(self.answer.refusal is Refusal.UNKNOWN_NODE, self.text)
            return
        demand(self.answer.fine, self.text)
        demand(self.after.nodes[call.node].draining == call.draining, f"the node goes on: {self.text}")

    # -- nodes ---------------------------------------------------------------------------------------------------------

    def _register(self, call: calls.Register) -> None:
        session = self.ledger.sessions.get(call.node)
        other = session is not None and session.boot not in {"", call.boot}
        may_live = other and call.node in self.before.nodes and self.before.nodes[call.node].alive
        proven = session is not None and session.lock and session.lock == call.lock
        if self.answer.refusal is not None:
            demand(calls.PROMISES.takeover and session is not None, self.text)
            assert session is not None
            demand(session.unsure or (may_live and not proven), f"nothing stands against it: {session}; {self.text}")
            return
        if calls.PROMISES.takeover and session is not None and may_live and not proven and not session.unsure:
            silent = self.ledger.now >= self.ledger.must_live_until(call.node)
            silent = silent or session.offline is not False  # it has said that it stops, or may have
            demand(silent or self.ledger.asks_incumbent, f"a living session was taken over: {session}; {self.text}")
        demand(self.answer.session and self.answer.session not in self._past(call.node), self.text)
        demand(self.after.nodes[call.node].alive, f"its lease begins with it: {self.text}")
        if session is not None and not session.unsure and session.current and call.boot:
            same = session.boot == call.boot and call.node in self.before.nodes
            demand(same == (self.answer.session == session.current), f"before: {session}; {self.text}")
        self._lists(call)

    def _past(self, node: str) -> set[str]:
        session = self.ledger.sessions.get(node)
        return session.past if session else set()

    def _in_session(self, call: calls.Beat | calls.Poll | calls.Report) -> None:
        session = self.ledger.sessions.get(call.node)
        refusal = self.answer.refusal
        if session is None or call.node not in self.before.nodes:
            demand(refusal is Refusal.UNKNOWN_NODE, f"it never registered: {self.text}")
        elif session.unsure:
            pass
        elif not call.session and session.boot:
            demand(refusal is not None or not calls.PROMISES.session_required, f"without its session: {self.text}")
        elif call.session not in {"", session.current}:
            demand(refusal is not None, f"in a session that is over or never was: {self.text}")
            if call.session in session.past:
                demand(refusal is Refusal.REPLACED, f"another session replaced it: {self.text}")
        else:
            demand(refusal is None, f"its session is in order: {self.text}")
        if refusal is not None:
            return
        if isinstance(call, calls.Report):
            self._verdict(call)
            return
        demand(self.after.nodes[call.node].alive, f"its lease is renewed: {self.text}")
        if isinstance(call, calls.Beat):
            demand(self.answer.draining == self.after.nodes[call.node].draining, self.text)
            self._lists(call)
            if call.offline and call.session:
                self._left_nothing(call)
            demand(set(self.answer.cancel) == self._to_cancel(call.node), f"cancellations: {self.text}")
        else:
            demand(set(self.answer.cancel) <= self._to_cancel(call.node), f"cancellations: {self.text}")
            self._given_out(call)

    def _lists(self, call: calls.Register | calls.Beat) -> None:
        """What a node lists and is not its own any more must be dropped, and nothing else."""
        ledger, dropped = self.ledger, {self.ledger.own_epoch(key) for key in self.answer.drop}
        own = {ledger.key(task.id, task.attempt) for task in self.after.tasks.values() if self._has(call.node, task)}
        listed = {ledger.own_epoch(item.key) for item in call.listed or ()}
        demand(dropped <= listed, f"told to drop what it does not list: {self.text}")
        for item in call.listed or ():
            key = ledger.own_epoch(item.key)
            bound = ledger.bound.get(key, "")
            if key in own and not ledger.foreign(item) and (item.run or not bound) and bound != "?":
                demand(key not in dropped, f"{calls.brief(key)} is its own, and is to be dropped: {self.text}")
            elif (key not in own or item.run) and bound != "?":
                demand(key in dropped, f"{calls.brief(key)} is not its own, and is not to be dropped: {self.text}")

    def _left_nothing(self, call: calls.Beat) -> None:
        """A node that stops keeps what it lists, and nothing else."""
        listed = self.ledger.listed(call)
        for task in self.after.tasks.values():
            key = self.ledger.key(task.id, task.attempt)
            unknown = self.ledger.bound.get(key) == "?"
            demand(
                not self._has(call.node, task) or key in listed or unknown,
                f"{key} waits for a lease of a node that stops: {self.text}",
            )

    def _has(self, node: str, task: TaskView) -> bool:
        return task.active and task.node == node

    def _to_cancel(self, node: str) -> set[Key]:
        return {
            self.ledger.key(task.id, task.attempt)
            for task in self.after.tasks.values()
            if self._has(node, task) and task.cancel
        }

    def _verdict(self, call: calls.Report) -> None:
        key = self.ledger.fenced(call)
        verdict, old = self.answer.verdict, self.before.tasks.get(key.task)
        new = self.after.tasks.get(key.task)
        if old is None or new is None:
            demand(verdict == "unknown", self.text)
            return
        if verdict != "accepted":
            # How many disruptions a late word of an orderly stop may make is checked with the moves.
            same = dataclasses.replace(new, disruptions=old.disruptions) if verdict == "stale" else new
            demand(old == same, f"it does not count, and yet {old} became {new}: {self.text}")
        if calls.PROMISES.epochs and call.key.epoch not in {"", self.ledger.epoch}:
            demand(verdict in {"stale", "unknown"}, f"of another epoch: {self.text}")
        elif self.ledger.owner.get(key) != call.node:
            demand(verdict != "accepted", f"it was given to {self.ledger.owner.get(key)}: {self.text}")
        elif key in self.ledger.unsure or self.ledger.bound.get(key) == "?":
            pass
        elif calls.PROMISES.run_ids and self.ledger.bound.get(key, call.run) != call.run:
            demand(verdict == "stale", f"it is bound to run {self.ledger.bound[key]}, not {call.run}: {self.text}")
        elif key in self.ledger.accepted:
            expected = {"duplicate"} if call.status else {"duplicate", "stale"}
            demand(verdict in expected, f"its end was accepted before: {self.text}")
        elif old.ended or key.attempt < old.attempt:
            demand(verdict == "stale", f"fenced by {old}: {self.text}")
        elif call.status:
            demand(verdict == "accepted", f"it is the newest attempt, and its end counts: {old}; {self.text}")
        elif old.active:
            demand(verdict == "accepted" and new.state == "running", f"it starts: {new}; {self.text}")
        else:
            demand((verdict == "accepted") == (new.state == "running"), f"a late start: {new}; {self.text}")

    def _given_out(self, call: calls.Poll) -> None:
        new = [item for item in self.answer.assigned if self._is_new(item.key)]
        session = self.ledger.sessions[call.node]
        node = self.after.nodes[call.node]
        zone = self._zone(call.node)
        free = self._free(call, node)
        for item in new:
            spec = self.ledger.specs[item.key.task]
            demand(spec.zone in {"", zone}, f"it does not suit: {self.text}")
            demand(not session.draining, f"a drained node: {self.text}")
            demand(not session.offline or not session.boot, f"a node that has stopped: {self.text}")
        if new:
            demand(resources.Resources().fits(free), f"more than there is room for ({free}): {self.text}")
            own = sum(self._has(call.node, task) for task in self.after.tasks.values())
            limit = self._limit(session, node)
            demand(not limit or own <= limit or call.free is not None, f"{own} tasks at once: {self.text}")
        rests = self.answer.rests
        demand((rests or 0.0) <= calls.MAX_SHAPE_REST_SECONDS, f"a rest that long: {self.text}")
        demand(
            not rests or self.ledger.may_rest(call.node) or session.handed_back,
            f"a sound node rests: {self.text}",
        )
        self._nothing_waits(call, free, zone, new)

    def _limit(self, session: Session, node: calls.NodeView) -> int:
        """How many tasks at once a node takes; 0: as many as fit. Without sessions: one at a time."""
        if not session.boot:
            return 1
        return node.max_tasks

    def _is_new(self, key: Key) -> bool:
        old = self.before.tasks.get(key.task)
        return old is None or old.attempt < key.attempt

    def _zone(self, node: str) -> str:
        return "a" if node in {"large", "sound"} else ""

    def _free(self, call: calls.Poll, node: calls.NodeView) -> resources.Resources:
        """What is left after this answer."""
        used = resources.Resources()
        for task in self.after.tasks.values():
            if self._has(call.node, task) and (
                call.free is None or self._is_new(self.ledger.key(task.id, task.attempt))
            ):
                used += self.ledger.specs[task.id].needs
        return (node.capacity if call.free is None else call.free) - used

    def _nothing_waits(
        self, call: calls.Poll, free: resources.Resources, zone: str, new: Sequence[calls.Assigned]
    ) -> None:
        """Nothing that fits is passed over, and the most urgent goes first."""
        repeated = len(new) < len(self.answer.assigned)
        session, node = self.ledger.sessions[call.node], self.after.nodes[call.node]
        rests = self.ledger.may_rest(call.node) and (self.answer.rests is None or self.answer.rests > 0)
        # What is to be stopped comes first, alone.
        if call.paused or repeated or rests or self._to_cancel(call.node) or session.draining is not False:
            return
        if node.draining or session.unsure or session.offline is not False:
            return
        own = sum(self._has(call.node, task) for task in self.after.tasks.values())
        limit = self._limit(session, node)
        slots = call.max_tasks - len(new) > 0 and (not limit or own < limit)
        for task in self.after.tasks.values():
            spec = self.ledger.specs[task.id]
            if task.state != "queued" or spec.zone not in {"", zone} or self._newly_queued(task):
                continue
            if spec.shape in session.handed_back:
                continue  # it may rest from these
            demand(not (slots and spec.needs.fits(free)), f"{task} fits, and waits with {free} free: {self.text}")
            for item in new:
                first = self.ledger.specs[item.key.task]
                if spec.needs.fits(first.needs):
                    urgent = (-spec.priority, self.ledger.order[spec.id]) < (
                        -first.priority,
                        self.ledger.order[first.id],
                    )
                    demand(not urgent, f"{spec} is more urgent than {first}: {self.text}")

    def _newly_queued(self, task: TaskView) -> bool:
        return self.before.tasks[task.id].state != "queued"
