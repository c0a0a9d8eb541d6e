"""One task submitted and waited for in one call, by whoever has an event loop and by a thread that has none.

A thread's own call costs half of what a loop's does: nobody has to be woken on either side of it. It knows no second
try. Whatever goes wrong with it, the loop makes the same call again; its id is chosen here, so the pool finds the task
that the first call sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections.abc import Awaitable
from dataclasses import dataclass

import grpc
import uuid_utils

from hivemind_worker import errors
from hivemind_worker.client import connection, fetching, following, inputs, shapes, submission, uploading
from hivemind_worker.concurrency import clock
from hivemind_worker.wire import calls, channels

ANSWER_SECONDS = 1.0
"""How long the answer that a pool gives at the end of its wait may be on its way."""


@dataclass(frozen=True, slots=True)
class Run:
    """A task on its way. ``seconds`` is how long its caller waits, ``ends`` when that is over; None: for ever.

    ``unanswered_ends`` is when a pool that does not even say whether it has the task is waited for no longer.
    """

    prepared: inputs.Prepared
    request: calls.pb.SubmitTasksRequest
    seconds: float | None
    ends: float | None
    unanswered_ends: float | None

    @property
    def task_id(self) -> str:
        """The task's id."""
        return self.request.tasks[0].id

    @property
    def call_seconds(self) -> float:
        """Deadline of the call."""
        seconds = connection.CALL_SECONDS + self.request.wait_seconds
        left = self.unanswered_seconds
        return seconds if left is None else min(seconds, left)

    @property
    def unanswered_seconds(self) -> float | None:
        """How much longer a pool that does not answer is waited for; None: as long as its line holds."""
        return None if self.unanswered_ends is None else max(self.unanswered_ends - clock.now(), 0.0)


def begin(prepared: inputs.Prepared, traceparent: str, seconds: float | None, patience: float) -> Run:
    """Put a task into words; its caller waits ``seconds``, and ``patience`` for a pool that does not answer at all.

    Raises :class:`errors.InvalidTask` where no message has room for it, ValueError for ``seconds`` that are no number.
    """
    if seconds is not None and math.isnan(seconds):
        raise ValueError("seconds: must be a number, or None for no limit, not nan")
    message = submission.to_message(prepared, traceparent)
    message.id = message.id or str(uuid_utils.uuid7())
    ((task,),) = submission.batches([message])
    wait_seconds = following.WAIT_SECONDS if seconds is None else min(seconds, following.WAIT_SECONDS)
    request = calls.pb.SubmitTasksRequest(tasks=[task], wait_seconds=wait_seconds)
    if seconds is None:
        return Run(prepared, request, None, None, None)
    now = clock.now()
    return Run(prepared, request, seconds, now + seconds, now + max(seconds, patience) + ANSWER_SECONDS)


async def submit(pool: connection.Connection, run: Run, progress: uploading.Progress) -> calls.pb.SubmitTasksResponse:
    """Send the task, its files first, and return the answer: at its end, or when the wait is over.

    Raises TimeoutError, naming the task, where no answer comes for longer than its caller waits.
    """

    def call(
        request: calls.pb.SubmitTasksRequest, *, timeout: float | None = None
    ) -> Awaitable[calls.pb.SubmitTasksResponse]:
        if run.ends is not None:  # an upload, or a try that failed, took its part of the time
            request.wait_seconds = max(min(request.wait_seconds, run.ends - clock.now()), 0.0)
        return pool.pool.SubmitTasks(request, timeout=timeout)

    seconds = connection.CALL_SECONDS + run.request.wait_seconds
    try:
        async with asyncio.timeout(run.unanswered_seconds):
            await submission.need_features(pool, [run.prepared])
            if run.prepared.uploads:
                await uploading.upload(pool, run.prepared.uploads, progress)
            return await pool.ask(call, run.request, "submitting a task", seconds)
    except TimeoutError:
        raise TimeoutError(
            f"task {run.task_id} has not ended after {run.seconds:g} s, and the pool at {pool.address} does not "
            "answer: ask it later, by the task's id, whether it has it"
        ) from None


def read(run: Run, answer: calls.pb.SubmitTasksResponse) -> shapes.Task | None:
    """Return the task of an answer, None in one that came before its end. Raises :class:`errors.Rejected`."""
    if not answer.success or list(answer.task_ids) != [run.task_id]:
        raise errors.Rejected(f"submitting a task: the pool took it not: {answer.message or 'it said no more'}")
    return shapes.task_from(answer.task) if answer.HasField("task") else None


async def finish(pool: connection.Connection, run: Run, task: shapes.Task | None) -> shapes.Task:
    """Return the task once it has ended, whole. Raises TimeoutError, naming it."""
    if task is not None:
        return await fetching.complete(pool, task)
    left = None if run.ends is None else max(run.ends - clock.now(), 0.0)
    try:
        (task,) = await following.wait(pool, [run.task_id], left, lambda _: None)
    except TimeoutError:
        raise TimeoutError(f"task {run.task_id} has not ended after {run.seconds:g} s") from None
    return task


class ThreadCaller:
    """The channel of threads that make such a call themselves. Safe to use from several at once."""

    def __init__(self, target: channels.Line) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._pool: calls.TaskManagerStub | None = None

    def close(self) -> None:
        """Let go of it; calls under way fail."""
        with self._lock:
            channel, self._channel, self._pool = self._channel, None, None
        if channel is not None:
            channel.close()

    def submit(self, run: Run) -> calls.pb.SubmitTasksResponse | None:
        """Send a task without files and secrets and return the answer; None where the call failed, however it did."""
        if run.prepared.uploads or run.prepared.task.secrets:
            return None
        with contextlib.suppress(grpc.RpcError, calls.Garbled, ValueError):  # the last: closed by another thread
            answer: calls.pb.SubmitTasksResponse = self._stub().SubmitTasks(run.request, timeout=run.call_seconds)
            return answer
        return None

    def _stub(self) -> calls.TaskManagerStub:
        with self._lock:
            if self._pool is None:
                self._channel = channels.open_blocking_channel(self._target)
                self._pool = calls.TaskManagerStub(self._channel)
            return self._pool
