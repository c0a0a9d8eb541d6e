"""What this node is and does, as one snapshot for whoever wants to show it; and its last troubles."""

from __future__ import annotations

import collections
import datetime as dt
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hivemind_worker.runtime import executor
from hivemind_worker.runtime.capsule import accounts
from hivemind_worker.tasks import outcome, resources
from hivemind_worker.worker.machine import monitor

LAST_ERRORS = 20
"""How many troubles are remembered. Enough for a page; older ones are in the log."""


LAST_ENDED = 20
"""How many ended attempts are remembered to be shown; the pool knows all."""


class NodeStatus(enum.StrEnum):
    """The node's word for itself at each heartbeat."""

    IDLE = "idle"
    BUSY = "busy"
    DRAINING = "draining"
    UNHEALTHY = "unhealthy"
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that went wrong: when (UTC), with which task if with one, and what was said."""

    at: dt.datetime
    task_id: str
    said: str


@dataclass(frozen=True, slots=True)
class AttemptStatus:
    """An attempt that the node holds. ``seconds`` since it was accepted; ``story`` its phases so far.

    ``usage`` is what its capsule was last seen to use; ``None`` before the first look, and where nobody can tell.
    """

    task_id: str
    attempt: int
    phase: str
    seconds: float
    story: str
    usage: accounts.Usage | None = None


@dataclass(frozen=True, slots=True)
class EndedStatus:
    """An attempt that has ended here: when (UTC), how many seconds after it was accepted, and how."""

    task_id: str
    attempt: int
    at: dt.datetime
    seconds: float
    status: outcome.Status
    reason: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything about the node at one moment.

    ``holds`` says why it takes no tasks, by cause; ``machine`` is the newest look at the machine in the reference
    document's JSON, empty where nothing is measured, and ``recent`` how busy it was in the last minutes. ``last_ended``
    has the newest first. ``defences`` are those that the executor knows of.
    """

    node_id: str
    boot_id: str
    status: NodeStatus
    pool: str
    session_id: str
    connected: bool
    plain_pool: bool
    trouble: str
    isolation: str
    capacity: resources.Resources
    reserved: resources.Resources
    max_concurrent_tasks: int
    attempts: tuple[AttemptStatus, ...]
    ended: int
    last_errors: tuple[Trouble, ...]
    holds: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    recent: tuple[monitor.Moment, ...] = ()
    last_ended: tuple[EndedStatus, ...] = ()
    defences: tuple[executor.Defence, ...] = ()


class Troubles:
    """The last troubles, oldest first."""

    def __init__(self) -> None:
        self._last: collections.deque[Trouble] = collections.deque(maxlen=LAST_ERRORS)

    def note(self, said: str, task_id: str = "") -> None:
        """Remember one."""
        self._last.append(Trouble(dt.datetime.now(dt.UTC), task_id, said))

    def last(self) -> tuple[Trouble, ...]:
        """Return those that are remembered."""
        return tuple(self._last)
