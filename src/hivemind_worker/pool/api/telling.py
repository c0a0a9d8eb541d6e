"""What the pool knows, as its messages say it: tasks with why they wait, nodes with what is left of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from hivemind_worker.concurrency import clock
from hivemind_worker.pool.api import live
from hivemind_worker.pool.matching import assignment
from hivemind_worker.pool.store import records, store
from hivemind_worker.tasks import outcome, resources, state
from hivemind_worker.wire import budget, calls, translate

pb = calls.pb

_ALL_DRAIN = "every node drains: `hivemind node resume ID` gives one tasks again"
_ALL_REST = (
    "every node rests for a while: unrelated tasks failed on it, or it is sick by its own check (`hivemind nodes`)"
)


WAITS_SECONDS = 1.0
"""How old a reason to wait may be: about what a watcher needs for 1,000 tasks."""

MAX_WAITS = 1_000
"""Reasons that are remembered, of some 2 KiB each where a task asks for much."""


class Waits:
    """Why tasks wait, for messages that follow one another: all nodes are looked at once a second, not for each 64."""

    def __init__(self, store: store.Store) -> None:
        self._store = store
        self._reasons: dict[assignment.Shape, str] = {}
        self._since = 0.0

    async def reasons(self, shapes: Collection[assignment.Shape]) -> Mapping[assignment.Shape, str]:
        """Return why tasks of these shapes wait, as of the last `WAITS_SECONDS`."""
        if clock.now() - self._since > WAITS_SECONDS or len(self._reasons) > MAX_WAITS:
            self._since = clock.now()
            self._reasons.clear()
        if unknown := [shape for shape in shapes if shape not in self._reasons]:
            self._reasons |= await self._store.survey(functools.partial(reasons_to_wait, unknown))
        return self._reasons


async def tasks(
    kept: store.Store,
    said: live.Live,
    found: Sequence[records.Task],
    unready: str = "",
    make: Callable[[], pb.TaskInfo] = pb.TaskInfo,
    waits: Waits | None = None,
) -> list[pb.TaskInfo]:
    """Return messages about these tasks, without their stories.

    ``said``: what nodes tell of those that they hold; ``unready``: why the pool hands out nothing, where it does not.
    ``make`` makes each of the messages, such as in the place where it is to be: a copy may take megabytes.
    ``waits``: what whoever sends many messages has learnt of the reasons to wait.
    """
    queued = {task.shape for task in found if task.state is state.TaskState.QUEUED}
    reasons = {} if unready else await (waits or Waits(kept)).reasons(queued)
    infos = [_write(make(), task, reasons, unready) for task in found]
    for task, info in zip(found, infos, strict=True):
        last = None if task.ended else said.of(task.id, task.attempt, task.node_id)
        if last is not None:
            info.phase = last.phase
            if last.usage is not None:
                info.usage.MergeFromString(last.usage)
    return infos


def reasons_to_wait(
    queued: Collection[assignment.Shape], alive: Iterable[records.Node]
) -> Mapping[assignment.Shape, str]:
    """Return why tasks of these shapes wait, given the living nodes, of which no more are looked at than need be."""
    waiting = {shape: assignment.Waiting(shape) for shape in queued}
    unresolved = list(waiting.values())
    nodes = drained = idle = 0
    for node in alive:
        nodes += 1
        drained += node.draining
        idle += node.draining or node.rest_seconds > 0
        if node.draining:
            continue
        for each in unresolved:
            each.look_at(node.site)
        unresolved = [each for each in unresolved if not each.has_node]
        if not unresolved and idle < nodes:
            break
    if nodes and idle == nodes:
        return dict.fromkeys(waiting, _ALL_DRAIN if drained == nodes else _ALL_REST)
    return {shape: each.reason for shape, each in waiting.items()}


def _write(
    message: pb.TaskInfo, task: records.Task, reasons: Mapping[assignment.Shape, str], unready: str = ""
) -> pb.TaskInfo:
    message.id, message.type, message.state = task.id, task.shape.kind, str(task.state)
    message.attempt, message.max_attempts, message.disruptions = task.attempt, task.max_attempts, task.disruptions
    message.submitted_at, message.assigned_at = task.submitted_at, task.assigned_at
    message.started_at, message.ended_at = task.started_at, task.ended_at
    message.labels.update(task.labels)
    message.priority, message.version = task.priority, task.version
    message.cancel_requested, message.retry_of = task.cancel_requested, task.retry_of
    if task.ended:
        _write_result(message.result, task)
    if task.state is state.TaskState.QUEUED:
        message.waiting_because = unready or reasons.get(task.shape, "")
    else:
        message.node_id = task.node_id
    return message


def _write_result(message: pb.TaskResult, task: records.Task) -> pb.TaskResult:
    """The accepted report, or the pool's own words where none was."""
    if task.result is None:
        message.status, message.reason, message.error = str(task.state), task.reason, task.error
        message.SetInParent()
        return message
    message.MergeFromString(task.result)
    if message.reason != task.reason:  # its node had another: who wished for a stop is what the pool knows
        message.status, message.reason, message.error = str(task.state), task.reason, task.error
    elif outcome.is_nodes_fault(task.reason):
        message.error = task.error  # with what the attempts before came to: only the pool knows
    return message


def summary(body: bytes) -> bytes:
    """Return a result as a list shows it: without its output."""
    message = pb.TaskResult.FromString(body)
    message.ClearField("logs")
    return message.SerializeToString()


def result(task: records.Task) -> pb.TaskResult:
    """Return how a task ended; an empty message while it goes on."""
    return _write_result(pb.TaskResult(), task) if task.ended else pb.TaskResult()


def write_event(message: pb.TaskEvent, happened: records.Event) -> None:
    """Write one event of a story."""
    message.at, message.event, message.attempt = happened.at, happened.event, happened.attempt
    message.node_id, message.details = happened.node_id, happened.details


def _write_attempt(told: pb.AttemptRef, known: records.Node, ref: records.Ref, said: live.Live) -> None:
    told.task_id, told.attempt = ref.task_id, ref.attempt
    last = said.of(ref.task_id, ref.attempt, known.node_id)
    if last is not None:
        told.phase = last.phase
        if last.usage is not None:
            told.usage.MergeFromString(last.usage)


def node(known: records.Node, said: live.Live) -> pb.NodeInfo:
    """Return a message about a node; what is free is counted from what it was given."""
    info = pb.NodeInfo()
    write_node(info, known, said)
    return info


def write_node(info: pb.NodeInfo, known: records.Node, said: live.Live) -> None:
    """As `node`, into a message that is empty."""
    message = known.message
    if known.alive and known.rest_seconds > 0:
        rests = f"rests for {known.rest_seconds:.0f} s: unrelated tasks failed on it, or it is sick by its own check"
        message = f"{message}; {rests}" if message else rests
    free = (known.capacity - known.used).at_least(resources.Resources())
    if over := known.used.lacking(known.capacity):
        amounts = "; ".join(over).replace(" free", " in all")
        overcommitted = f"overcommitted ({amounts}): what it has ended and not yet reported counts, too"
        message = f"{message}; {overcommitted}" if message else overcommitted
    info.node_id, info.status = known.node_id, known.status if known.alive else "lost"
    info.capacity.CopyFrom(translate.amounts_to_message(known.capacity))
    info.free.CopyFrom(translate.amounts_to_message(free))
    info.labels.update(known.labels)
    info.capabilities.extend(known.capabilities)
    info.version, info.message, info.draining = known.version, message, known.draining
    info.registered_at, info.last_heartbeat_at = known.registered_at, known.heartbeat_at
    info.readings.update(known.readings)
    info.max_concurrent_tasks = known.max_concurrent_tasks
    for ref in known.attempts:
        _write_attempt(info.attempts.add(), known, ref, said)
    budget.fit_node(info)
