"""Tasks go to the pool: all checked first, their files uploaded, then as many at a time as a message holds."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence

from hivemind_worker import errors
from hivemind_worker.client import connection, inputs, uploading
from hivemind_worker.telemetry import tracing
from hivemind_worker.wire import budget, calls, translate

BATCH_BYTES = budget.MESSAGE_BUDGET - 4 * 1024
"""Bytes of tasks in one message; the rest is for the request around them, and for what the pool adds to a task."""

BATCH_TASKS = 1_000
"""Tasks in one message: the pool writes a batch in one transaction, and others wait meanwhile."""


async def submit(
    pool: connection.Connection,
    prepared: Sequence[inputs.Prepared],
    key: str | None,
    progress: uploading.Progress,
    traceparent: str = "",
) -> list[str]:
    """Send tasks and return their ids, in order.

    ``key`` makes a repeat harmless: the same key with the same tasks gives the same ids; without one each call is new.
    A batch is taken whole or not at all; with more tasks than one message holds, earlier batches stay when a later one
    is refused. Each task is a span of the trace that ``traceparent`` names, or begins one of its own.
    """
    uploads = {sha256: source for each in prepared for sha256, source in each.uploads.items()}
    if uploads:
        await uploading.upload(pool, uploads, progress)
    await need_features(pool, prepared)
    call = key or uuid.uuid4().hex
    ids: list[str] = []
    for number, batch in enumerate(batches(to_message(each, traceparent) for each in prepared)):
        request = calls.pb.SubmitTasksRequest(tasks=batch, idempotency_key=f"{call}-{number}" if number else call)
        answer = await pool.ask(pool.pool.SubmitTasks, request, "submitting tasks")
        if not answer.success or len(answer.task_ids) != len(batch):
            said = answer.message or "it said no more"
            raise errors.Rejected(f"submitting tasks: the pool took none of them: {said}")
        ids += answer.task_ids
    return ids


async def need_features(pool: connection.Connection, prepared: Iterable[inputs.Prepared]) -> None:
    """Make sure that the pool knows what these tasks need; one that does not would run them without.

    Raises :class:`errors.Rejected`.
    """
    if not any(each.task.secrets for each in prepared):
        return
    answer = await pool.ask(pool.pool.GetPoolInfo, calls.pb.GetPoolInfoRequest(), "asking the pool")
    if "secrets" not in answer.features:
        raise errors.Rejected("this pool's version knows no secrets of tasks, and would run them without: upgrade it")


def to_message(each: inputs.Prepared, traceparent: str) -> calls.pb.Task:
    """Return a task in the protocol's words, as a span of a trace."""
    message = translate.task_to_message(each.task)
    message.traceparent = str(tracing.after(traceparent))
    return message


def batches(tasks: Iterable[calls.pb.Task]) -> Iterator[list[calls.pb.Task]]:
    """Part tasks into lists that each fit into one message.

    Raises :class:`errors.InvalidTask` for one that fits into none.
    """
    batch: list[calls.pb.Task] = []
    size = 0
    for task in tasks:
        own = task.ByteSize() + 16  # the field's tag and length around it
        if own > BATCH_BYTES:
            raise errors.InvalidTask("task", f"has {own} bytes; at most {BATCH_BYTES}: move content into input files")
        if batch and (size + own > BATCH_BYTES or len(batch) == BATCH_TASKS):
            yield batch
            batch, size = [], 0
        batch.append(task)
        size += own
    if batch:
        yield batch
