"""What nodes and submitters send, read with suspicion: every number finite, every name plain, every list bounded."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from hivemind_worker import errors, units
from hivemind_worker.concurrency import slicing
from hivemind_worker.filesystem import sealed
from hivemind_worker.pool.api import attempt_logs, telling
from hivemind_worker.pool.matching import assignment
from hivemind_worker.pool.store import records
from hivemind_worker.tasks import names, outcome, resources
from hivemind_worker.telemetry import tracing
from hivemind_worker.wire import budget, calls, secret_values, translate, verdicts

_T = TypeVar("_T")

TASKS_AT_ONCE = 10_000
"""Most tasks, or ids of tasks, in one call."""

FEATURES = ("secrets",)
"""What a client must not ask of a pool that does not name it."""

TASK_BYTES = budget.MESSAGE_BUDGET - 4 * 1024
"""Largest task: handed out it must fit into a message again, with what the pool adds."""

SUMS_AT_ONCE = 40_000
"""Most sums of files in one call: their answer must fit into a message, too."""

PAGE_BYTES = 3 * 1024**2
"""Where a page of tasks ends before its time: results are of any size, and the message must stay below its limit."""

HELD_AT_MOST = 10_000
POLL_SECONDS = 60.0
TASKS_PER_ANSWER = 64
"""Most tasks in one answer, whatever the worker asks for: others wait too."""

_NODE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}", re.ASCII)
_TEXT = 1_000
_STATUS = 64
"""The longest word for a node's status, in characters: it is shown in a column of a table."""
_MAX_POSITION = 2**53
"""The last offset or sequence number of output: 9 PB. Behind it, what comes next must still fit into 64 bits."""
_MARK_CHARS = 64
"""Longest id of an epoch or a run: ours have 32."""
_LARGEST = 2**53  # beyond it no floating-point number counts one by one, and no database takes more than 2**63


def node_id(said: str) -> str:
    """Return a node's name. Raises :class:`errors.UserError`."""
    if _NODE_ID.fullmatch(said) is None:
        raise errors.UserError("node_id: must be 1 to 128 of A-Z a-z 0-9 _ . : - and begin with a letter or digit")
    return said


def node(request: calls.pb.RegisterNodeRequest) -> records.NewNode:
    """Return what a node says of itself. Raises :class:`errors.UserError`."""
    return records.NewNode(
        node_id=node_id(request.node_id),
        capacity=resources.Resources(
            _number("cpu_cores", request.cpu_cores),
            int(_number("memory_gb", request.memory_gb) * units.GIB),
            int(_number("disk_gb", request.disk_gb) * units.GIB),
            int(_number("gpus", request.gpus)),
        ),
        boot_id=request.boot_id[:_TEXT],
        labels=names.labels("labels", dict(request.labels)),
        capabilities=tuple(word[:_TEXT] for word in _bounded("capabilities", request.capabilities, 1_000)),
        version=request.version[:_TEXT],
        address=f"{request.ip_address[:_TEXT]}:{request.port}",
        max_concurrent_tasks=max(request.max_concurrent_tasks, 0),
        state_lock_id=request.state_lock_id[:_TEXT],
        former_state_lock_ids=tuple(
            lock_id[:_TEXT] for lock_id in _bounded("former_state_lock_ids", request.former_state_lock_ids, 1_000)
        ),
    )


def refs(said: Sequence[calls.pb.AttemptRef]) -> tuple[records.Ref, ...]:
    """Return attempts that a node says it holds. Raises :class:`errors.UserError` for too many."""
    held = _bounded("held", said, HELD_AT_MOST)
    return tuple(
        records.Ref(
            ref.task_id,
            ref.attempt,
            ref.phase[:_TEXT],
            mark("store_epoch", ref.store_epoch),
            mark("run_id", ref.run_id),
        )
        for ref in held
    )


def mark(field: str, said: str) -> str:
    """Return an epoch's or a run's id; empty where the peer knows none. Raises :class:`errors.UserError`."""
    if len(said) > _MARK_CHARS:
        raise errors.UserError(f"{field}: at most {_MARK_CHARS} characters")
    return said


def attempt(said: int) -> int:
    """Return an attempt's number. Raises :class:`errors.UserError` for none that is ever handed out."""
    if said < 1:
        raise errors.UserError(f"attempt: {said} of this task was never handed out")
    return said


def beat(request: calls.pb.UpdateNodeStatusRequest) -> records.Beat:
    """Return a heartbeat. Measurements that are no numbers are left out. Raises :class:`errors.UserError`."""
    readings = {name[:_TEXT]: value for name, value in request.readings.items() if math.isfinite(value)}
    if len(readings) > 1_000:
        raise errors.UserError("readings: more than 1000")
    return records.Beat(
        node_id=node_id(request.node_id),
        session_id=request.session_id,
        status=request.status[:_STATUS],
        message=request.message[:_TEXT],
        readings=readings,
        held=refs(request.held),
    )


def poll(request: calls.pb.GetAssignedTasksRequest, epoch: str) -> tuple[records.Poll, float]:
    """Return a poll, and for how many seconds it waits; what it lists of another epoch than ``epoch`` is left out.

    Raises :class:`errors.UserError`.
    """
    free: resources.Resources | None = None
    if request.HasField("free"):
        said = translate.amounts_from_message(request.free)
        free = resources.Resources(
            _finite("free.cpu_cores", said.cpu_cores), said.memory_bytes, said.disk_bytes, said.gpus
        )
    found = records.Poll(
        node_id=node_id(request.node_id),
        session_id=request.session_id,
        free=free,
        images=frozenset(_bounded("images", request.images, 10_000)),
        most=min(max(request.most, 1), TASKS_PER_ANSWER),
        paused=request.paused,
        held=frozenset((ref.task_id, ref.attempt) for ref in refs(request.held) if ref.epoch in ("", epoch)),
    )
    seconds = _finite("wait_seconds", request.wait_seconds)
    # A client that shows no session is the reference's: it polls shortly.
    return found, min(max(seconds, 0.0), POLL_SECONDS) if request.session_id else 0.0


def wait_seconds(request: calls.pb.GetTaskRequest | calls.pb.SubmitTasksRequest) -> float:
    """Return for how long a question about a task waits for its end. Raises :class:`errors.UserError`."""
    return min(max(_finite("wait_seconds", request.wait_seconds), 0.0), POLL_SECONDS)


def ended(request: calls.pb.ReportTaskResultRequest) -> outcome.Outcome | None:
    """Return how an attempt ended, without its output and its files, ``None`` while it runs.

    Raises :class:`errors.Rejected` for what is no report.
    """
    if "running" in (request.status, request.result.status):
        return None
    result = request.result
    if request.status and result.status and request.status != result.status:
        raise errors.Rejected(f"the report says {request.status[:40]!r} and its result {result.status[:40]!r}")
    return translate.outcome_from_message(result, request.status, whole=False)


async def new_tasks(
    messages: Sequence[calls.pb.Task], max_attempts: int, key: sealed.Key | None = None, submitter: str = ""
) -> tuple[list[records.NewTask], list[outcome.Artifact]]:
    """Return tasks to be kept, and the uploaded files that they name; others get their turns meanwhile.

    ``max_attempts`` is for those that name no number, ``key`` seals their secrets, ``submitter`` is the address that
    they came from. Raises
    :class:`errors.InvalidTask`, naming the field, and which task where there are several.
    """
    if not messages:
        raise errors.InvalidTask("tasks", "there are none")
    tasks, inputs = list[records.NewTask](), list[outcome.Artifact]()
    shared = _Shared(key, submitter)
    async for message in slicing.in_slices(_bounded("tasks", messages, TASKS_AT_ONCE)):
        try:
            tasks.append(_new_task(message, max_attempts, shared))
        except errors.InvalidTask as error:
            if len(messages) == 1:
                raise
            raise errors.InvalidTask(f"tasks[{len(tasks)}].{error.field}", error.problem) from None
        inputs += (outcome.Artifact(ref.sha256, ref.size) for ref in message.input_artifacts.values())
    return tasks, inputs


def digest(tasks: Sequence[records.NewTask]) -> str:
    """Return what tells two submissions of one key apart."""
    running = hashlib.sha256()
    for task in tasks:  # one at a time: the text of 10,000 has 1 MiB
        running.update(f"{task.id}\0{task.digest}\0".encode())
    return running.hexdigest()


@dataclasses.dataclass(slots=True)
class _Shared:
    """Shapes and labels of one submission: most tasks are of few, and each is there once."""

    key: sealed.Key | None = None
    submitter: str = ""
    shapes: dict[assignment.Shape, assignment.Shape] = dataclasses.field(default_factory=dict)
    labels: dict[tuple[tuple[str, str], ...], Mapping[str, str]] = dataclasses.field(default_factory=dict)


def _new_task(message: calls.pb.Task, max_attempts: int, shared: _Shared) -> records.NewTask:
    _need_size(message.ByteSize())  # before its texts are read: a wide one takes four times its bytes
    body, fields = _read_task(message, max_attempts, shared)
    whole = body.SerializeToString(deterministic=True)
    if not body.secrets:
        digest = hashlib.sha256(whole).hexdigest()
    else:
        digest, fields["secrets"] = _sealed(body, whole, shared.key)
    del whole
    body.traceparent = str(tracing.read(message.traceparent) or tracing.begin())
    kept = body.SerializeToString()
    _need_size(len(kept) + len(fields.get("secrets", b"")))  # handed out it has both
    return records.NewTask(body=kept, digest=digest, **fields)


def _sealed(body: calls.pb.Task, whole: bytes, key: sealed.Key | None) -> tuple[str, bytes]:
    """Take a task's secrets out of it; return a digest of the whole by which nobody can guess them, and them sealed."""
    if key is None:
        raise errors.InvalidTask("secrets", "this pool has no key to seal them with")
    try:
        return key.digest(whole), secret_values.seal(body, key)
    except (OSError, errors.BadSettings) as error:
        raise errors.Unavailable(f"the pool cannot seal secrets at present: {error}") from None


def _read_task(message: calls.pb.Task, max_attempts: int, shared: _Shared) -> tuple[calls.pb.Task, dict[str, Any]]:
    """Return a task as its message is kept, and the other fields of its record.

    Of its texts, which may be wide, no copy is left.
    """
    task = translate.task_from_message(message)
    selector = tuple(sorted([*task.node_selector.items(), *([assignment.NEEDS_SECRETS] if task.secrets else [])]))
    shape = assignment.Shape(task.kind, task.needs, selector, str(task.network))
    fields = {
        "id": task.id or "",
        "shape": shared.shapes.setdefault(shape, shape),
        "image": task.docker_image or "",
        "priority": task.priority,
        "max_attempts": task.max_attempts or max_attempts,
        "labels": shared.labels.setdefault(tuple(sorted(task.labels.items())), task.labels),
        "timeout": task.timeout or 0.0,
        "submitter": shared.submitter,
    }
    return translate.task_to_message(task), fields


def _need_size(size: int) -> None:
    if size > TASK_BYTES:
        raise errors.Rejected(
            f"a task of {size} bytes; at most {TASK_BYTES}: upload large files and name their sha256",
            str(verdicts.Reason.TOO_LARGE),
        )


def ids(said: Sequence[str]) -> list[str]:
    """Return ids of tasks. Raises :class:`errors.UserError` for none or too many."""
    if not said:
        raise errors.UserError("task_ids: there are none")
    return list(_bounded("task_ids", said, TASKS_AT_ONCE))


def key(said: str) -> str:
    """Return an idempotency key. Raises :class:`errors.UserError` for one that is too long."""
    if len(said) > 200:
        raise errors.UserError("idempotency_key: at most 200 characters")
    return said


def sums(said: Sequence[str]) -> list[str]:
    """Return names of artifacts. Raises :class:`errors.UserError` for too many."""
    return list(_bounded("sha256", said, SUMS_AT_ONCE))


def listing(request: calls.pb.ListTasksRequest) -> records.Filter:
    """Return which tasks are wanted. Raises :class:`errors.UserError`."""
    return records.Filter(
        states=tuple(_bounded("states", request.states, 16)),
        labels=_labels(request.labels),
        node_id=request.node_id,
        kind=request.type,
        most=min(max(request.page_size, 0) or 100, 1_000),
        before=place(request.page_token),
        summary=telling.summary,
        max_bytes=PAGE_BYTES,
    )


def chunk(message: calls.pb.LogChunk) -> attempt_logs.Chunk:
    """Return a run of output. Raises :class:`errors.UserError`, naming the field."""
    if message.stream not in _STREAMS:
        known = ", ".join(_STREAMS.values())
        raise errors.UserError(f"chunks.stream: there is none of number {int(message.stream)}, only {known}")
    for name, value in (("sequence", message.sequence), ("offset", message.offset)):
        if not 0 <= value <= _MAX_POSITION:
            raise errors.UserError(f"chunks.{name}: must be from 0 to {_MAX_POSITION}, not {value}")
    return attempt_logs.Chunk(message.sequence, message.stream, message.offset, chunk_bytes(message.data))


_STREAMS: Mapping[int, str] = {
    int(calls.pb.LOG_STREAM_STDOUT): "1 standard output",
    int(calls.pb.LOG_STREAM_STDERR): "2 standard error",
    int(calls.pb.LOG_STREAM_SYSTEM): "3 the node's own words",
}


def place(page_token: str) -> int:
    """Return where a page begins, 0 for the first. Raises :class:`errors.UserError` for a token of nobody's."""
    if page_token and not re.fullmatch(r"[0-9]{1,18}", page_token, re.ASCII):
        raise errors.UserError("page_token: is none of this pool's")
    return int(page_token or 0)


def chunk_bytes(data: bytes) -> bytes:
    """Return a chunk's data. Raises :class:`errors.UserError` for more than a chunk may hold."""
    if len(data) > calls.CHUNK_BYTES:
        raise errors.UserError(f"data: a chunk has at most {calls.CHUNK_BYTES} bytes, not {len(data)}")
    return data


def _labels(said: Mapping[str, str]) -> Mapping[str, str]:
    if len(said) > 16:
        raise errors.UserError("labels: more than 16")
    return dict(said)


def _number(field: str, value: float) -> float:
    if not 0 <= value <= _LARGEST / units.GIB:  # NaN is neither
        raise errors.UserError(f"{field}: must be a number from 0 on, not {value}")
    return value


def _finite(field: str, value: float) -> float:
    if not math.isfinite(value):
        raise errors.UserError(f"{field}: must be a number, not {value}")
    return value


def _bounded(field: str, said: Sequence[_T], most: int) -> Sequence[_T]:
    if len(said) > most:
        raise errors.UserError(f"{field}: {len(said)} of them; at most {most} in one call")
    return said
