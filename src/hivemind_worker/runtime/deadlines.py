"""How long the worker waits for a capsule in each state of their conversation: one table, pure, used by `capsule_run`.

A deadline belongs to a state. Entering a state sets it; what a capsule says renews it only where the table says so, so
that no stream of messages, however fast, keeps a capsule alive beyond the time of its task.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Callable, Mapping
from typing import Final

READY_SECONDS: Final = 60.0
"""From the capsule's start to its first message. 0.2 s usually; a machine that is short of everything needs longer."""

LOADING_SECONDS: Final = 300.0
"""Between two pieces of input. Reading a piece from our own disk and the journal's write count in: both may be slow."""

SILENCE_SECONDS: Final = 60.0
"""Between two messages while results are collected."""

OVERTIME_SECONDS: Final = 5.0
"""The capsule keeps the time limit itself; so much later than it should have we keep it from outside."""

KILL_SECONDS: Final = 1.5
"""From a kill to the end of the stream; what lives on then is undead. Half a second is left of the 7 s promised."""

REATTACHED_SECONDS: Final = 60.0
"""Added to the time limit of a task that an earlier worker process started: its start is known from a record that was
written before START, and the write may have taken long."""


class State(enum.Enum):
    """What the worker waits for."""

    CONNECTING = "connecting"
    LOADING = "loading"
    RUNNING = "running"
    STOPPING = "stopping"
    COLLECTING = "collecting"
    KILLING = "killing"


@dataclasses.dataclass(frozen=True, slots=True)
class Times:
    """The times of one task, in seconds."""

    timeout: float
    grace: float
    results: float


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """``seconds`` from the entry into a state, and from each renewal where it is ``renewed`` by progress.

    ``total``: seconds from the entry that no renewal goes beyond; time that the worker itself takes is added to it.
    ``shortens``: entering never moves a deadline that is nearer already.
    """

    seconds: Callable[[Times], float]
    text: str
    renewed: bool = False
    total: Callable[[Times], float] | None = None
    shortens: bool = False


TABLE: Final[Mapping[State, Row]] = {
    State.CONNECTING: Row(lambda _: READY_SECONDS, "60 s to READY"),
    State.LOADING: Row(lambda _: LOADING_SECONDS, "300 s to the next piece of input taken, or START", renewed=True),
    State.RUNNING: Row(
        lambda times: times.timeout + times.grace + OVERTIME_SECONDS, "timeout + grace + 5 s from START to EXITED"
    ),
    State.STOPPING: Row(lambda times: times.grace + OVERTIME_SECONDS, "grace + 5 s from STOP", shortens=True),
    State.COLLECTING: Row(
        lambda _: SILENCE_SECONDS,
        "60 s to the next message; together the time for results + 60 s",
        renewed=True,
        total=lambda times: times.results + SILENCE_SECONDS,
    ),
    State.KILLING: Row(lambda _: KILL_SECONDS, "1.5 s from the kill to the end of the stream"),
}
"""The one table of waiting."""


@dataclasses.dataclass(frozen=True, slots=True)
class Deadline:
    """The deadline in force: ``at`` on the loop's clock. A value: each change returns another."""

    times: Times
    state: State
    at: float
    latest: float

    @classmethod
    def first(cls, times: Times, now: float) -> Deadline:
        """Return the deadline of a capsule that was just started or attached to."""
        return cls(times, State.CONNECTING, now, now).enter(State.CONNECTING, now)

    def enter(self, state: State, now: float) -> Deadline:
        """Enter a state. What is being killed enters no other; what is being stopped does not run again."""
        if self.state is State.KILLING or (self.state is State.STOPPING and state is State.RUNNING):
            return self
        row = TABLE[state]
        latest = now + row.total(self.times) if row.total is not None else math.inf
        at = now + row.seconds(self.times)
        if row.shortens:
            at = min(at, self.at)
        return dataclasses.replace(self, state=state, at=min(at, latest), latest=latest)

    def stop(self, now: float, grace: float) -> Deadline:
        """Enter the state of a capsule that was told to stop within ``grace`` seconds."""
        times = dataclasses.replace(self.times, grace=grace)
        return dataclasses.replace(self, times=times).enter(State.STOPPING, now)

    def reattach(self, now: float, began: float | None, *, by_other_process: bool) -> Deadline:
        """Enter RUNNING at a task that was started before: at ``began``, or nobody knows when.

        One that has only just answered still gets `OVERTIME_SECONDS`, to deliver an end that it has kept.
        """
        entered = self.enter(State.RUNNING, now)
        if began is None or entered.state is not State.RUNNING:
            return entered
        counted = began + TABLE[State.RUNNING].seconds(self.times) + (REATTACHED_SECONDS if by_other_process else 0.0)
        return dataclasses.replace(entered, at=min(entered.at, max(counted, now + OVERTIME_SECONDS)))

    def progress(self, now: float, own_seconds: float = 0.0) -> Deadline:
        """Renew it by something that the capsule did, where its state allows; ``own_seconds`` the worker itself took.

        The worker's own time is added in the states that have a total: the capsule could do nothing meanwhile.
        """
        row = TABLE[self.state]
        if not row.renewed:
            return self
        latest = self.latest + own_seconds
        return dataclasses.replace(self, at=min(now + row.seconds(self.times), latest), latest=latest)

    def passed(self, now: float) -> bool:
        """Whether the wait is over, whatever lies in a buffer."""
        return now >= self.at
