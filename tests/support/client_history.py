"""A chaos run as its clients saw it: calls, observations, faults and evidence, read from JSON lines. Stdlib alone.

Every time is in seconds of this machine's monotonic clock, which no clock step touches and all processes share.
`chaos_record` writes the file; `client_checker` judges it. Neither this file nor the checker imports the product.
"""

from __future__ import annotations

import collections
import functools
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ENDED = frozenset({"completed", "failed", "cancelled"})
NODE_FAULTS = frozenset({"engine_lost", "node_shutdown", "worker_crash", "internal"})
"""Reasons that blame the node: an attempt that ends so says nothing about its task."""

OK, REFUSED, UNKNOWN = "ok", "refused", "unknown"


@dataclass(frozen=True, slots=True)
class Call:
    """One client call. ``end`` is infinite and ``outcome`` unknown where no answer came back."""

    number: int
    name: str
    args: Mapping[str, Any]
    begin: float
    end: float = math.inf
    outcome: str = UNKNOWN
    value: Any = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """A task's state as one read showed it. ``story`` is empty where that read carries none.

    ``losses``: why an attempt was lost, in the words of that history, by the attempt's number as text.
    """

    task: str
    begin: float
    end: float
    state: str
    attempt: int
    reason: str = ""
    exit_code: int | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    cancel_requested: bool = False
    story: tuple[tuple[str, int, str], ...] = ()
    flags: tuple[str, ...] = ()
    disruptions: int = 0
    losses: Mapping[str, str] = field(default_factory=dict)
    call: str = ""

    @property
    def ended(self) -> bool:
        """Whether the task has ended."""
        return self.state in ENDED

    @property
    def result(self) -> tuple[object, ...]:
        """What must never change once it was seen."""
        return self.state, self.reason, self.exit_code, self.attempt


@dataclass(frozen=True, slots=True)
class Planned:
    """What one submission must come to. ``lines`` of output begin with the number ``first``.

    ``label`` is what its program prints and bears on its command line: the task's id and which command under that id.
    ``files`` maps a result's name to its SHA-256, or to "" where its content names the run.
    """

    task: str
    label: str
    status: str = "completed"
    reason: str = ""
    exit_code: int | None = 0
    first: int = 0
    lines: int = 0
    files: Mapping[str, str] = field(default_factory=dict)
    may_be_cancelled: bool = False
    max_attempts: int = 3
    era: int = 0

    def output(self, nonce: str) -> str:
        """What its program prints in the run of this nonce."""
        numbers = "".join(f"{nonce} {number}\n" for number in range(self.first, self.first + self.lines))
        return f"run {nonce} {self.label}\n{numbers}end {nonce}\n"


@dataclass(frozen=True, slots=True)
class Execution:
    """A task's process that really ran on this machine, from evidence: its nonce, its node, when it was alive."""

    label: str
    nonce: str
    process: str
    node: str
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class Fault:
    """What was done to ``who`` (a node, ``pool``, ``engine``, ``machine``) from ``begin`` to ``end``.

    ``settled``: with its healing. ``nodes``: who else is struck by it.
    """

    what: str
    who: str
    begin: float
    end: float
    settled: float
    nodes: tuple[str, ...] = ()

    def hits(self, node: str) -> bool:
        """Whether an attempt at that node may have been lost by it."""
        return self.who in {node, "pool", "machine"} or node in self.nodes or not node


@dataclass(frozen=True, slots=True)
class Rollback:
    """The pool's memory was set back while it stood still: to nothing, or to a backup made from ``saved_begin`` on."""

    what: str
    begin: float
    end: float
    saved_begin: float = -math.inf


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a run may cost. Shares are of all tasks; times in seconds of this run's machine."""

    lease_seconds: float = 4.0
    grace_seconds: float = 1.0
    slack_seconds: float = 5.0
    max_disruptions: int = 30
    max_reexecuted_share: float = 0.6
    max_wasted_share: float = 0.8
    max_given_up_share: float = 0.08
    max_recovery_seconds: float = 60.0


@dataclass(frozen=True)
class History:
    """All of one run."""

    calls: tuple[Call, ...] = ()
    seen: tuple[Seen, ...] = ()
    planned: tuple[Planned, ...] = ()
    executions: tuple[Execution, ...] = ()
    faults: tuple[Fault, ...] = ()
    rollbacks: tuple[Rollback, ...] = ()
    recoveries: tuple[tuple[str, float], ...] = ()
    leftovers: tuple[str, ...] = ()
    bounds: Bounds = field(default_factory=Bounds)

    def era(self, begin: float, end: float) -> int | None:
        """Which stretch between two rollbacks a read falls into; None where it touches one."""
        number = 0
        for rollback in self.rollbacks:
            if begin < rollback.end and end > rollback.begin:
                return None
            number += begin >= rollback.end
        return number

    def by_task(self, *, last_era: bool = False) -> Mapping[str, list[Seen]]:
        """Reads of each task in order of their ends, those that touch a rollback left out."""
        return self._reads_of_last_era if last_era else self._reads

    @functools.cached_property
    def _reads(self) -> Mapping[str, list[Seen]]:
        reads = collections.defaultdict(list)
        for seen in sorted(self.seen, key=lambda seen: seen.end):
            if self.era(seen.begin, seen.end) is not None:
                reads[seen.task].append(seen)
        return reads

    @functools.cached_property
    def _reads_of_last_era(self) -> Mapping[str, list[Seen]]:
        since = self.rollbacks[-1].end if self.rollbacks else -math.inf
        reads = {
            task: [seen for seen in seen_so_far if seen.begin >= since] for task, seen_so_far in self._reads.items()
        }
        return {task: seen for task, seen in reads.items() if seen}

    @property
    def current_tasks(self) -> frozenset[str]:
        """Every id that was submitted in the last era."""
        return frozenset(planned.task for planned in self.planned if planned.era == len(self.rollbacks))

    def plan(self, task: str, era: int) -> Planned | None:
        """The submission under that id that counts in that era."""
        plans = [planned for planned in self._plans.get(task, ()) if planned.era <= era]
        return max(plans, key=lambda planned: planned.era, default=None)

    @functools.cached_property
    def _plans(self) -> Mapping[str, list[Planned]]:
        plans = collections.defaultdict(list)
        for planned in self.planned:
            plans[planned.task].append(planned)
        return plans


def read(lines: Iterable[str]) -> History:
    """Read a history from its JSON lines; a last line that a kill cut in two is passed over.

    Raises:
        ValueError: a line that is none of ours.
    """
    invoked: dict[int, dict[str, Any]] = {}
    answers: dict[int, dict[str, Any]] = {}
    parts: dict[str, list[Any]] = collections.defaultdict(list)
    bounds = Bounds()
    texts = [text for text in lines if text.strip()]
    for number, text in enumerate(texts):
        try:
            row = json.loads(text)
        except ValueError:
            if number == len(texts) - 1:
                break
            raise
        kind = row.pop("kind")
        if kind == "call":
            invoked[row["n"]] = row
        elif kind == "answer":
            answers[row["n"]] = row
        elif kind == "bounds":
            bounds = Bounds(**row)
        elif kind in _ROWS:
            parts[kind].append(_ROWS[kind](row))
        else:
            raise ValueError(f"line {number + 1}: {kind!r} is no kind of line")
    calls = tuple(_call(row, answers.get(number)) for number, row in sorted(invoked.items()))
    seen = [*parts["seen"], *(sighting for call in calls for sighting in _sightings(call))]
    return History(
        calls,
        tuple(seen),
        tuple(parts["planned"]),
        tuple(parts["execution"]),
        tuple(parts["fault"]),
        tuple(parts["rollback"]),
        tuple(parts["recovery"]),
        tuple(parts["left"]),
        bounds,
    )


def load(path: Path) -> History:
    """Read a history file."""
    with path.open(encoding="utf-8") as file:
        return read(file)


def _call(row: Mapping[str, Any], answer: Mapping[str, Any] | None) -> Call:
    if answer is None:
        return Call(row["n"], row["call"], row["args"], row["at"])
    return Call(
        row["n"], row["call"], row["args"], row["at"], answer["at"], answer["outcome"],
        answer.get("value"), answer.get("error", ""),
    )  # fmt: skip


def _sightings(call: Call) -> Iterator[Seen]:
    """The tasks that an answer shows."""
    if call.outcome == OK and call.name in {"status", "list", "wait"}:
        rows = call.value if isinstance(call.value, list) else [call.value]
        for row in rows:
            yield _seen({**row, "begin": call.begin, "end": call.end, "call": call.name})


def _seen(row: dict[str, Any]) -> Seen:
    story = tuple((event, attempt, node) for event, attempt, node in row.pop("story", ()))
    return Seen(**{**row, "story": story, "flags": tuple(row.get("flags", ()))})


_ROWS: Mapping[str, Any] = {
    "seen": _seen,
    "planned": lambda row: Planned(**row),
    "execution": lambda row: Execution(**row),
    "fault": lambda row: Fault(**{**row, "nodes": tuple(row.get("nodes", ()))}),
    "rollback": lambda row: Rollback(**row),
    "recovery": lambda row: (row["who"], row["seconds"]),
    "left": lambda row: row["name"],
}
