"""What the pool knows, as its messages say it: tasks with why they wait, nodes with what is left of them."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping, Sequence

from hivemind_worker.nodepool import assignment, live
from hivemind_worker.nodepool.store import records, store
from hivemind_worker.task import outcome, resources, state
from hivemind_worker.wire import budget, calls, translate

pb = calls.pb

_ALL_DRAIN = "every node drains: `hivemind node resume ID` gives one tasks again"
_ALL_REST = "every node rests for a while: its last attempts failed by its own fault (`hivemind nodes` says which)"


async def tasks(
    kept: store.Store, said: live.Live, found: Sequence[records.Task], unready: str = ""
) -> list[pb.TaskInfo]:
    """Return messages about these tasks, without their stories.

    ``said``: what nodes tell of those that they hold; ``unready``: why the pool hands out nothing, where it does not.
    """
    infos = [_task(task, {}, unready) for task in found] if unready else await _tasks(kept, found)
    for task, info in zip(found, infos, strict=True):
        last = None if task.ended else said.of(task.id, task.attempt, task.node_id)
        if last is not None:
            info.phase = last.phase
            if last.usage is not None:
                info.usage.CopyFrom(last.usage)
    return infos


async def _tasks(kept: store.Store, found: Sequence[records.Task]) -> list[pb.TaskInfo]:
    queued = {task.shape for task in found if task.state is state.TaskState.QUEUED}
    reasons = await kept.survey(functools.partial(reasons_to_wait, queued)) if queued else {}
    return [_task(task, reasons) for task in found]


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


def _task(task: records.Task, reasons: Mapping[assignment.Shape, str], unready: str = "") -> pb.TaskInfo:
    message = pb.TaskInfo(
        id=task.id,
        type=task.shape.kind,
        state=str(task.state),
        attempt=task.attempt,
        max_attempts=task.max_attempts,
        node_id="" if task.state is state.TaskState.QUEUED else task.node_id,
        submitted_at=task.submitted_at,
        assigned_at=task.assigned_at,
        started_at=task.started_at,
        ended_at=task.ended_at,
        labels=task.labels,
        priority=task.priority,
        cancel_requested=task.cancel_requested,
        retry_of=task.retry_of,
        version=task.version,
        disruptions=task.disruptions,
    )
    if task.ended:
        message.result.CopyFrom(_result(task))
    if task.state is state.TaskState.QUEUED:
        message.waiting_because = unready or reasons.get(task.shape, "")
    return message


def _result(task: records.Task) -> pb.TaskResult:
    """The accepted report, or the pool's own words where none was."""
    if task.result is not None:
        said = pb.TaskResult.FromString(task.result)
        if outcome.is_nodes_fault(task.reason):
            said.error = task.error  # with what the attempts before came to: only the pool knows
        return said
    return pb.TaskResult(status=str(task.state), reason=task.reason, error=task.error)


def summary(body: bytes) -> bytes:
    """Return a result as a list shows it: without its output."""
    message = pb.TaskResult.FromString(body)
    message.ClearField("logs")
    return message.SerializeToString()


def result(task: records.Task) -> pb.TaskResult:
    """Return how a task ended; an empty message while it goes on."""
    return _result(task) if task.ended else pb.TaskResult()


def event(happened: records.Event) -> pb.TaskEvent:
    """Return one event of a story."""
    return pb.TaskEvent(
        at=happened.at,
        event=happened.event,
        attempt=happened.attempt,
        node_id=happened.node_id,
        details=happened.details,
    )


def _held(known: records.Node, ref: records.Ref, said: live.Live) -> pb.AttemptRef:
    told = pb.AttemptRef(task_id=ref.task_id, attempt=ref.attempt)
    last = said.of(ref.task_id, ref.attempt, known.node_id)
    if last is not None:
        told.phase = last.phase
        if last.usage is not None:
            told.usage.CopyFrom(last.usage)
    return told


def node(known: records.Node, said: live.Live) -> pb.NodeInfo:
    """Return a message about a node; what is free is counted from what it was given."""
    message = known.message
    if known.alive and known.rest_seconds > 0:
        rests = f"rests for {known.rest_seconds:.0f} s: its last attempts failed by its own fault"
        message = f"{message}; {rests}" if message else rests
    free = (known.capacity - known.used).at_least(resources.Resources())
    if over := known.used.lacking(known.capacity):
        amounts = "; ".join(over).replace(" free", " in all")
        overcommitted = f"overcommitted ({amounts}): what it has ended and not yet reported counts, too"
        message = f"{message}; {overcommitted}" if message else overcommitted
    info = pb.NodeInfo(
        node_id=known.node_id,
        status=known.status if known.alive else "lost",
        capacity=translate.amounts_to_message(known.capacity),
        free=translate.amounts_to_message(free),
        attempts=[_held(known, ref, said) for ref in known.attempts],
        labels=known.labels,
        capabilities=known.capabilities,
        version=known.version,
        registered_at=known.registered_at,
        last_heartbeat_at=known.heartbeat_at,
        draining=known.draining,
        readings=known.readings,
        message=message,
        max_concurrent_tasks=known.max_concurrent_tasks,
    )
    budget.fit_node(info)
    return info
