"""What goes into the store and comes out of it: plain values, no database and no messages."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hivemind_worker import errors
from hivemind_worker.pool.matching import assignment
from hivemind_worker.tasks import outcome, resources, state

MAX_HANDED_BODY = 8 * 1024
"""Larger bodies are read when there is room for them: a round may hand out 10,000 tasks."""

MAX_LISTED_LOGS = 16 * 1024
"""A report with more output has a summary beside it, so that a list need not read it."""


@dataclass(frozen=True, slots=True)
class NewTask:
    """A task to be kept. ``body`` is handed out as it is; ``digest`` tells two tasks of one id apart.

    An empty ``id`` lets the store choose one (UUIDv7). ``timeout`` is in seconds, 0 where the task names none.
    ``secrets`` are sealed; they are erased when the task has ended. Empty where it has none.
    ``submitter``: the address that it came from.
    """

    id: str
    body: bytes
    digest: str
    shape: assignment.Shape
    image: str = ""
    priority: int = 0
    max_attempts: int = 3
    labels: Mapping[str, str] = field(default_factory=dict)
    retry_of: str = ""
    timeout: float = 3600.0
    secrets: bytes = b""
    submitter: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """A task as it stands. Times in seconds since the epoch by the wall's clock, 0 where it has not come to that.

    ``number`` is the store's own, smaller for older tasks. ``node_id`` is who held the newest attempt. ``result`` is
    the accepted report, ``None`` where the pool itself ended the task: then ``reason`` and ``error`` say why.
    ``disruptions`` counts the attempts that the system itself ended: of ``max_attempts`` they use up none.
    """

    number: int
    id: str
    state: state.TaskState
    shape: assignment.Shape
    attempt: int = 0
    max_attempts: int = 3
    disruptions: int = 0
    node_id: str = ""
    priority: int = 0
    submitted_at: float = 0.0
    assigned_at: float = 0.0
    started_at: float = 0.0
    ended_at: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)
    cancel_requested: bool = False
    retry_of: str = ""
    version: int = 0
    reason: str = ""
    error: str = ""
    result: bytes | None = None
    body_bytes: int = 0
    result_bytes: int = 0

    @property
    def ended(self) -> bool:
        """Whether nothing about it will change any more."""
        return self.state in state.ENDED


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a task."""

    at: float
    event: str
    attempt: int
    node_id: str
    details: str


@dataclass(frozen=True, slots=True)
class Change:
    """A committed change of a task, for those who wait for one. ``node_id`` is whom it concerns.

    ``new``: it has just been submitted. Of one that has ended: why, how long it waited for its last attempt, and how
    long that took (``None``: it never came to one); and the ``task`` itself, where its result is small.
    """

    task_id: str
    state: state.TaskState
    node_id: str = ""
    cancel_requested: bool = False
    new: bool = False
    reason: str = ""
    waited_seconds: float = 0.0
    ran_seconds: float | None = None
    task: Task | None = None


@dataclass(frozen=True, slots=True)
class Ref:
    """One attempt of one task. ``phase`` is its node's word for where it stands.

    ``epoch`` is the epoch of the store in which it was assigned, empty from a peer that knows none. ``run_id`` names
    the one execution of it, empty before that was begun.
    """

    task_id: str
    attempt: int
    phase: str = ""
    epoch: str = ""
    run_id: str = ""


@dataclass(frozen=True, slots=True)
class Assignment:
    """The record of one attempt: in which epoch it was assigned, to which node, and the run that it is bound to.

    ``run_id`` is empty while no run was seen. ``legacy_logs``: assigned by a version whose logs knew neither.
    """

    epoch: str
    node_id: str
    run_id: str = ""
    legacy_logs: bool = False


@dataclass(frozen=True, slots=True)
class NewNode:
    """What a node says of itself when it registers.

    ``boot_id`` changes with each start of the worker process; empty from the reference's client, which knows none.
    ``state_lock_id`` names the state folder that it has locked; empty from a worker that does not say.
    ``former_state_lock_ids`` may have named it before the machine was started anew; empty where it was not.
    ``max_concurrent_tasks`` 0: as many as fit.
    """

    node_id: str
    capacity: resources.Resources
    boot_id: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    capabilities: tuple[str, ...] = ()
    version: str = ""
    address: str = ""
    max_concurrent_tasks: int = 0
    state_lock_id: str = ""
    former_state_lock_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Node:
    """A node as the pool knows it. ``alive``: its lease has not run out.

    ``faults``: incidents in a row that were its own fault; it is given nothing for another ``rest_seconds``.
    ``shape_rests``: for how many seconds more it is given no task of a shape, having handed one back.
    ``registered_at`` and ``heartbeat_at`` are the wall's time.
    """

    node_id: str
    session_id: str
    capacity: resources.Resources
    boot_id: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    capabilities: tuple[str, ...] = ()
    version: str = ""
    address: str = ""
    max_concurrent_tasks: int = 0
    status: str = ""
    message: str = ""
    readings: Mapping[str, float] = field(default_factory=dict)
    draining: bool = False
    registered_at: float = 0.0
    heartbeat_at: float = 0.0
    alive: bool = True
    faults: int = 0
    rest_seconds: float = 0.0
    attempts: tuple[Ref, ...] = ()
    used: resources.Resources = field(default_factory=resources.Resources)
    shape_rests: Mapping[assignment.Shape, float] = field(default_factory=dict)

    @property
    def site(self) -> assignment.Site:
        """The node as far as tasks care."""
        return assignment.Site(
            self.node_id,
            self.capacity,
            {
                **self.labels,
                **({} if assignment.SECRETS not in self.capabilities else dict([assignment.NEEDS_SECRETS])),
            },
            frozenset(self.capabilities),
            unfit=self.message,
            rests=self.shape_rests,
        )


@dataclass(frozen=True, slots=True)
class Registration:
    """A session opened. ``drop``: held attempts that are not this node's any more."""

    session_id: str
    drop: tuple[Ref, ...] = ()


@dataclass(frozen=True, slots=True)
class Beat:
    """A heartbeat: the node's own word for how it is, and what it holds (``None``: it does not say)."""

    node_id: str
    session_id: str = ""
    status: str = ""
    message: str = ""
    readings: Mapping[str, float] = field(default_factory=dict)
    held: tuple[Ref, ...] | None = None


@dataclass(frozen=True, slots=True)
class Directives:
    """What a heartbeat is answered."""

    draining: bool = False
    cancel: tuple[Ref, ...] = ()
    drop: tuple[Ref, ...] = ()


@dataclass(frozen=True, slots=True)
class Poll:
    """A worker that waits for tasks. ``free`` of ``None``: the store counts what is left of its capacity.

    ``look``: cancellations and answers that got lost are wanted as well, as at the first look for every poll.
    ``stays``: it waits in the store, unless it is answered at once or may be given nothing; see
    :meth:`store.Store.hand_out`.
    """

    node_id: str
    session_id: str = ""
    free: resources.Resources | None = None
    images: frozenset[str] = frozenset()
    most: int = 1
    paused: bool = False
    held: frozenset[tuple[str, int]] = frozenset()
    look: bool = True
    stays: bool = False


@dataclass(frozen=True, slots=True)
class Handed:
    """One attempt that is now the session's. A ``body`` of more than `MAX_HANDED_BODY` is ``None``: it is to be read.

    ``body_bytes`` is its size then. ``secrets`` as in `NewTask`.
    """

    task_id: str
    attempt: int
    body: bytes | None
    body_bytes: int = 0
    secrets: bytes = b""


@dataclass(frozen=True, slots=True)
class Given:
    """What one poll is answered. ``refused`` stands for the error where the poll itself was not in order.

    ``again_in``: the node rests for so many more seconds, from all tasks or some, and is to be looked at again then.
    ``outdated``: something about its node has changed while it waited, and it is to be looked at again now.
    """

    tasks: tuple[Handed, ...] = ()
    cancel: tuple[Ref, ...] = ()
    refused: errors.HiveMindError | None = None
    again_in: float = 0.0
    outdated: bool = False

    def __bool__(self) -> bool:
        return bool(self.tasks or self.cancel or self.refused)


class Verdict(enum.StrEnum):
    """What becomes of a report."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    STALE = "stale"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Report:
    """What a node says about an attempt. ``status`` ``None``: its process runs now.

    ``epoch`` and ``run_id`` as in `Ref`. ``node_check``: what the node found out about itself after a failure.
    ``attempt`` 0 stands for the newest that its node was given. ``missing`` names files of the result that the pool
    does not have: such a report is never accepted as an end. ``run_limit``: the time limit that the node says was in
    force, in seconds; 0 where it says nothing.
    """

    task_id: str
    node_id: str
    session_id: str = ""
    attempt: int = 0
    status: outcome.Status | None = None
    reason: str = ""
    error: str = ""
    try_again: bool = False
    body: bytes = b""
    summary: bytes | None = None
    missing: tuple[str, ...] = ()
    epoch: str = ""
    run_id: str = ""
    run_limit: float = 0.0
    node_check: outcome.NodeCheck = outcome.NodeCheck.NOT_NEEDED


@dataclass(frozen=True, slots=True)
class Answer:
    """The verdict on a report, and why in words."""

    verdict: Verdict
    message: str = ""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which tasks to list, newest first. ``before`` is the number from which the page before went down to.

    ``summary`` is what is kept of each result, as it is read; the page ends where that has come to ``max_bytes``
    (0: it does not), with at least one task.
    """

    states: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    node_id: str = ""
    kind: str = ""
    most: int = 100
    before: int = 0
    summary: Callable[[bytes], bytes] = bytes
    max_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Lost:
    """What an expiry did, for the log."""

    nodes: tuple[str, ...] = ()
    attempts: tuple[Ref, ...] = ()
