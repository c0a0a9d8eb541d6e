"""What the tests of every store share: time that is told to go on, and the few things a node does to a store."""

from __future__ import annotations

from collections.abc import Callable

from hivemind_worker import units
from hivemind_worker.pool.matching import assignment
from hivemind_worker.pool.store import records, store
from hivemind_worker.tasks import outcome, resources

LEASE = 10.0
SMALL = assignment.Shape("command", resources.Resources(1, units.GIB, units.GIB))
LARGE = assignment.Shape("command", resources.Resources(64, units.GIB, units.GIB))
ROOM = resources.Resources(8, 64 * units.GIB, 100 * units.GIB)


class Clock:
    """Time that goes on when it is told to."""

    def __init__(self, seconds: float = 1_000.0) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds


Opener = Callable[[], store.Store]
OpenerBy = Callable[[Callable[[], float]], store.Store]


def task(
    task_id: str = "", *, shape: assignment.Shape = SMALL, priority: int = 0, attempts: int = 3
) -> records.NewTask:
    return records.NewTask(task_id, b"body of " + task_id.encode(), f"digest {task_id}", shape, "", priority, attempts)


def node(name: str = "n", boot_id: str = "boot") -> records.NewNode:
    """A process that has locked the one state folder of its node: the next one of it proves that this one is gone."""
    return records.NewNode(name, ROOM, boot_id, state_lock_id=f"the folder of {name}")


async def session(kept: store.Store, name: str = "n", boot_id: str = "boot", *held: records.Ref) -> str:
    return (await kept.register(node(name, boot_id), held)).session_id


async def poll(
    kept: store.Store, name: str, session_id: str, *held: records.Handed, most: int = 1, paused: bool = False
) -> records.Given:
    known = frozenset((each.task_id, each.attempt) for each in held)
    (given,) = await kept.hand_out([records.Poll(name, session_id, None, most=most, held=known, paused=paused)])
    return given


async def take(kept: store.Store, name: str, session_id: str) -> records.Handed:
    (handed,) = (await poll(kept, name, session_id)).tasks
    return handed


def ended(
    handed: records.Handed,
    name: str,
    session_id: str = "",
    status: outcome.Status = outcome.Status.COMPLETED,
    reason: outcome.Reason | None = None,
) -> records.Report:
    return records.Report(
        handed.task_id,
        name,
        session_id,
        handed.attempt,
        status,
        reason=str(reason or ""),
        try_again=reason is not None and outcome.FAULTS[reason] is outcome.Fault.NODE,
        body=f"{status} {handed.attempt} by {name}".encode(),
    )


async def one(kept: store.Store, task_id: str) -> records.Task:
    (found,) = await kept.tasks([task_id])
    return found
