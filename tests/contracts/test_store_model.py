"""Any sequence of submissions, polls, reports, losses and restarts, against a model of a page that cannot be wrong."""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import hypothesis
import pytest
from hypothesis import stateful
from hypothesis import strategies as st

from hivemind_worker.nodepool import assignment
from hivemind_worker.nodepool.store import records, sqlite, store
from hivemind_worker.task import errors, outcome, resources

T = TypeVar("T")
LEASE = 10.0
NODES = ("n1", "n2")
ROOM = resources.Resources(8, 64 * resources.GIB, 100 * resources.GIB)
SHAPE = assignment.Shape("command", resources.Resources(1, resources.GIB, resources.GIB))
ENDINGS = {
    "completed": (outcome.Status.COMPLETED, None),
    "failed": (outcome.Status.FAILED, outcome.Reason.NONZERO_EXIT),
    "cancelled": (outcome.Status.CANCELLED, outcome.Reason.CANCELLED),
    "node's fault": (outcome.Status.FAILED, outcome.Reason.ENGINE_LOST),
}


@dataclasses.dataclass
class Task:
    """What must be true of one task."""

    id: str
    attempts: int
    state: str = "queued"
    attempt: int = 0
    holder: str = ""
    assigned_at: float = 0.0
    cancel: bool = False
    reported: dict[int, str] = dataclasses.field(default_factory=dict)
    given: dict[int, str] = dataclasses.field(default_factory=dict)
    result: bytes | None = None

    @property
    def held(self) -> bool:
        return self.state in ("assigned", "running")

    @property
    def ended(self) -> bool:
        return self.state in ("completed", "failed", "cancelled")

    def lose(self) -> None:
        if self.cancel:
            self.state = "cancelled"
        else:
            self.state = "queued" if self.attempt < self.attempts else "failed"

    def resumable(self, name: str, attempt: int) -> bool:
        return (
            self.state == "queued"
            and 0 < self.attempt == attempt
            and self.holder == name
            and attempt not in self.reported
        )


@dataclasses.dataclass
class Node:
    """What must be true of one node."""

    session: str = ""
    boot: int = 0
    lease_until: float = 0.0
    alive: bool = False
    faults: int = 0
    faulted_at: float = 0.0
    rest_until: float = 0.0
    knows: set[tuple[str, int]] = dataclasses.field(default_factory=set)

    def ended(self, given_at: float, now: float, *, at_fault: bool) -> None:
        """Incidents in a row count, each once, however many attempts it took."""
        if given_at <= self.faulted_at:
            return
        if at_fault:
            self.faults, self.faulted_at = self.faults + 1, now
            self.rest_until = now + (1, 4, 16, 60)[min(self.faults, 4) - 1]
        elif self.faults:
            self.faults, self.rest_until = 0, 0.0


class StoreMachine(stateful.RuleBasedStateMachine):
    """The store and the model, side by side."""

    def make(self, path: Path) -> store.Store:
        return sqlite.SqliteStore(path, LEASE, lambda: self.now)

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.kept = self.make(Path(self.folder.name) / "pool.sqlite")
        self.run(self.kept.open())
        self.leases_since = self.now
        self.tasks: dict[str, Task] = {}
        self.nodes = {name: Node() for name in NODES}

    def teardown(self) -> None:
        self.run(self.kept.close())
        self.runner.close()
        self.folder.cleanup()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @stateful.rule(count=st.integers(1, 3), attempts=st.integers(1, 3))
    def submit(self, count: int, attempts: int) -> None:
        new = [Task(f"t{len(self.tasks) + n:03}", attempts) for n in range(count)]
        asked = [records.NewTask(task.id, task.id.encode(), "", SHAPE, "", 0, attempts) for task in new]
        assert self.run(self.kept.submit(asked)) == tuple(task.id for task in new)
        self.tasks |= {task.id: task for task in new}

    @stateful.rule(name=st.sampled_from(NODES), same_process=st.booleans(), data=st.data())
    def register(self, name: str, same_process: bool, data: st.DataObject) -> None:
        node = self.nodes[name]
        anew = not (same_process and node.session)
        node.boot += anew
        if anew:  # it remembers what its journal has kept
            node.knows = data.draw(st.sets(st.sampled_from(sorted(node.knows)))) if node.knows else set()
        held = tuple(records.Ref(*each) for each in sorted(node.knows))
        opened = self.run(self.kept.register(records.NewNode(name, ROOM, str(node.boot)), held))
        assert (opened.session_id == node.session) is not anew
        node.session, node.lease_until, node.alive = opened.session_id, self.now + LEASE, True
        self.settle(name, opened.drop)
        for task in self.tasks.values():
            if anew and task.held and task.holder == name and (task.id, task.attempt) not in node.knows:
                task.lose()

    @stateful.rule(name=st.sampled_from(NODES))
    def heartbeat(self, name: str) -> None:
        node = self.nodes[name]
        held = tuple(records.Ref(*each) for each in sorted(node.knows))
        beat = records.Beat(name, node.session or "none", held=held)
        if not node.session:
            with pytest.raises(errors.UnknownNode):
                self.run(self.kept.heartbeat(beat))
            return
        told = self.run(self.kept.heartbeat(beat))
        node.lease_until, node.alive = self.now + LEASE, True
        self.settle(name, told.drop)
        for task in self.tasks.values():
            unlisted = task.held and task.holder == name and (task.id, task.attempt) not in node.knows
            if unlisted and max(task.assigned_at, self.leases_since) < self.now - LEASE:
                task.lose()
        wished = {
            (task.id, task.attempt) for task in self.tasks.values() if task.held and task.holder == name and task.cancel
        }
        assert {(ref.task_id, ref.attempt) for ref in told.cancel} == wished

    def settle(self, name: str, dropped: tuple[records.Ref, ...]) -> None:
        """What it lists and nobody else was given is its own again; all else that is not its own it must drop."""
        self.take_back(name)
        gone = set()
        for task_id, attempt in self.nodes[name].knows:
            task = self.tasks[task_id]
            if not (task.held and task.holder == name and task.attempt == attempt):
                gone.add((task_id, attempt))
        assert {(ref.task_id, ref.attempt) for ref in dropped} == gone
        self.nodes[name].knows -= gone

    def take_back(self, name: str) -> None:
        for task_id, attempt in self.nodes[name].knows:
            task = self.tasks[task_id]
            if task.resumable(name, attempt):
                task.state, task.assigned_at = "assigned", self.now

    @stateful.rule(names=st.permutations(NODES), most=st.integers(1, 3), arrives=st.booleans())
    def poll(self, names: list[str], most: int, arrives: bool) -> None:
        names = [name for name in names if self.nodes[name].session]
        polls = [
            records.Poll(name, self.nodes[name].session, ROOM, most=most, held=frozenset(self.nodes[name].knows))
            for name in names
        ]
        given = self.run(self.kept.hand_out(polls))
        for name in names:
            if not self.nodes[name].alive:
                self.take_back(name)
        lost = {name: self.lost_answers(name) for name in names}
        waiting = sorted(task.id for task in self.tasks.values() if task.state == "queued")
        new = []
        for name, answer in zip(names, given, strict=True):
            node = self.nodes[name]
            if not node.alive or node.lease_until - self.now <= 0.75 * LEASE:
                node.lease_until, node.alive = self.now + LEASE, True
            got = {(handed.task_id, handed.attempt) for handed in answer.tasks}
            assert all(handed.body == handed.task_id.encode() for handed in answer.tasks)
            assert {(ref.task_id, ref.attempt) for ref in answer.cancel} == {
                (task.id, task.attempt)
                for task in self.tasks.values()
                if task.held and task.holder == name and task.cancel
            }
            if lost[name]:
                assert got == lost[name]
                for task_id, _ in got:
                    self.tasks[task_id].assigned_at = self.now
            elif not answer.cancel and node.rest_until > self.now:
                assert not got
                assert answer.again_in == pytest.approx(node.rest_until - self.now)
            elif not answer.cancel:
                new += [(task_id, attempt, name) for task_id, attempt in got]
                assert len(got) <= most
            else:
                assert not got
            if arrives:
                node.knows |= got
        takers = sum(
            not lost[name] and not answer.cancel and self.nodes[name].rest_until <= self.now
            for name, answer in zip(names, given, strict=True)
        )
        assert sorted(task_id for task_id, _, _ in new) == waiting[: most * takers]  # the oldest, and each once
        for task_id, attempt, name in new:
            task = self.tasks[task_id]
            assert attempt == task.attempt + 1
            assert attempt not in task.given
            task.attempt, task.holder, task.state, task.assigned_at = attempt, name, "assigned", self.now
            task.given[attempt] = name

    def lost_answers(self, name: str) -> set[tuple[str, int]]:
        """What it was given and does not know of; what was cancelled of that has ended."""
        found = set()
        for task in self.tasks.values():
            unknown = (task.id, task.attempt) not in self.nodes[name].knows
            if task.state == "assigned" and task.holder == name and unknown:
                if task.cancel:
                    task.state = "cancelled"
                else:
                    found.add((task.id, task.attempt))
        return found

    @stateful.precondition(lambda self: any(task.given for task in self.tasks.values()))
    @stateful.rule(
        data=st.data(), how=st.sampled_from([*ENDINGS, "running"]), numbered=st.booleans(), answered=st.booleans()
    )
    def report(self, data: st.DataObject, how: str, numbered: bool, answered: bool) -> None:
        task = self.tasks[data.draw(st.sampled_from(sorted(t.id for t in self.tasks.values() if t.given)))]
        attempt = data.draw(st.sampled_from(sorted(task.given)))
        name = task.given[attempt]
        if not numbered:
            attempt = max(number for number, holder in task.given.items() if holder == name)
        body = f"{how} {attempt} {len(task.reported)}".encode()
        status, reason = ENDINGS.get(how, (None, None))
        again = reason is not None and outcome.FAULTS[reason] is outcome.Fault.NODE
        said = records.Report(
            task.id,
            name,
            self.nodes[name].session,
            attempt if numbered else 0,
            status,
            reason=str(reason or ""),
            try_again=again,
            body=body,
        )
        assert self.run(self.kept.report(said)).verdict == self.verdict(task, attempt, how, body)
        if how != "running" and answered:
            self.nodes[name].knows.discard((task.id, attempt))

    def verdict(self, task: Task, attempt: int, how: str, body: bytes) -> str:
        if attempt in task.reported:
            return task.reported[attempt]
        if task.ended or attempt < task.attempt:
            if how != "running":
                task.reported[attempt] = "stale"
            return "stale"
        if how == "running":
            task.state = "running"
            return "accepted"
        task.reported[attempt] = "duplicate"  # which the same report would be from now on
        self.nodes[task.holder].ended(task.assigned_at, self.now, at_fault=how == "node's fault")
        if how == "node's fault" and not task.cancel and task.attempt < task.attempts:
            task.state = "queued"
            return "accepted"
        assert task.result is None, "a second result"
        task.result = body
        task.state = "failed" if how == "node's fault" else how
        if how == "node's fault" and task.cancel:
            task.state = "cancelled"
        return "accepted"

    @stateful.precondition(lambda self: self.tasks)
    @stateful.rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        task = self.tasks[data.draw(st.sampled_from(sorted(self.tasks)))]
        self.run(self.kept.cancel([task.id]))
        if task.state == "queued":
            task.state = "cancelled"
        elif task.held:
            task.cancel = True

    @stateful.rule(seconds=st.sampled_from([1.0, LEASE / 2, LEASE + 1]))
    def time_goes_by(self, seconds: float) -> None:
        self.now += seconds
        lost = self.run(self.kept.expire())
        late = {name for name, node in self.nodes.items() if node.alive and node.lease_until < self.now}
        assert set(lost.nodes) == late
        for name in late:
            self.nodes[name].alive = False
        for task in self.tasks.values():
            if task.held and task.holder in late:
                task.lose()

    @stateful.rule()
    def start_again(self) -> None:
        self.run(self.kept.close())
        self.kept = self.make(Path(self.folder.name) / "pool.sqlite")
        self.run(self.kept.open())
        self.leases_since = self.now
        for node in self.nodes.values():
            if node.alive:
                node.lease_until = self.now + LEASE

    @stateful.invariant()
    def both_agree(self) -> None:
        found = self.run(self.kept.tasks(sorted(self.tasks)))
        assert {task.id: (str(task.state), task.attempt, task.result) for task in found} == {
            task.id: (task.state, task.attempt, task.result) for task in self.tasks.values()
        }


StoreMachine.TestCase.settings = hypothesis.settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
TestAgainstTheModel = StoreMachine.TestCase
