"""Status → retry, register again, give up or fall back: one table, the same words on both ends of the wire.

A refusal of ours carries `google.rpc.Status` with an `ErrorInfo` of the domain `hivemind`: the *reason* decides, and
its status code is chosen so that a peer which reads no details does nothing worse than we would. Without a reason
(another server, a proxy, the library itself) the code decides alone.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn, TypeVar

import grpc
from google.protobuf import message as protobuf_message
from google.rpc import code_pb2, error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status  # type: ignore[import-untyped]

from hivemind_worker import errors
from hivemind_worker.wire import calls

T = TypeVar("T")

DOMAIN = "hivemind"
"""Whose reasons these are; an ErrorInfo of any other domain is not read."""

_DETAILS_KEY = "grpc-status-details-bin"
# gRPC refuses more than 8 KiB of metadata in all, and the message travels twice: as text and within the details.
_MESSAGE_CHARS = 1_000


class Course(enum.StrEnum):
    """What the caller does about a failed call."""

    RETRY = "retry"
    """The same call again, after a pause."""
    REREGISTER = "reregister"
    """The pool has forgotten us: register again, keep the attempts, then the same call again."""
    GIVE_UP = "give_up"
    """The same call will fail again: tell whoever wanted it."""
    FALL_BACK = "fall_back"
    """The pool has no such call: do without it."""


class Reason(enum.StrEnum):
    """Why our pool refuses a call. Names never change; new ones may be added, and old peers go by the code."""

    UNKNOWN_NODE = "UNKNOWN_NODE"
    UNKNOWN_SESSION = "UNKNOWN_SESSION"
    SESSION_REPLACED = "SESSION_REPLACED"
    INVALID_TASK = "INVALID_TASK"
    MISSING_ARTIFACT = "MISSING_ARTIFACT"
    NO_SUCH_TASK = "NO_SUCH_TASK"
    CONFLICT = "CONFLICT"
    TOO_LARGE = "TOO_LARGE"


REASONS: Mapping[Reason, tuple[grpc.StatusCode, Course]] = {
    Reason.UNKNOWN_NODE: (grpc.StatusCode.NOT_FOUND, Course.REREGISTER),
    Reason.UNKNOWN_SESSION: (grpc.StatusCode.FAILED_PRECONDITION, Course.REREGISTER),
    # Another process registered under the same node id. Registering again would throw that one out, and so on for ever.
    Reason.SESSION_REPLACED: (grpc.StatusCode.FAILED_PRECONDITION, Course.GIVE_UP),
    Reason.INVALID_TASK: (grpc.StatusCode.INVALID_ARGUMENT, Course.GIVE_UP),
    # Whoever named the file uploads it and calls again; the call alone will not do.
    Reason.MISSING_ARTIFACT: (grpc.StatusCode.FAILED_PRECONDITION, Course.GIVE_UP),
    Reason.NO_SUCH_TASK: (grpc.StatusCode.NOT_FOUND, Course.GIVE_UP),
    Reason.CONFLICT: (grpc.StatusCode.ALREADY_EXISTS, Course.GIVE_UP),
    # Not RESOURCE_EXHAUSTED: that is tried again, and a file does not shrink.
    Reason.TOO_LARGE: (grpc.StatusCode.INVALID_ARGUMENT, Course.GIVE_UP),
}
"""Each reason's status code, and what it makes the caller do."""

CODES: Mapping[grpc.StatusCode, Course] = {
    grpc.StatusCode.UNAVAILABLE: Course.RETRY,
    grpc.StatusCode.DEADLINE_EXCEEDED: Course.RETRY,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Course.RETRY,
    grpc.StatusCode.ABORTED: Course.RETRY,
    # The stream was reset, by a proxy or by a pool that went away in the middle.
    grpc.StatusCode.INTERNAL: Course.RETRY,
    grpc.StatusCode.CANCELLED: Course.RETRY,
    # A pool's handler raised. Every call of ours may be repeated, so a fault that passes costs nothing.
    grpc.StatusCode.UNKNOWN: Course.RETRY,
    # The sum of an uploaded file was wrong: it is sent again from the start.
    grpc.StatusCode.DATA_LOSS: Course.RETRY,
    grpc.StatusCode.INVALID_ARGUMENT: Course.GIVE_UP,
    grpc.StatusCode.NOT_FOUND: Course.GIVE_UP,
    grpc.StatusCode.ALREADY_EXISTS: Course.GIVE_UP,
    grpc.StatusCode.FAILED_PRECONDITION: Course.GIVE_UP,
    grpc.StatusCode.OUT_OF_RANGE: Course.GIVE_UP,
    grpc.StatusCode.PERMISSION_DENIED: Course.GIVE_UP,
    grpc.StatusCode.UNAUTHENTICATED: Course.GIVE_UP,
    grpc.StatusCode.UNIMPLEMENTED: Course.FALL_BACK,
}
"""What a code means where no reason of ours came with it. OK is deliberately absent: it is no failure."""

# The library's own words for a message beyond the limit; the code that comes with them would be tried for ever.
_LOCAL_TOO_LARGE = "message larger than max"
# And those for an answer that was: no fault of what we had sent, which must not be thrown away for it.
_ANSWER_TOO_LARGE = "client: received message larger than max"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a failed call said, and what to do about it. ``metadata`` is the ErrorInfo's own."""

    code: grpc.StatusCode
    course: Course
    message: str
    reason: Reason | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


def read(error: grpc.aio.AioRpcError) -> Verdict:
    """Return what ``error`` says. Never raises: a peer's details may be garbage."""
    code, message = error.code(), (error.details() or "").strip()
    info = _info(error)
    try:
        reason = Reason(info.reason) if info is not None else None
    except ValueError:
        reason = None  # a newer pool's reason: the code decides
    if reason is not None and info is not None:
        return Verdict(code, REASONS[reason][1], message, reason, dict(info.metadata))
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _ANSWER_TOO_LARGE in message.lower():
        return Verdict(code, Course.RETRY, message)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _LOCAL_TOO_LARGE in message.lower():
        return Verdict(code, Course.GIVE_UP, message, Reason.TOO_LARGE)
    return Verdict(code, CODES.get(code, Course.GIVE_UP), message)


def _info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo | None:
    for key, value in error.trailing_metadata() or ():
        if key != _DETAILS_KEY or not isinstance(value, bytes):
            continue
        try:
            status = status_pb2.Status.FromString(value)
            for detail in status.details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info) and info.domain == DOMAIN:
                    return info
        except (protobuf_message.DecodeError, UnicodeDecodeError):
            return None
    return None


def legible(answer: T, doing: str = "the call") -> T:
    """Return an answer as it came. Raises :class:`errors.Unavailable` where it was no message of this protocol.

    The library hands out None for what it cannot read, as if it were an answer.
    """
    if answer is None:
        raise errors.Unavailable(f"{doing}: the answer is garbled: no pool's, or the line spoils what goes over it")
    return answer


def to_error(verdict: Verdict, doing: str = "the call") -> errors.HiveMindError:
    """Return the error of our tree that ``verdict`` stands for; ``doing`` says what was tried, for its message."""
    said = verdict.message or verdict.code.name.lower().replace("_", " ")
    match verdict.reason:
        case Reason.INVALID_TASK:
            return errors.InvalidTask(verdict.metadata.get("field", "task"), verdict.metadata.get("problem", said))
        case Reason.NO_SUCH_TASK:
            return errors.NoSuchTask(verdict.metadata.get("task_id", ""))
        case Reason.CONFLICT:
            return errors.Conflict(said)
        case Reason.SESSION_REPLACED:
            return errors.StateInUse(
                "another worker runs under this node's id: give this one a --node-id and a --state-dir of its own, "
                f"or stop the other ({said})"
            )
        case _:
            pass
    text = f"{doing}: {said} ({verdict.code.name})"
    reason = str(verdict.reason or "")
    match verdict.course:
        case Course.RETRY:
            exhausted = verdict.code is grpc.StatusCode.RESOURCE_EXHAUSTED
            return (errors.Exhausted if exhausted else errors.Unavailable)(text, reason)
        case Course.REREGISTER:
            return errors.UnknownNode(text, reason)
        case Course.FALL_BACK:
            return errors.NotImplementedByPeer(text, reason)
        case _:
            return errors.Rejected(text, reason)


async def refuse(context: calls.Context, error: errors.HiveMindError) -> NoReturn:
    """End the call that ``context`` stands for with ``error``; the other end gets the same error back."""
    code, reason, metadata = _said_by(error)
    message = str(error)[:_MESSAGE_CHARS]
    if reason is None:
        await context.abort(code, message)
    status = rpc_status.to_status(status_of(reason, message, metadata))
    await context.abort(status.code, status.details, trailing_metadata=status.trailing_metadata)


def status_of(reason: Reason, message: str, metadata: Mapping[str, str] | None = None) -> status_pb2.Status:
    """Return a `google.rpc.Status` with our ErrorInfo in it."""
    status = status_pb2.Status(code=code_pb2.Code.Value(REASONS[reason][0].name), message=message)
    given = {key: value[:_MESSAGE_CHARS] for key, value in (metadata or {}).items()}
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=str(reason), domain=DOMAIN, metadata=given))
    return status


def _said_by(error: errors.HiveMindError) -> tuple[grpc.StatusCode, Reason | None, dict[str, str]]:
    """The code, the reason and the metadata for an error of our tree."""
    metadata: dict[str, str] = {}
    reason: Reason | None = None
    match error:
        case errors.InvalidTask():
            reason, metadata = Reason.INVALID_TASK, {"field": error.field, "problem": error.problem}
        case errors.NoSuchTask():
            reason, metadata = Reason.NO_SUCH_TASK, {"task_id": error.task_id}
        case errors.Conflict():
            reason = Reason.CONFLICT
        case errors.StateInUse():
            reason = Reason.SESSION_REPLACED
        case errors.UnknownNode():
            reason = Reason(error.reason) if error.reason else Reason.UNKNOWN_NODE
        case errors.PeerError() if error.reason:
            reason = Reason(error.reason)
        case errors.NotImplementedByPeer():
            return grpc.StatusCode.UNIMPLEMENTED, None, {}
        case errors.Exhausted():
            return grpc.StatusCode.RESOURCE_EXHAUSTED, None, {}
        case errors.Unavailable():
            return grpc.StatusCode.UNAVAILABLE, None, {}
        case errors.UserError() | errors.Rejected():
            return grpc.StatusCode.INVALID_ARGUMENT, None, {}
        case _:
            return grpc.StatusCode.INTERNAL, None, {}
    return REASONS[reason][0], reason, metadata
