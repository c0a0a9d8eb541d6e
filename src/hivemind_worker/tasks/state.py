"""The one table of moves a task may make, the one of an attempt's phases, and the story of the moves taken."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from hivemind_worker import errors


class TaskState(enum.StrEnum):
    """Where a task stands, as the pool sees it."""

    QUEUED = "queued"
    ASSIGNED = "assigned"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Move(enum.StrEnum):
    """What can happen to a task."""

    ASSIGN = "assign"
    """A session has been given the next attempt."""
    START = "start"
    """The worker says that the task's own process runs."""
    COMPLETE = "complete"
    """The attempt in force reported success."""
    FAIL = "fail"
    """The attempt in force reported a failure that is the task's, or no attempts are left."""
    CANCEL = "cancel"
    """The submitter wants it no more."""
    REQUEUE = "requeue"
    """The lease was lost or the failure was the node's, and attempts are left."""


TASK_MOVES: Mapping[tuple[TaskState, Move], TaskState] = {
    (TaskState.QUEUED, Move.ASSIGN): TaskState.ASSIGNED,
    (TaskState.QUEUED, Move.CANCEL): TaskState.CANCELLED,
    (TaskState.ASSIGNED, Move.START): TaskState.RUNNING,
    (TaskState.ASSIGNED, Move.COMPLETE): TaskState.COMPLETED,
    (TaskState.ASSIGNED, Move.FAIL): TaskState.FAILED,
    (TaskState.ASSIGNED, Move.CANCEL): TaskState.CANCELLED,
    (TaskState.ASSIGNED, Move.REQUEUE): TaskState.QUEUED,
    (TaskState.RUNNING, Move.COMPLETE): TaskState.COMPLETED,
    (TaskState.RUNNING, Move.FAIL): TaskState.FAILED,
    (TaskState.RUNNING, Move.CANCEL): TaskState.CANCELLED,
    (TaskState.RUNNING, Move.REQUEUE): TaskState.QUEUED,
}
"""All moves there are. A pair that is not here cannot happen. Fast tasks may complete without a START being heard."""

ENDED = frozenset({TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED})
"""States that no move leaves: exactly one accepted result per task, forever."""


class Phase(enum.StrEnum):
    """Where an attempt stands on its node."""

    ACCEPTED = "accepted"
    PREPARING = "preparing"
    STARTING = "starting"
    RUNNING = "running"
    COLLECTING = "collecting"
    REPORTING = "reporting"
    ENDED = "ended"


_ORDER = tuple(Phase)

PHASE_MOVES: Mapping[Phase, frozenset[Phase]] = {
    Phase.ACCEPTED: frozenset({Phase.PREPARING, Phase.REPORTING}),
    Phase.PREPARING: frozenset({Phase.STARTING, Phase.REPORTING}),
    Phase.STARTING: frozenset({Phase.RUNNING, Phase.REPORTING}),
    Phase.RUNNING: frozenset({Phase.COLLECTING, Phase.REPORTING}),
    Phase.COLLECTING: frozenset({Phase.REPORTING}),
    Phase.REPORTING: frozenset({Phase.ENDED}),
    Phase.ENDED: frozenset(),
}
"""Forward only; from every phase before it a failure leads straight to reporting."""


def after(state: TaskState, move: Move, story: str = "") -> TaskState:
    """Return the state that ``move`` leads to from ``state``.

    Raises :class:`errors.ImpossibleMove`, which carries ``story``, where the table has no such move.
    """
    try:
        return TASK_MOVES[state, move]
    except KeyError:
        told = f"; so far: {story}" if story else ""
        msg = f"a task that is {state} cannot {move}{told}"
        raise errors.ImpossibleMove(msg) from None


@dataclass(slots=True)
class AttemptStory:
    """The phases one attempt has gone through, with the clock's reading at each."""

    started: float
    phase: Phase = Phase.ACCEPTED
    _times: dict[Phase, float] = field(default_factory=dict)

    def enter(self, phase: Phase, now: float) -> None:
        """Go on to ``phase`` at ``now`` (seconds of a monotonic clock).

        Raises :class:`errors.ImpossibleMove` with the story where the table has no such move.
        """
        if phase not in PHASE_MOVES[self.phase]:
            msg = f"an attempt cannot go from {self.phase} to {phase}; so far: {self.tell()}"
            raise errors.ImpossibleMove(msg)
        self._times[phase] = now
        self.phase = phase

    def tell(self) -> str:
        """Return the story in one line, as ``accepted +0.000 → preparing +0.012``."""
        parts = [f"{Phase.ACCEPTED} +0.000"]
        parts += [f"{phase} +{at - self.started:.3f}" for phase, at in self._times.items()]
        return " → ".join(parts)

    def seconds(self, until: float) -> dict[str, float]:
        """Return how long each phase lasted, in seconds; the present one up to ``until``, if it began before."""
        marks = [(Phase.ACCEPTED, self.started), *self._times.items()]
        ends = [at for _, at in marks[1:]] + [until]
        return {str(phase): max(end - at, 0.0) for (phase, at), end in zip(marks, ends, strict=True)}


def draw_task_moves() -> str:
    """Draw the table of task states as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", "    [*] --> queued"]
    lines += [f"    {origin} --> {target}: {move}" for (origin, move), target in TASK_MOVES.items()]
    lines += [f"    {state} --> [*]" for state in TaskState if state in ENDED]
    return "\n".join(lines) + "\n"


def draw_phases() -> str:
    """Draw the table of attempt phases as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {Phase.ACCEPTED}"]
    for origin, targets in PHASE_MOVES.items():
        lines += [f"    {origin} --> {target}" for target in _ORDER if target in targets]
    lines.append(f"    {Phase.ENDED} --> [*]")
    return "\n".join(lines) + "\n"
