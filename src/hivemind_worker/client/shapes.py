"""What a submitter is told: tasks, nodes and the pool as plain values, each with the JSON form that scripts rely on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hivemind_worker import errors
from hivemind_worker.tasks import outcome, resources, state
from hivemind_worker.wire import calls, translate


class Downloaded(list[Path]):
    """Paths of the files that were fetched, in order; ``skipped`` names those that were not, and why."""

    def __init__(self, paths: Iterable[Path] = (), skipped: Iterable[outcome.SkippedFile] = ()) -> None:
        super().__init__(paths)
        self.skipped = tuple(skipped)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a task. ``at`` in seconds since the Unix epoch, on the pool's clock."""

    at: float
    event: str
    attempt: int
    node_id: str
    details: str


@dataclass(frozen=True, slots=True)
class Task:
    """A task as the pool knew it when asked.

    ``result`` is there once the task has ended. Times in seconds since the Unix epoch on the pool's clock, 0 where it
    has not come to that yet. ``story`` and ``traceparent`` are filled by :meth:`AsyncClient.task` alone. While it is
    with a node, ``phase`` and ``usage`` are that node's last word on it, at most a heartbeat old. ``truncated``: its
    message had no room for all of it; story, output or error lack their middle. ``disruptions`` are
    attempts that the system itself ended (a drain, a deployment, no room): they use up none of ``max_attempts``.
    """

    id: str
    type: str
    status: state.TaskState
    attempt: int = 0
    max_attempts: int = 0
    node_id: str = ""
    result: outcome.Outcome | None = None
    submitted_at: float = 0.0
    assigned_at: float = 0.0
    started_at: float = 0.0
    ended_at: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)
    priority: int = 0
    cancel_requested: bool = False
    retry_of: str = ""
    waiting_because: str = ""
    story: tuple[Event, ...] = ()
    phase: str = ""
    usage: Mapping[str, float] = field(default_factory=dict)
    traceparent: str = ""
    disruptions: int = 0
    truncated: bool = False

    @property
    def ended(self) -> bool:
        """Whether nothing about it will change any more."""
        return self.status in state.ENDED

    @property
    def exit_code(self) -> int | None:
        """The task's own exit code; None while it runs, and where its program never ran."""
        return self.result.exit_code if self.result else None

    @property
    def reason(self) -> outcome.Reason | None:
        """Why it did not complete."""
        return self.result.reason if self.result else None

    def as_json(self) -> dict[str, Any]:
        """The object of ``hivemind status --json``: these keys, always all of them."""
        said = self.result
        return {
            "id": self.id,
            "type": self.type,
            "status": str(self.status),
            "reason": str(said.reason) if said and said.reason else None,
            "exit_code": said.exit_code if said else None,
            "signal": said.signal if said else None,
            "attempt": self.attempt,
            "disruptions": self.disruptions,
            "node_id": self.node_id or None,
            "image_digest": (said.image_digest or None) if said else None,
            "isolation": (said.isolation or None) if said else None,
            "node_check": str(said.node_check) if said else None,
            "limits": dataclasses.asdict(said.limits) if said and said.limits else None,
            "limits_hit": list(said.limits_hit) if said else [],
            "flags": sorted(str(flag) for flag in said.flags) if said else [],
            "usage": dataclasses.asdict(said.usage) if said else dict(self.usage) or None,
            "timings": dict(said.timings) if said else {},
            "results": [result_as_json(file) for file in said.results] if said else [],
            "skipped": [{"name": file.name, "reason": file.why} for file in said.skipped] if said else [],
            "error": (said.error or None) if said else None,
            "truncated": self.truncated,
        }


@dataclass(frozen=True, slots=True)
class Held:
    """An attempt that a node holds, with that node's last word on it."""

    task_id: str
    attempt: int
    phase: str = ""
    usage: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Node:
    """A worker node as the pool knows it. ``truncated``: what it says of itself was cut to fit into a message."""

    node_id: str
    status: str
    capacity: resources.Resources
    free: resources.Resources
    attempts: tuple[Held, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    capabilities: tuple[str, ...] = ()
    version: str = ""
    draining: bool = False
    message: str = ""
    max_concurrent_tasks: int = 0
    last_heartbeat_at: float = 0.0
    readings: Mapping[str, float] = field(default_factory=dict)
    truncated: bool = False

    def as_json(self) -> dict[str, Any]:
        """The object of ``hivemind nodes --json``; a node that is given nothing says so before all else."""
        return {
            "node_id": self.node_id,
            "status": "draining" if self.draining else self.status,
            "capacity": dataclasses.asdict(self.capacity),
            "free": dataclasses.asdict(self.free),
            "attempts": [dataclasses.asdict(held) for held in self.attempts],
            "message": self.message,
            "readings": dict(self.readings),
            "truncated": self.truncated,
        }


@dataclass(frozen=True, slots=True)
class PoolInfo:
    """A pool about itself. ``max_inline_bytes`` is how much content one task may carry inline; 0: it did not say.

    ``unready_reasons`` says why it hands out nothing at present; empty while it does.
    """

    version: str
    protocol_version: int
    server_time: float
    lease_seconds: float
    tasks_by_state: Mapping[str, int]
    nodes: int
    max_inline_bytes: int
    unready_reasons: tuple[str, ...] = ()


def result_as_json(file: outcome.ResultFile) -> dict[str, Any]:
    """One result file: name, size in bytes, SHA-256."""
    return {"name": file.name, "size": file.artifact.size, "sha256": file.artifact.sha256}


def task_from(message: calls.pb.TaskInfo) -> Task:
    """Read a task from the wire.

    Raises :class:`errors.Rejected` where the pool uses a word that this version does not know.
    """
    try:
        status = state.TaskState(message.state)
    except ValueError:
        raise errors.Rejected(f"the pool says that task {message.id} is {message.state!r}, which is no state") from None
    ended = translate.outcome_from_message(message.result, str(status)) if status in state.ENDED else None
    return Task(
        id=message.id,
        type=message.type,
        status=status,
        attempt=message.attempt,
        max_attempts=message.max_attempts,
        node_id=message.node_id,
        result=ended,
        submitted_at=message.submitted_at,
        assigned_at=message.assigned_at,
        started_at=message.started_at,
        ended_at=message.ended_at,
        labels=dict(message.labels),
        priority=message.priority,
        cancel_requested=message.cancel_requested,
        retry_of=message.retry_of,
        waiting_because=message.waiting_because,
        story=tuple(Event(told.at, told.event, told.attempt, told.node_id, told.details) for told in message.story),
        phase=message.phase,
        usage=translate.live_from_message(message.usage),
        traceparent=message.traceparent,
        disruptions=message.disruptions,
        truncated=message.truncated,
    )


def node_from(message: calls.pb.NodeInfo) -> Node:
    """Read a node from the wire."""
    return Node(
        node_id=message.node_id,
        status=message.status,
        capacity=translate.amounts_from_message(message.capacity),
        free=translate.amounts_from_message(message.free),
        attempts=tuple(
            Held(held.task_id, held.attempt, held.phase, translate.live_from_message(held.usage))
            for held in message.attempts
        ),
        labels=dict(message.labels),
        capabilities=tuple(message.capabilities),
        version=message.version,
        draining=message.draining,
        message=message.message,
        max_concurrent_tasks=message.max_concurrent_tasks,
        last_heartbeat_at=message.last_heartbeat_at,
        readings=dict(message.readings),
        truncated=message.truncated,
    )


def pool_from(message: calls.pb.GetPoolInfoResponse) -> PoolInfo:
    """Read what a pool says of itself."""
    return PoolInfo(
        version=message.version,
        protocol_version=message.protocol_version,
        server_time=message.server_time,
        lease_seconds=message.lease_seconds,
        tasks_by_state=dict(message.tasks_by_state),
        nodes=message.nodes,
        max_inline_bytes=message.max_inline_bytes,
        unready_reasons=tuple(message.unready_reasons),
    )
