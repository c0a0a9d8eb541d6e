"""Nodes of the delivery model: what each process knows, what it sends, and how it lies when it is told to."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import model_calls as calls
from hypothesis import strategies as st
from model_calls import Done, Key, Listed, Refusal
from model_ledger import is_nodes_fault

from hivemind_worker import units
from hivemind_worker.tasks import resources

GIB = units.GIB
NEEDS = (
    resources.Resources(1, GIB, GIB),
    resources.Resources(2, 4 * GIB, GIB),
    resources.Resources(4, 8 * GIB, GIB),
)
SMALL = resources.Resources(2, 4 * GIB, 50 * GIB)
MEDIUM = resources.Resources(4, 16 * GIB, 50 * GIB)
LARGE = resources.Resources(8, 64 * GIB, 50 * GIB)
HUGE = resources.Resources(10_000, 10_000 * GIB, 10_000 * GIB)

OUTCOMES: tuple[tuple[str, str], ...] = (
    ("failed", "engine_lost"),
    ("completed", ""),
    ("failed", "node_shutdown"),
    ("failed", "worker_crash"),
    ("completed", ""),
    ("failed", "nonzero_exit"),
    ("failed", "engine_lost"),
    ("cancelled", "cancelled"),
)

_numbers = itertools.count(1)


@dataclass
class Run:
    """One attempt as its node's process knows it. ``run`` is made before the start."""

    key: Key
    run: str = ""
    cancelled: bool = False


@dataclass
class Peer:
    """A node. Its process may be started again, with what its journal has; its folder may be copied."""

    name: str
    capacity: resources.Resources
    zone: str = ""
    max_tasks: int = 0
    legacy: bool = False
    """The reference document's client: no boot id, no session, one attempt at a time."""
    says_free: bool = False
    boot: int = 0
    lock: str = ""
    session: str = ""
    epoch: str = ""
    away: bool = True
    """Not registered, or thrown out."""
    runs: dict[Key, Run] = field(default_factory=dict)

    def new_process(self, *, journal: bool, cloned: bool) -> None:
        """Start the process again: with its journal it remembers what it had been told to start."""
        self.boot += 1
        self.lock = f"lock of {self.name}{f' copied {next(_numbers)}' if cloned else ''}"
        self.runs = {key: run for key, run in self.runs.items() if journal and run.run}

    @property
    def boot_id(self) -> str:
        return "" if self.legacy else f"{self.name} {self.boot}"

    @property
    def listed(self) -> tuple[Listed, ...]:
        return tuple(Listed(run.key, run.run) for run in self.runs.values())

    def register(self, listed: Sequence[Listed] | None = None) -> calls.Register:
        own = self.listed if listed is None else tuple(listed)
        return calls.Register(
            self.name,
            self.boot_id,
            "" if self.legacy else self.lock,
            self.capacity,
            self.zone,
            self.max_tasks,
            () if self.legacy else own,
        )

    def beat(self, listed: Sequence[Listed] | None = None) -> calls.Beat:
        if self.legacy:
            return calls.Beat(self.name, "", None)
        return calls.Beat(self.name, self.session, self.listed if listed is None else tuple(listed))

    def poll(
        self, specs: dict[str, calls.Spec], max_tasks: int = 1, *, paused: bool = False, lies: Sequence[Listed] = ()
    ) -> calls.Poll:
        if self.legacy:
            return calls.Poll(self.name, "")
        free = None
        if self.says_free:
            used = resources.Resources()
            for key in self.runs:
                used += specs[key.task].needs if key.task in specs else resources.Resources()
            free = (self.capacity - used).at_least(resources.Resources())
        return calls.Poll(self.name, self.session, free, max_tasks, paused, (*self.listed, *lies))

    def start(self, key: Key) -> calls.Report:
        """Tell that an attempt runs; its run id is made, and journalled, before."""
        run = self.runs[key]
        run.run = run.run or f"{next(_numbers):032x}"
        return self._report(key, run.run)

    def end(self, key: Key, status: str, reason: str) -> calls.Report:
        """Tell how an attempt ended; the run stays in the outbox until the pool has answered."""
        run = self.runs[key]
        run.run = run.run or f"{next(_numbers):032x}"
        return self._report(key, run.run, status, reason)

    def _report(self, key: Key, run: str, status: str = "", reason: str = "") -> calls.Report:
        body = f"{status} {reason} of {key.epoch[:8]}/{key.task}/{key.attempt} by {self.name}, #{next(_numbers)}"
        # Two of three failures by its own fault it has seen for itself: not drawn, which would make other examples.
        is_seen = is_nodes_fault(reason) and reason != "node_shutdown" and (key.attempt + len(self.name)) % 3
        check = "failed" if is_seen else ""
        if self.legacy:
            key, run = Key("", key.task, 0), ""
        return calls.Report(
            self.name, "" if self.legacy else self.session, key, run, status, reason, body if status else "", check
        )

    def hear(self, one: Done) -> None:
        """Take an answer. One of a former session is not for this process."""
        call, answer = one.call, one.answer
        if answer.lost:
            return
        if answer.refusal in {Refusal.UNKNOWN_NODE, Refusal.REPLACED, Refusal.REJECTED}:
            self.away = self.away or getattr(call, "session", self.session) == self.session
            return
        if isinstance(call, calls.Register):
            self.session, self.away = ("" if self.legacy else answer.session), False
            if answer.epoch != self.epoch:
                self.runs = {key: run for key, run in self.runs.items() if key.epoch == answer.epoch}
            self.epoch = answer.epoch
        for item in answer.assigned:
            self.runs.setdefault(item.key, Run(item.key))
        for key in answer.cancel:
            if key in self.runs:
                self.runs[key].cancelled = True
        for key in answer.drop:
            self.runs.pop(key, None)
        if isinstance(call, calls.Report) and call.status and answer.verdict:
            for key in [key for key in self.runs if key == call.key or (self.legacy and key.task == call.key.task)]:
                del self.runs[key]


def fleet() -> dict[str, Peer]:
    """The nodes of one example: of several sizes, one that counts its own room, one that knows no sessions."""
    peers = (
        Peer("small", SMALL),
        Peer("medium", MEDIUM, says_free=True),
        Peer("large", LARGE, zone="a", max_tasks=3),
        Peer("legacy", MEDIUM, legacy=True),
    )
    for peer in peers:
        peer.new_process(journal=True, cloned=False)
    return {peer.name: peer for peer in peers}


def lies(data: st.DataObject, listed: Sequence[Listed], everything: Sequence[Key]) -> tuple[Listed, ...]:
    """Leave some out of a list, and invent others: other nodes' attempts, older and newer ones, no tasks at all."""
    left = [item for item in listed if data.draw(st.booleans(), label="listed")]
    invented = []
    if data.draw(st.booleans(), label="invents") and everything:
        key = data.draw(st.sampled_from(everything), label="invented")
        attempt = max(key.attempt + data.draw(st.sampled_from((0, 1, -1)), label="off by"), 1)
        invented.append(Listed(Key(key.epoch, key.task, attempt)))
    if data.draw(st.integers(0, 9), label="nonsense") == 0:
        invented.append(Listed(Key("", "no such task", 1)))
    known = {item.key for item in left}
    return (*left, *(item for item in invented if item.key not in known))
