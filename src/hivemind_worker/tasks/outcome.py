"""How a task ended and whose doing that was: status, closed list of reasons, usage, timings, results."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

_PAGE_SLACK = 1024 * 1024


class Status(enum.StrEnum):
    """How an attempt ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Reason(enum.StrEnum):
    """Why an attempt did not complete. The list is closed: a report with another reason is refused."""

    NONZERO_EXIT = "nonzero_exit"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    OOM = "oom"
    PIDS_LIMIT = "pids_limit"
    DISK_LIMIT = "disk_limit"
    RESULTS_REJECTED = "results_rejected"
    INVALID_TASK = "invalid_task"
    IMAGE_UNAVAILABLE = "image_unavailable"
    DEPENDENCY_FAILED = "dependency_failed"
    ENGINE_LOST = "engine_lost"
    NODE_SHUTDOWN = "node_shutdown"
    WORKER_CRASH = "worker_crash"
    INTERNAL = "internal"


class Fault(enum.StrEnum):
    """Whose doing it was; only the node's faults make the pool try again."""

    TASK = "task"
    SUBMITTER = "submitter"
    NODE = "node"


FAULTS: Mapping[Reason, Fault] = {
    Reason.NONZERO_EXIT: Fault.TASK,
    Reason.TIMEOUT: Fault.TASK,
    Reason.CANCELLED: Fault.SUBMITTER,
    Reason.OOM: Fault.TASK,
    Reason.PIDS_LIMIT: Fault.TASK,
    Reason.DISK_LIMIT: Fault.TASK,
    Reason.RESULTS_REJECTED: Fault.TASK,
    Reason.INVALID_TASK: Fault.SUBMITTER,
    Reason.IMAGE_UNAVAILABLE: Fault.SUBMITTER,
    Reason.DEPENDENCY_FAILED: Fault.SUBMITTER,
    Reason.ENGINE_LOST: Fault.NODE,
    Reason.NODE_SHUTDOWN: Fault.NODE,
    Reason.WORKER_CRASH: Fault.NODE,
    Reason.INTERNAL: Fault.NODE,
}
"""The one table of blame."""


def is_nodes_fault(reason: str) -> bool:
    """Whether ``reason``, which may be any text, is one of those that are the node's fault."""
    return reason in _NODES_FAULTS


def is_node_sick(reason: Reason | None, check: NodeCheck) -> bool:
    """Whether an end shows that its node would fail the next task as well. Pure.

    Not where the node has checked itself and is sound, nor after a crash or an orderly stop, which are over.
    """
    return reason in {Reason.INTERNAL, Reason.ENGINE_LOST} and check is not NodeCheck.PASSED


_NODES_FAULTS = frozenset(str(reason) for reason, fault in FAULTS.items() if fault is Fault.NODE)


class NodeCheck(enum.StrEnum):
    """What the node found out about itself after a failure that may be its own: it starts a capsule of its own."""

    NOT_NEEDED = "not_needed"
    """The cause is known, or the node does not check itself."""
    NOT_DONE = "not_done"
    """It could not be checked in time."""
    PASSED = "passed"
    """The node's own capsule started: the node is sound, as far as that tells."""
    FAILED = "failed"
    """The node's own capsule did not start either: it is the node."""


class Flag(enum.StrEnum):
    """What deserves a word although it is no failure."""

    OUTPUT_TRUNCATED = "output_truncated"
    OUTPUT_INCOMPLETE = "output_incomplete"
    RESULTS_TRUNCATED = "results_truncated"
    LIMITS_HIT = "limits_hit"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A stored file: its size in bytes and its lower-case hexadecimal SHA-256."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class ResultFile:
    """One file from ``/workspace/results``: relative name with ``/``, content, and permission bits."""

    name: str
    artifact: Artifact
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """Something in ``/workspace/results`` that was not returned, and why (``symlink``, ``fifo``, ``over cap`` …)."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What an attempt used; ``None`` where this node cannot tell.

    Times in seconds, amounts in bytes, ``processes`` the highest count seen, ``throttled_seconds`` time spent waiting
    for CPU quota. ``network_*``: what went through the node's filter, and how many connections it made and refused.
    """

    wall_seconds: float = 0.0
    cpu_seconds: float | None = None
    peak_memory_bytes: int | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None
    processes: int | None = None
    throttled_seconds: float | None = None
    network_sent_bytes: int | None = None
    network_received_bytes: int | None = None
    network_connections: int | None = None
    network_refused: int | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits that were really in force. Bytes, seconds, and ``cpu_quota`` in 1/100000 of a core."""

    memory_bytes: int
    cpu_quota: int
    timeout_seconds: float
    disk_bytes: int
    pids: int

    @property
    def shared_memory_bytes(self) -> int:
        """The size of /dev/shm, whose pages count as the task's memory: half of it, as Linux gives a machine."""
        return self.memory_bytes // 2

    @property
    def file_bytes(self) -> int:
        """The largest file a task may write: a page beyond the disk limit, so that a full disk is ENOSPC, no signal.

        A file in /dev/shm may be larger; then the workspace lies in memory too and has its own cap.
        """
        return max(self.disk_bytes, self.shared_memory_bytes) + _PAGE_SLACK


@dataclass(frozen=True, slots=True)
class Logs:
    """What is kept of the output: both streams interleaved as they arrived, cut in the middle when too long.

    ``text`` holds the head, a line that says how many bytes are missing, and the tail. ``*_bytes`` count what the task
    wrote, not what was kept.
    """

    text: bytes = b""
    stdout_bytes: int = 0
    stderr_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything a node has to say about one attempt.

    ``timings`` maps a step's name to seconds. ``exit_code`` is the task's own (128 + signal where a signal ended it).
    ``reason`` is ``None`` exactly when ``status`` is completed. ``node_check``: what the node found out about itself
    after a failure that may be its own.
    """

    status: Status
    reason: Reason | None = None
    exit_code: int | None = None
    signal: int | None = None
    error: str = ""
    logs: Logs = field(default_factory=Logs)
    results: tuple[ResultFile, ...] = ()
    skipped: tuple[SkippedFile, ...] = ()
    flags: frozenset[Flag] = frozenset()
    limits_hit: tuple[str, ...] = ()
    usage: Usage = field(default_factory=Usage)
    limits: Limits | None = None
    image_digest: str = ""
    isolation: str = ""
    runtime: str = ""
    timings: Mapping[str, float] = field(default_factory=dict)
    node_check: NodeCheck = NodeCheck.NOT_NEEDED

    def __post_init__(self) -> None:
        """Refuse an outcome that contradicts itself."""
        if (self.status is Status.COMPLETED) != (self.reason is None):
            msg = f"an attempt is completed exactly when it has no reason, not {self.status} with {self.reason}"
            raise ValueError(msg)

    @property
    def try_again(self) -> bool:
        """Whether another node may be asked: the failure was the node's own."""
        return self.reason is not None and FAULTS[self.reason] is Fault.NODE
