"""Which blow cost which attempt, of a chaos run as its clients saw it: the table of what explains a loss. Stdlib alone.

An attempt that brought no end was lost for a reason, which its task's history names. Only some blows, to some parts,
explain that reason, and only one that was not healed when the attempt was lost. A loss without such a blow is a fault.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from client_history import NODE_FAULTS, Fault, History, Seen

_PROCESS = frozenset({"kill", "power", "replace", "ended by itself"})
"""The worker's process is gone."""

_LINE = frozenset({"stop", "part", "freeze", "deafen", "cut", "slow", "jumble", "starvation"})
"""Nothing of it comes through for a while, or twice, or late: at last because the machine gave it no core."""

_CLASH = frozenset({"clone", "register"})
_FULL = frozenset({"fill", "fill_artifacts", "fill_logs"})
_POOL_AWAY = frozenset({"kill", "power", "stop", "fill", "ended by itself", "starvation"})
_ENGINE = frozenset({"kill", "stop"})


@dataclass(frozen=True, slots=True)
class Causes:
    """What explains a loss, by whom the blow struck: the attempt's node, the pool, the engine that runs its container.

    A machine that let nobody run explains what silence explains.
    """

    node: frozenset[str] = frozenset()
    pool: frozenset[str] = frozenset()
    engine: frozenset[str] = frozenset()
    machine: frozenset[str] = frozenset()


_STALL = frozenset({"stall"})
_MACHINE = _STALL | {"starvation"}

CAUSES: Mapping[str, Causes] = {
    # No heartbeat arrived for a whole lease. A clock that is set is no cause: leases do not follow it.
    "lease": Causes(_PROCESS | _LINE | _CLASH, _POOL_AWAY, machine=_STALL),
    # The node is there and does not have it any more: its process was another, or it was not let take it.
    "worker_crash": Causes(_PROCESS | _LINE | _CLASH | _FULL, _POOL_AWAY, _ENGINE, _STALL),
    # Handed back: for want of room, for a namesake, or by a worker that ends.
    "node_shutdown": Causes(_PROCESS | _CLASH | _FULL | _LINE, _POOL_AWAY, machine=_STALL),
    "engine_lost": Causes(_PROCESS, engine=_ENGINE, machine=_STALL),
    "internal": Causes(_PROCESS | _FULL, engine=_ENGINE, machine=_STALL),
}
"""By the class of a loss; see `class_of`."""

_TOLD_BY_NODE = frozenset({"node_shutdown", "engine_lost", "internal"})
"""Ends that the node reports. The word may come long after the deed: a node that hears nothing of its pool for a lease
ends what it runs then, takes its sandbox down, and tells of it once the pool hears again."""

ANY = Causes(_PROCESS | _LINE | _CLASH | _FULL, _POOL_AWAY | _FULL, _ENGINE, _STALL)
"""Of a loss whose reason no read shows."""


@dataclass(frozen=True, slots=True)
class Loss:
    """An attempt that brought no end: lost between two moments of the monotonic clock, by what its task's history says.

    ``blow``: what explains it, as kind, who, moment; empty where nothing does.
    """

    task: str
    attempt: int
    node: str
    reason: str
    begin: float
    end: float
    blow: str

    def __str__(self) -> str:
        by = self.blow or "NOTHING"
        return f"{self.task} attempt {self.attempt} at {self.node or '?'}, {self.reason or 'no reason read'}: by {by}"


def wasted(seen: Seen) -> int:
    """How many attempts of a task did not bring its end."""
    lost = seen.reason in NODE_FAULTS or not seen.ended
    return max(seen.attempt - (0 if lost else 1), 0)


def losses(history: History, seen: Seen) -> Iterator[Loss]:
    """Yield each wasted attempt of a task, as its last read shows it, with the blow that explains it."""
    reads = [read for read in history.by_task(last_era=True)[seen.task] if read.end <= seen.end]
    nodes = {attempt: node for event, attempt, node in seen.story if event == "assign"}
    after = -math.inf
    for attempt in range(1, wasted(seen) + 1):
        begin, end = _moment(reads, attempt)
        reason, node = seen.losses.get(str(attempt), ""), nodes.get(attempt, "")
        earlier, after = after, begin
        if class_of(reason) in _TOLD_BY_NODE:
            alive = _last_alive(history, seen.task, node, earlier, end)
            begin = min(begin, _given(reads, attempt) if alive is None else alive)
        yield Loss(seen.task, attempt, node, reason, begin, end, _blow(history, node, reason, begin, end))


def class_of(reason: str) -> str:
    """Which line of the table a task's history means; empty for none that this checker knows."""
    word = reason.partition(":")[0]
    if word == "worker_crash" and "whole lease" in reason:
        return "lease"
    return word


def _moment(reads: list[Seen], attempt: int) -> tuple[float, float]:
    """Between which moments it was lost for good: after the last read that shows it alive, before the next."""
    alive = (read.begin for read in reads if read.attempt < attempt or (read.attempt == attempt and not _over(read)))
    begin = max(alive, default=-math.inf)
    over = (read.end for read in reads if read.attempt > attempt or (read.attempt == attempt and _over(read)))
    return begin, min((end for end in over if end > begin), default=math.inf)


def _given(reads: list[Seen], attempt: int) -> float:
    """After which moment it was given to its node: what never began may have been handed back ever since."""
    return max((read.begin for read in reads if read.attempt < attempt), default=-math.inf)


def _last_alive(history: History, task: str, node: str, begin: float, end: float) -> float | None:
    """When the program of an attempt that began between these moments was last seen; ``None`` where none was."""
    plan = history.plan(task, len(history.rollbacks))
    since = max([begin, *(rollback.end for rollback in history.rollbacks)])
    lasts = (
        execution.last for execution in history.executions
        if plan is not None and execution.label == plan.label
        and execution.node in {"", node} and since <= execution.first < end
    )  # fmt: skip
    return max(lasts, default=None)


def _over(read: Seen) -> bool:
    return read.ended or read.state == "queued"


def _blow(history: History, node: str, reason: str, begin: float, end: float) -> str:
    causes = CAUSES.get(class_of(reason), Causes()) if reason else ANY
    for rollback in history.rollbacks:
        if begin < rollback.end and end > rollback.begin:
            return f"{rollback.what} of the pool at {rollback.begin:.1f}"
    blows = [
        fault for fault in history.faults
        if fault.begin < end and fault.settled > begin and fault.what in _kinds(causes, fault, node)
    ]  # fmt: skip
    if not blows:
        return ""
    # The machine's own slowness is named only where we did nothing ourselves.
    last = max(blows, key=lambda fault: (fault.what not in _MACHINE, fault.begin))
    return f"{last.what} of {last.who} at {last.begin:.1f}"


def _kinds(causes: Causes, fault: Fault, node: str) -> frozenset[str]:
    if fault.who in {"pool", "machine"}:
        return causes.pool if fault.who == "pool" else causes.machine
    if fault.who == "engine":
        return causes.engine if node in fault.nodes or not node else frozenset()
    return causes.node if fault.who == node or not node else frozenset()


def table(found: list[Loss]) -> list[str]:
    """Count losses by their reason and the kind of blow that explains them, most first; one a line."""
    kinds = collections.Counter((class_of(loss.reason) or "?", _kind(loss.blow)) for loss in found)
    return [f"{count:7d}  lost ({reason}) by {blow}" for (reason, blow), count in kinds.most_common()]


def _kind(blow: str) -> str:
    """`kill of chaos-1-0 at 7.0` as `kill of a node`."""
    what, _, rest = blow.partition(" of ")
    who = rest.partition(" at ")[0]
    return f"{what} of {who if who in {'pool', 'the pool', 'engine', 'machine'} else 'a node'}" if blow else "NOTHING"
