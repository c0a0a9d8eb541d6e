"""Every change of a task between two views must be one that the promise allows, by a call that was made in between."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import model_calls as calls
from model_calls import Done, Key, TaskView, View
from model_ledger import Ledger, demand, is_nodes_fault


def check(ledger: Ledger, before: View, done: Sequence[Done], after: View) -> None:
    """Check the step from ``before`` to ``after``. Raises :class:`model_ledger.Broken`."""
    _check_late_stops(ledger, before, done, after)
    for old in before.tasks.values():
        new = after.tasks.get(old.id)
        demand(new is not None, f"{old.id} was there, and is lost")
        assert new is not None
        if old != new:
            _Move(ledger, old, new, done).check()
    for task_id in reversed(after.tasks):  # which names the newest first
        if task_id not in before.tasks:
            _check_new(ledger, after.tasks[task_id], done)
    for one in done:
        if isinstance(one.call, calls.Submit) and one.answer.lost:
            # An id may be there already: an older backup has another task of it.
            stored = {spec.id in after.tasks for spec in one.call.specs if spec.id not in before.tasks}
            demand(len(stored) <= 1, f"{one.call} was kept in part")
            others = [spec for spec in one.call.specs if spec.id in before.tasks and ledger.specs[spec.id] != spec]
            demand(not others or True not in stored, f"{one.call} was kept although {others} are other tasks")
    _check_rests(ledger, after, done)
    _check_forgotten(ledger, before, done, after)


def _check_new(ledger: Ledger, task: TaskView, done: Sequence[Done]) -> None:
    submitted: dict[str, calls.Spec] = {}
    for one in done:
        if isinstance(one.call, calls.Submit):
            # A task without an id is given one, which the answer tells.
            ids = one.answer.ids or tuple(spec.id for spec in one.call.specs)
            submitted |= dict(zip(ids, one.call.specs, strict=True))
    retried = {task_id for one in done if isinstance(one.call, calls.Retry) for task_id in one.call.ids}
    demand(task.id in submitted or task.retry_of in retried, f"{task.id} came from nowhere")
    if len(done) == 1:
        demand((task.state, task.attempt) == ("queued", 0), f"a new task is {task}")
    spec = ledger.specs[task.retry_of] if task.retry_of else submitted[task.id]
    ledger.specs[task.id] = dataclasses.replace(spec, id=task.id)
    ledger.order.setdefault(task.id, len(ledger.order))
    demand(task.max_attempts == spec.max_attempts, f"{task} has another max_attempts")


def _check_rests(ledger: Ledger, after: View, done: Sequence[Done]) -> None:
    """What must hold whatever was done: no attempt without a lease that somebody watches, no list that is wrong."""
    active: dict[str, set[tuple[str, int]]] = {name: set() for name in after.nodes}
    for task in after.tasks.values():
        if task.active:
            node = after.nodes.get(task.node)
            demand(
                node is not None and node.alive, f"{task} is with a node whose lease has run out: nobody looks at it"
            )
            active[task.node].add((task.id, task.attempt))
    for node in after.nodes.values():
        demand(node.keys == active[node.name], f"{node.name} is shown with {node.keys}, and has {active[node.name]}")
        demand(min(node.free.cpu_cores, node.free.memory_bytes) >= 0, f"{node.name} is shown with {node.free} free")
    for name in after.nodes:
        expired = any(isinstance(one.call, calls.Expire) and one.answer.fine for one in done)
        if expired and len(done) == 1 and ledger.now > ledger.may_live_until(name):
            demand(not after.nodes[name].alive, f"{name} was silent for longer than a lease, and is called alive")


def _check_late_stops(ledger: Ledger, before: View, done: Sequence[Done], after: View) -> None:
    """An attempt that was given up for its lease uses up none once its node says that it was stopped in order."""
    for one in done:
        call = one.call
        if not isinstance(call, calls.Report) or call.reason != "node_shutdown" or one.answer.refusal is not None:
            continue
        key = ledger.fenced(call)
        old, new = before.tasks.get(key.task), after.tasks.get(key.task)
        if old is None or new is None or old.ended or key.attempt >= old.attempt or key.epoch != ledger.epoch:
            continue
        if ledger.owner.get(key) != call.node or key in ledger.disrupted:
            continue
        ledger.disrupted.add(key)
        ledger.possible_disruptions[key.task] += 1
        # An end that came after the lease was lost, and before the next attempt was given out, has ended it already.
        ended = key in ledger.late_ends or key in ledger.accepted or key in ledger.unsure
        certain = len(done) == 1 and key in ledger.lease_lost and not ended
        if certain and not one.answer.lost and ledger.bound.get(key, call.run) == call.run:
            demand(one.answer.verdict == "stale", f"{calls.brief(one)}: a newer attempt was given out")
            demand(new.disruptions == old.disruptions + 1, f"a stop in order used up an attempt: {calls.brief(one)}")


def _check_forgotten(ledger: Ledger, before: View, done: Sequence[Done], after: View) -> None:
    """Nodes are forgotten when they have been silent for a day beyond their lease, and no sooner."""
    expired = any(isinstance(one.call, calls.Expire) for one in done)
    for name, node in before.nodes.items():
        if name not in after.nodes:
            silent = ledger.now - ledger.must_live_until(name)
            demand(expired and silent >= calls.FORGET_SECONDS, f"{name} was forgotten after {silent:.0f} s of silence")
        elif expired and len(done) == 1 and done[0].answer.fine and not node.alive and not node.draining:
            silent = ledger.now - ledger.may_live_until(name)
            demand(silent <= calls.FORGET_SECONDS + 1, f"{name} is remembered after {silent:.0f} s of silence")


_LEASE = "the lease had run out"


class _Move:
    """One task's step."""

    def __init__(self, ledger: Ledger, old: TaskView, new: TaskView, done: Sequence[Done]) -> None:
        self.ledger, self.old, self.new, self.done = ledger, old, new, done
        self.text = f"{calls.brief(old)} → {calls.brief(new)} by {calls.brief([one.call for one in done])}"
        self.alone = len(done) == 1

    def check(self) -> None:
        old, new = self.old, self.new
        demand(not old.ended, f"an ended task changed: {self.text}")
        demand(new.attempt >= old.attempt, f"attempts go back: {self.text}")
        demand(new.cancel or not old.cancel, f"a cancellation was forgotten: {self.text}")
        demand(new.max_attempts == old.max_attempts, f"max_attempts changed: {self.text}")
        if new.cancel and not old.cancel:
            demand(self._cancelled(), f"nobody asked for it: {self.text}")
        if any(isinstance(one.call, calls.Restore) for one in self.done):
            self._restored()
            return
        # Of calls made at once, one may end an attempt and another be given the next.
        if not old.active or new.attempt > old.attempt:
            reports = [one.call for one in self.ends(old.attempt) if isinstance(one.call, calls.Report)]
            self.ledger.note_disruption(self.ledger.key(old.id, old.attempt), reports, sure=False)
        if new.attempt > old.attempt:
            self._assigned()
        if old.active and not (new.active and (new.attempt, new.node) == (old.attempt, old.node)):
            self._given_up()
        elif new.attempt == old.attempt and old.state != new.state:
            self._same_attempt()
        if new.ended:
            self._ended()
        self._disruptions()

    def _disruptions(self) -> None:
        new, ledger = self.new, self.ledger
        low, high = ledger.sure_disruptions[new.id], ledger.possible_disruptions[new.id]
        demand(low <= new.disruptions <= high, f"disruptions are {low} to {high}: {self.text}")

    def _cancelled(self) -> bool:
        return any(isinstance(one.call, calls.Cancel) and self.old.id in one.call.ids for one in self.done)

    def _restored(self) -> None:
        old, new = self.old, self.new
        demand(new.attempt == old.attempt, f"a restore made an attempt: {self.text}")
        if old.active:
            demand(not new.active, f"a restore gives up what was assigned: {self.text}")
            self.ledger.sure_disruptions[old.id] += not old.cancel
            self.ledger.possible_disruptions[old.id] += 1
            self._after_loss()

    def _assigned(self) -> None:
        old, new = self.old, self.new
        if self.alone:
            demand(new.attempt == old.attempt + 1, f"attempt numbers jump: {self.text}")
            demand(old.state == "queued" and not old.cancel, f"given out although it was not queued: {self.text}")
        # Of calls made at once, one may give an attempt up that another has just been given.
        lost_again = not self.alone and not new.active
        self.ledger.possible_disruptions[old.id] += lost_again
        polls = [
            one for one in self.done if isinstance(one.call, calls.Poll) and (lost_again or one.call.node == new.node)
        ]
        key = self.ledger.key(new.id, new.attempt)
        demand(
            any(one.answer.lost or key in {item.key for item in one.answer.assigned} for one in polls)
            or not self.alone,
            f"given to a node that did not ask: {self.text}",
        )
        demand(polls, f"given to a node that did not ask: {self.text}")
        low, _ = self.ledger.used_attempts(new.id, new.attempt)
        demand(low <= new.max_attempts, f"more attempts than max_attempts: {self.text}")

    def ends(self, attempt: int) -> Iterator[Done]:
        """Reports of an end that may have been accepted in this step for that attempt of this task."""
        key = self.ledger.key(self.old.id, attempt)
        for one in self.done:
            if not isinstance(one.call, calls.Report) or not one.call.status or one.call.key.task != self.old.id:
                continue
            counted = one.answer.lost or one.answer.verdict == "accepted"
            if counted and self.ledger.fenced(one.call) == key and self.ledger.owner.get(key) == one.call.node:
                yield one

    def _given_up(self) -> None:
        old = self.old
        key = self.ledger.key(old.id, old.attempt)
        accepted = list(self.ends(old.attempt))
        if accepted:
            self._took(key, accepted)
            return
        grounds = set(self._grounds(key))
        demand(grounds, f"given up without a reason: {self.text}")
        if self.alone:
            if grounds == {_LEASE}:
                self._lease_lost(key)
            elif _LEASE in grounds and self.ledger.sessions[old.node].stopped_in_order is not False:
                self.ledger.possible_disruptions[old.id] += 1  # which of them it was, one look cannot tell
            self._after_loss()
        else:
            self.ledger.possible_disruptions[old.id] += 1

    def _lease_lost(self, key: Key) -> None:
        """By a disruption where its node, or the pool itself, was stopped in order: then it uses up no attempt."""
        old, new = self.old, self.new
        in_order = self.ledger.sessions[old.node].stopped_in_order
        if in_order is not False:
            # It is not counted as one if the attempt goes on after all.
            self.ledger.possible_disruptions[old.id] += 1
        else:
            self.ledger.lease_lost.add(key)
            demand(new.disruptions <= old.disruptions, f"a lost lease is no disruption: {self.text}")
        if in_order and not new.cancel:
            many = self.ledger.possible_disruptions[old.id] >= calls.MAX_DISRUPTIONS
            demand(new.state == "queued" or many, f"a stop in order ends the task: {self.text}")
            demand(new.disruptions == old.disruptions + 1, f"a stop in order used up an attempt: {self.text}")

    def _took(self, key: Key, ends: Sequence[Done]) -> None:
        """One of these ends has been accepted."""
        reports = [one.call for one in ends if isinstance(one.call, calls.Report)]
        if len(ends) == 1 and ends[0].answer.lost:
            self.ledger.accepted[key] = reports[0].body
        self.ledger.note_disruption(key, reports, sure=len(ends) == 1 and not self.new.cancel)
        if self.alone:
            self._after_end(reports[0])

    def _grounds(self, key: Key) -> Iterator[str]:
        """Why an attempt may have been given up."""
        ledger, old = self.ledger, self.old
        for one in self.done:
            call = one.call
            if isinstance(call, calls.Expire):
                yield from self._expired(key)
            elif (
                not isinstance(call, calls.Register | calls.Beat | calls.Poll)
                or call.node != old.node
                or call.listed is None
                or key in ledger.listed(call)
            ):
                continue
            elif isinstance(call, calls.Register) and self._is_new_process(call):
                yield "a new process does not list it"
            elif isinstance(call, calls.Beat) and call.offline and call.session:
                # By a disruption; it is not counted as one if the attempt goes on after all.
                self.ledger.possible_disruptions[old.id] += 1
                yield "its node stops, and does not list it"
            elif isinstance(call, calls.Beat):
                since = max(ledger.given_at.get(key, -1e9), ledger.leases_since)
                if ledger.now > since + ledger.lease:
                    yield "given more than a lease ago, and not listed"
            elif isinstance(call, calls.Poll) and old.cancel and old.state == "assigned":
                yield "cancelled before it was received"

    def _expired(self, key: Key) -> Iterator[str]:
        if self.ledger.now >= self.ledger.must_live_until(self.old.node):
            yield _LEASE
        if self.ledger.now >= self.ledger.given_at.get(key, self.ledger.now) + calls.TIMEOUT_SECONDS:
            yield "its node has had it for too long"

    def _is_new_process(self, call: calls.Register) -> bool:
        session = self.ledger.sessions[self.old.node]
        new = not call.boot or call.boot != session.boot or session.unsure
        if new and calls.PROMISES.disruptions:
            self.ledger.possible_disruptions[self.old.id] += 1
        return new

    def _after_loss(self) -> None:
        old, new = self.old, self.new
        demand(new.attempt == old.attempt and not new.active, f"{self.text}: a loss leads to no new attempt by itself")
        demand(new.result is None, f"a loss has no result: {self.text}")
        self._tried_again()

    def _tried_again(self) -> None:
        """Where a task stands after an attempt that was not its last word."""
        old, new = self.old, self.new
        low, high = self.ledger.used_attempts(old.id, old.attempt)
        if new.cancel:
            demand(new.state == "cancelled", f"cancelled, and goes on: {self.text}")
        elif new.state == "queued":
            demand(low < new.max_attempts, f"attempts are used up, and it goes on: {self.text}")
        else:
            demand(new.state == "failed", self.text)
            many = self.ledger.possible_disruptions[old.id] >= calls.MAX_DISRUPTIONS
            demand(high >= new.max_attempts or many, f"given up with attempts left: {self.text}")

    def _after_end(self, report: calls.Report) -> None:
        new = self.new
        if (report.status == "failed" and is_nodes_fault(report.reason)) or (
            report.status == "cancelled" and not new.cancel
        ):
            self._tried_again()
        else:
            demand(new.state == report.status, f"the accepted end is {report}: {self.text}")

    def _same_attempt(self) -> None:
        """Moves within one attempt, or of a queued task."""
        old, new = self.old, self.new
        key = self.ledger.key(old.id, old.attempt)
        if new.state == "running" or new.active:
            self._taken_up(key)
        elif new.state == "cancelled" and not any(self.ends(old.attempt)):
            demand(old.state == "queued" and self._cancelled(), f"cancelled by nobody: {self.text}")
        elif new.ended:
            accepted = list(self.ends(old.attempt))
            demand(accepted, f"ended by nobody: {self.text}")
            self._took(key, accepted)

    def _taken_up(self, key: Key) -> None:
        """It starts; or its node comes back after its lease was lost and takes up what nobody else was given."""
        self.ledger.lease_lost.discard(key)
        new = self.new
        own = self.ledger.owner.get(key)
        demand(own == new.node, f"it is {own}'s: {self.text}")
        demand(key not in self.ledger.accepted, f"the attempt had ended: {self.text}")
        starts = [
            one
            for one in self.done
            if isinstance(one.call, calls.Report)
            and (one.call.node, one.call.status) == (own, "")
            and self.ledger.fenced(one.call) == key
        ]
        lists = [
            one
            for one in self.done
            if isinstance(one.call, calls.Register | calls.Beat | calls.Poll)
            and one.call.node == own
            and key in {self.ledger.own_epoch(item.key) for item in one.call.listed or ()}
        ]
        # What is listed with a run has been started, whether or not that was reported.
        demand(starts or lists, f"nobody said so: {self.text}")

    def _ended(self) -> None:
        new = self.new
        wished = self.old.cancel or new.cancel or self._cancelled()
        demand(new.state != "cancelled" or wished, f"cancelled by nobody: {self.text}")
        if new.result is None:
            demand(new.state != "completed", f"completed without a result: {self.text}")
            return
        report = self.ledger.sent.get(new.result)
        demand(report is not None, f"a result that nobody sent: {self.text}")
        assert report is not None
        key = self.ledger.key(new.id, new.attempt)
        demand(self.ledger.fenced(report) == key, f"the result of {report.key}: {self.text}")
        if calls.PROMISES.epochs:
            demand(report.key.epoch in {"", self.ledger.epoch}, f"a result of another epoch: {self.text}")
        holder = self.ledger.owner.get(key, new.node)
        demand(report.node == holder, f"{report.node}'s result of what {holder} was given: {self.text}")
