"""What the delivery model remembers: who was given what, what was answered, whose lease must still hold."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import model_calls as calls
from model_calls import Done, Key, View

from hivemind_worker.tasks import outcome, resources


class Broken(AssertionError):
    """A promise was broken."""


def demand(truth: object, text: str) -> None:
    """Raise :class:`Broken` with ``text`` unless ``truth``."""
    if not truth:
        raise Broken(text)


def is_nodes_fault(reason: str) -> bool:
    """Whether the pool has to try again after an attempt that ended so: the closed list of reasons says whose fault."""
    return bool(reason) and outcome.FAULTS[outcome.Reason(reason)] is outcome.Fault.NODE


@dataclass
class Session:
    """What is certain about a node's session. Times are the model's own, monotonic."""

    current: str = ""
    boot: str = ""
    lock: str = ""
    past: set[str] = field(default_factory=set)
    renewed: float = -1e9
    """The last call that must have renewed the lease."""
    maybe_renewed: float = -1e9
    """The last call that may have."""
    unsure: bool = False
    """A registration was lost in a crash: the session may be another."""
    faulted_at: float = -1e9
    """When it last reported an end that was its own fault: it may rest."""
    handed_back: set[tuple[resources.Resources, str]] = field(default_factory=set)
    """The needs and zones of tasks that it handed back: it may rest from such tasks."""
    draining: bool | None = False
    unheard: bool | None = False
    """Whether nothing was heard of it since the pool itself was stopped in order; None: that is not sure."""
    is_last_beat_unsure: bool = False
    """Whether several calls were made at once, and which one came last is not known."""
    offline: bool | None = False
    """Whether its last heartbeat said that the node stops; None: that beat was lost in a crash."""

    @property
    def stopped_in_order(self) -> bool | None:
        """Whether what it holds is lost by an orderly stop, its own or the pool's; None: that is not sure."""
        if self.unheard or (self.offline and not self.is_last_beat_unsure):
            return True
        return None if self.unheard is None or self.offline is None or self.is_last_beat_unsure else False


@dataclass
class Ledger:
    """All facts. What belongs to an epoch is keyed by it; tasks and keys go back with a restore."""

    lease: float
    asks_incumbent: bool = False
    now: float = 0.0
    leases_since: float = 0.0
    opened_at: float = 0.0
    epoch: str = ""
    specs: dict[str, calls.Spec] = field(default_factory=dict)
    order: dict[str, int] = field(default_factory=dict)
    requests: dict[str, tuple[calls.Submit | calls.Retry, tuple[str, ...]]] = field(default_factory=dict)
    """Idempotency key → the call that it stands for, and the ids that were answered."""
    owner: dict[Key, str] = field(default_factory=dict)
    given_at: dict[Key, float] = field(default_factory=dict)
    started: set[Key] = field(default_factory=set)
    accepted: dict[Key, str] = field(default_factory=dict)
    """Attempts whose end was accepted, and that end's body."""
    bound: dict[Key, str] = field(default_factory=dict)
    """The first run that was seen of an attempt; "?" where a call that was lost in a crash may have shown one."""
    unsure: set[Key] = field(default_factory=set)
    """Attempts with an end that was lost in a crash and may have been accepted."""
    sent: dict[str, calls.Report] = field(default_factory=dict)
    sure_disruptions: Counter[str] = field(default_factory=Counter)
    possible_disruptions: Counter[str] = field(default_factory=Counter)
    disrupted: set[Key] = field(default_factory=set)
    lease_lost: set[Key] = field(default_factory=set)
    """Attempts that were surely given up for their lease alone, and never went on."""
    late_ends: set[Key] = field(default_factory=set)
    """Attempts with an end that is on record, or may be, and is not the task's result."""
    sessions: dict[str, Session] = field(default_factory=dict)
    legacy: set[str] = field(default_factory=set)
    inherited: dict[str, int] = field(default_factory=dict)
    """The newest attempt of each task when the store was restored: given in another epoch."""

    def key(self, task_id: str, attempt: int) -> Key:
        return Key(self.epoch, task_id, attempt)

    def fenced(self, report: calls.Report) -> Key:
        """The attempt that a report is about: 0 stands for the newest that its node was given."""
        if report.key.attempt:
            return self.own_epoch(report.key)
        own = [
            key.attempt
            for key, node in self.owner.items()
            if node == report.node and (key.epoch, key.task) == (self.epoch, report.key.task)
        ]
        return self.key(report.key.task, max(own, default=0))

    def own_epoch(self, key: Key) -> Key:
        """A key without an epoch is taken to be of this one: an older worker's."""
        return key if key.epoch else self.key(key.task, key.attempt)

    def listed(self, call: calls.Register | calls.Beat | calls.Poll) -> set[Key]:
        """What a call lists of this epoch and of the runs that the attempts are bound to."""
        return {self.own_epoch(item.key) for item in call.listed or () if not self.foreign(item)}

    def foreign(self, item: calls.Listed) -> bool:
        """Whether what is listed is of another epoch or of another run than the attempt is bound to."""
        key = self.own_epoch(item.key)
        other = item.run and self.bound.get(key, item.run) != item.run
        return key.epoch != self.epoch or bool(other and calls.PROMISES.run_ids)

    def must_live_until(self, node: str) -> float:
        """Until when a node's lease holds by what was promised."""
        return max(self.sessions[node].renewed, self.leases_since) + self.lease

    def may_live_until(self, node: str) -> float:
        """After this moment the lease has run out, whatever renewed it."""
        session = self.sessions.get(node)
        return max(session.maybe_renewed if session else -1e9, self.leases_since) + self.lease

    def may_rest(self, node: str) -> bool:
        """Whether a node may be given nothing for a while. After a crash the pool's clock goes on a lease before."""
        faulted_at = self.sessions[node].faulted_at
        longest = calls.MAX_REST_SECONDS + (self.lease if self.opened_at > faulted_at else 0.0)
        return faulted_at > -1e9 and self.now <= max(faulted_at, self.opened_at) + longest

    def opened(self, *, in_order: bool = False) -> None:
        """The pool is back: leases begin anew. ``in_order``: it was stopped, and did not crash."""
        self.leases_since = self.opened_at = self.now
        if in_order:
            for session in self.sessions.values():
                session.unheard = True

    def used_attempts(self, task_id: str, attempt: int) -> tuple[int, int]:
        """How many of max_attempts are used up: at least, and at most."""
        return attempt - self.possible_disruptions[task_id], attempt - self.sure_disruptions[task_id]

    def note_disruption(self, key: Key, accepted: Sequence[calls.Report], *, sure: bool) -> None:
        """An orderly stop of its node ended the attempt, or may have: no attempt is used up.

        A node that says "cancelled" of what no submitter wished to cancel has stopped it by itself.
        """
        if not calls.PROMISES.disruptions or key in self.disrupted:
            return
        if any(report.reason in {"node_shutdown", "cancelled"} for report in accepted):
            self.disrupted.add(key)
            self.possible_disruptions[key.task] += 1
            self.sure_disruptions[key.task] += sure

    # -- facts, taken note of after the checks of a step -------------------------------------------------------------

    def note(self, done: Sequence[Done], before: View, after: View) -> None:
        self.epoch = after.epoch
        for one in done:
            if isinstance(one.call, calls.Submit | calls.Retry):
                self._note_request(one.call, one.answer, before, after)
            else:
                self._note_call(one)
        for task in after.tasks.values():
            if task.attempt > self.inherited.get(task.id, 0) and task.node:
                key = self.key(task.id, task.attempt)
                self.own(key, task.node)
                if task.state == "running":
                    self.started.add(key)
        for one in done:
            self._note_runs(one, after)
        if len(done) > 1:
            for session in (self.sessions.get(getattr(one.call, "node", "")) for one in done):
                if session is not None:
                    session.is_last_beat_unsure = True
        for name in before.nodes.keys() - after.nodes.keys():
            self.sessions.pop(name, None)

    def _note_runs(self, one: Done, after: View) -> None:
        call, answer = one.call, one.answer
        if answer.refusal is not None or not isinstance(call, calls.Register | calls.Beat | calls.Report):
            return
        shown: list[calls.Listed] = []
        if not isinstance(call, calls.Report):
            shown = [item for item in call.listed or () if item.run]
        elif call.run and (answer.lost or answer.verdict == "accepted"):
            shown = [calls.Listed(self.fenced(call), call.run)]
        for item in shown:
            key = self.own_epoch(item.key)
            task = after.tasks.get(key.task)
            if self.owner.get(key) == call.node and task is not None and task.attempt == key.attempt:
                unsure = answer.lost or len(shown) != len({entry.key for entry in shown})
                self.bound.setdefault(key, "?" if unsure else item.run)

    def own(self, key: Key, node: str) -> None:
        holder = self.owner.setdefault(key, node)
        demand(holder == node, f"{key} was given to {holder}, and then to {node}")
        self.given_at.setdefault(key, self.now)

    def _note_call(self, one: Done) -> None:
        match one.call:
            case calls.Register():
                self._note_session(one.call, one.answer)
            case calls.Beat() | calls.Poll() | calls.Report():
                self._note_lease(one.call, one.answer)
            case calls.Drain():
                session = self.sessions.get(one.call.node)
                if session and one.answer.refusal is None:
                    session.draining = None if one.answer.lost else one.call.draining
            case calls.BeginAnew() if one.answer.fine:
                self.leases_since = self.now
            case _:
                pass

    def _note_request(self, call: calls.Submit | calls.Retry, answer: calls.Answer, before: View, after: View) -> None:
        """A request whose answer was lost was kept, with its key, exactly if its new tasks are there."""
        new = after.tasks.keys() - before.tasks.keys()
        if isinstance(call, calls.Submit):
            ids = tuple(spec.id for spec in call.specs)
        else:
            by_old = {after.tasks[task_id].retry_of: task_id for task_id in new}
            ids = tuple(by_old.get(task_id, "") for task_id in call.ids)
        if call.request_key and answer.refusal is None and call.request_key not in self.requests:
            if answer.lost and not new.issuperset(ids):
                return
            self.requests[call.request_key] = (call, answer.ids or ids)

    def _note_session(self, call: calls.Register, answer: calls.Answer) -> None:
        if answer.refusal is not None:
            return
        session = self.sessions.setdefault(call.node, Session(draining=False))
        session.maybe_renewed = self.now
        session.unheard = None if answer.lost and session.unheard else False
        if answer.lost:
            session.unsure = True
            return
        session.is_last_beat_unsure = False
        if answer.session != session.current:
            session.past.add(session.current)
            # What a process with another state folder loses it is not offered for a while, as what it hands back.
            if call.lock != session.lock:
                session.handed_back |= {spec.shape for spec in self.specs.values()}
            session.current = answer.session
        session.boot, session.lock, session.unsure, session.offline = call.boot, call.lock, False, False
        session.renewed = self.now

    def _note_lease(self, call: calls.Beat | calls.Poll | calls.Report, answer: calls.Answer) -> None:
        session = self.sessions.get(call.node)
        if session is None or answer.refusal is not None:
            return
        session.maybe_renewed = self.now
        if session.unheard is not False:
            session.unheard = None if answer.lost or isinstance(call, calls.Report) else False
        if isinstance(call, calls.Beat):
            session.is_last_beat_unsure = answer.lost
            session.offline = None if answer.lost else call.offline
            if call.offline:  # what it was given and never received it is not offered for a while
                session.handed_back |= {spec.shape for spec in self.specs.values()}
        if answer.fine and not isinstance(call, calls.Report):
            # A poll leaves three quarters of a lease at least: docs/why/leases.md.
            spent = self.lease / 4 if isinstance(call, calls.Poll) else 0.0
            session.renewed = max(session.renewed, self.now - spent)
        if isinstance(call, calls.Report):
            self._note_report(session, call, answer)

    def _note_report(self, session: Session, call: calls.Report, answer: calls.Answer) -> None:
        key = self.fenced(call)
        if call.status and (answer.lost or answer.verdict == "stale"):
            self.late_ends.add(key)
        if answer.lost and call.status and key not in self.accepted:
            self.unsure.add(key)
        if call.status and call.reason in {outcome.Reason.NODE_SHUTDOWN, outcome.Reason.CANCELLED}:
            if call.key.task in self.specs:
                session.handed_back.add(self.specs[call.key.task].shape)
        elif call.status and is_nodes_fault(call.reason) and call.check == outcome.NodeCheck.FAILED:
            session.faulted_at = self.now
        elif call.status and is_nodes_fault(call.reason) and call.key.task in self.specs:
            # All tasks here are of one author: such a one is held back, and the node gets all others.
            session.handed_back.add(self.specs[call.key.task].shape)
        if answer.verdict == "accepted":
            if call.status:
                self.accepted[key] = call.body
                self.note_disruption(key, [call], sure=False)
                self.unsure.discard(key)
            else:
                self.started.add(key)

    # -- backups -------------------------------------------------------------------------------------------------------

    def save(self) -> object:
        """Remember what a backup of the store holds."""
        return copy.deepcopy((self.specs, self.order, self.requests, self.sure_disruptions, self.possible_disruptions))

    def restore(self, saved: object | None) -> None:
        """Go back to a backup (None: to an empty store). Every session is forgotten; attempts stay with their epoch."""
        parts = copy.deepcopy(saved) or ({}, {}, {}, Counter(), Counter())
        assert isinstance(parts, tuple)
        self.specs, self.order, self.requests, self.sure_disruptions, self.possible_disruptions = parts
        self.legacy = {name for name, session in self.sessions.items() if not session.boot}
        self.sessions.clear()

    def restored(self, after: View) -> None:
        """Nodes are known from the backup, their sessions are not; attempts of before are nobody's in this epoch."""
        self.epoch = after.epoch
        self.inherited = {task.id: task.attempt for task in after.tasks.values()}
        for node in after.nodes.values():
            legacy = node.name in self.legacy
            self.sessions[node.name] = Session("" if legacy else "(forgotten)", "" if legacy else "?", unsure=legacy)
            self.sessions[node.name].draining = node.draining
