"""What a run leaves for the record, as plain values: the ground on which `invariants` judges it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hivemind_worker.tasks import resources


@dataclass(frozen=True, slots=True)
class Expected:
    """What a task must come to. ``files`` maps a result file's name to the SHA-256 of what the task wrote: "" for
    one that names its execution; None: there are too many to name.

    ``may_be_cancelled``: its submitter asked for that, so it may also end so. ``exit_code``, ``stdout_bytes`` and
    ``logs`` of None: not known.
    """

    status: str = "completed"
    reason: str = ""
    exit_code: int | None = 0
    files: Mapping[str, str] | None = field(default_factory=dict)
    stdout_bytes: int | None = None
    logs: str | None = None
    may_be_cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a task's story, by the pool's clock in seconds."""

    at: float
    event: str
    attempt: int
    node_id: str
    details: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """The end of an attempt as the pool kept it."""

    attempt: int
    verdict: str
    node_id: str
    status: str
    reason: str = ""
    exit_code: int | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    stdout_bytes: int = 0
    logs: str = ""
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """A task as the pool has it at the end. ``result``: the attempt whose report counts; 0 where the pool ended it.

    ``disruptions``: attempts that the system itself ended, which use up none of ``max_attempts``.
    """

    id: str
    state: str
    attempt: int
    max_attempts: int
    result: int
    reason: str
    events: tuple[Event, ...]
    reports: tuple[Report, ...] = ()
    needs: resources.Resources = field(default_factory=resources.Resources)
    disruptions: int = 0


@dataclass(frozen=True, slots=True)
class Sighting:
    """A task's own process seen alive. ``capsule`` tells two runs apart; ``node_id`` is empty where it is not known."""

    at: float
    task_id: str
    capsule: str
    node_id: str = ""


@dataclass(frozen=True, slots=True)
class Absence:
    """A time in which nobody at ``who`` (a node's id, or ``pool``) could act: dead, stopped, or cut off."""

    who: str
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Room:
    """What a node may have running at once. ``slots`` 0: as many as fit."""

    capacity: resources.Resources
    slots: int = 0


@dataclass(frozen=True, slots=True)
class History:
    """All of one run. ``stored`` holds the SHA-256 of every whole artifact of the pool, computed anew.

    ``left`` names what is still there after the end and should not be: containers, processes, files. ``epoch_at``: when
    the store was wiped or set back to a backup for the last time, by the clock of the sightings. ``may_be_there``: what
    need not be among the tasks, as a restore may have brought it back; where it is, it comes to what is expected of it.
    """

    expected: Mapping[str, Expected]
    tasks: tuple[Task, ...]
    lease_seconds: float
    grace_seconds: float
    sightings: tuple[Sighting, ...] = ()
    absences: tuple[Absence, ...] = ()
    rooms: Mapping[str, Room] = field(default_factory=dict)
    stored: frozenset[str] = frozenset()
    left: tuple[str, ...] = ()
    epoch_at: float = float("-inf")
    may_be_there: Mapping[str, Expected] = field(default_factory=dict)

    @property
    def expectations(self) -> Mapping[str, Expected]:
        """Of every task that somebody submitted."""
        return {**self.may_be_there, **self.expected}

    @property
    def of_this_epoch(self) -> tuple[Sighting, ...]:
        """Sightings of capsules that began in the life of this store; it knows nothing of the others."""
        earlier = {seen.capsule for seen in self.sightings if seen.at < self.epoch_at}
        return tuple(seen for seen in self.sightings if seen.capsule not in earlier)


def in_force(task: Task, node_id: str = "", until: float = float("inf")) -> list[tuple[float, float]]:
    """Return from when to when attempts of the task were some node's (or this one's), by its story."""
    spans: list[tuple[float, float]] = []
    begin: float | None = None
    for event in task.events:
        if event.event == "assign":
            begin = event.at if node_id in {"", event.node_id} else None
        elif event.event in {"requeue", "complete", "fail", "cancel"} and begin is not None:
            spans.append((begin, event.at))
            begin = None
    if begin is not None:
        spans.append((begin, until))
    return spans
