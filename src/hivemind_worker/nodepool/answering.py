"""How every call ends: with its answer, with an error of ours as its status, or with a defect that is logged."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Protocol, TypeVar, cast

from google.protobuf import message as protobuf

from hivemind_worker.artifacts import store as artifact_store
from hivemind_worker.artifacts import writing
from hivemind_worker.concurrency import clock
from hivemind_worker.nodepool import measuring
from hivemind_worker.nodepool import streams as pool_streams
from hivemind_worker.task import errors
from hivemind_worker.telemetry import logs
from hivemind_worker.wire import calls, unparsed, verdicts


class Measured(Protocol):
    """A servicer whose calls are counted."""

    @property
    def told(self) -> measuring.Measuring:
        """What is told of each call."""

    @property
    def streams(self) -> pool_streams.Streams:
        """What its streams may have in memory."""


Servicer = TypeVar("Servicer", bound=Measured)
Asked = TypeVar("Asked")
Told = TypeVar("Told", bound=protobuf.Message)

log = logs.StructuredLogger(__name__)


def once(
    method: Callable[[Servicer, Asked, calls.Context], Awaitable[Told]],
) -> Callable[[Servicer, Asked, calls.Context], Awaitable[Told]]:
    """Wrap a call with one answer."""

    @functools.wraps(method)
    async def answered(servicer: Servicer, request: Asked, context: calls.Context) -> Told:
        began, well = clock.now(), False
        try:
            told = await _answer(servicer, method, request, context)
            well = True
        except Exception as error:  # noqa: BLE001  (whatever it is, the other end must hear of it)
            refusal = _refusal(method.__name__, error)
        else:
            return told
        finally:
            servicer.told.call(method.__name__, clock.now() - began, answered=well)
        return await verdicts.refuse(context, refusal)  # never returns

    return answered


async def _answer(
    servicer: Servicer,
    method: Callable[[Servicer, Asked, calls.Context], Awaitable[Told]],
    request: Asked,
    context: calls.Context,
) -> Told:
    told = await method(servicer, await unparsed.parse(request), context)
    _check_size(method.__name__, told)
    return told


def many(
    method: Callable[[Servicer, Asked, calls.Context], AsyncGenerator[Told, None]],
) -> Callable[[Servicer, Asked, calls.Context], AsyncIterator[Told]]:
    """Wrap a call with a stream of answers: each is counted until it is written, and must be read in time."""

    async def answered(servicer: Servicer, request: Asked, context: calls.Context) -> None:
        stands_still = contextlib.AsyncExitStack()
        async with stands_still:
            try:
                await _send(servicer, method, request, context, stands_still)
            except Exception as error:  # noqa: BLE001  (as above)
                refusal = _refusal(method.__name__, error)
            else:
                return
            with contextlib.suppress(calls.Gone):  # the other end is gone, and hears nothing
                await verdicts.refuse(context, refusal)

    # gRPC takes a coroutine that writes for one that yields, and only its writes can have a deadline.
    return cast("Callable[[Servicer, Asked, calls.Context], AsyncIterator[Told]]", functools.wraps(method)(answered))


async def _send(
    servicer: Servicer,
    method: Callable[[Servicer, Asked, calls.Context], AsyncGenerator[Told, None]],
    request: Asked,
    context: calls.Context,
    stands_still: contextlib.AsyncExitStack,
) -> None:
    parsed = await unparsed.parse(request)
    async with contextlib.aclosing(method(servicer, parsed, context)) as messages:
        async for told in messages:
            await _write(servicer.streams, method.__name__, context, told, stands_still)
            del told  # whoever waits for the next one holds none


async def _write(
    streams: pool_streams.Streams,
    call: str,
    context: calls.Context,
    told: protobuf.Message,
    stands_still: contextlib.AsyncExitStack,
) -> None:
    """Write one message. Raises :class:`errors.Unavailable` where the other end does not read it."""
    _check_size(call, told)
    room = contextlib.AsyncExitStack()
    async with room:
        await room.enter_async_context(
            streams.answers.room(pool_streams.peer(context), told.ByteSize(), in_memory=True)
        )
        try:
            async with asyncio.timeout(streams.write_seconds):
                await context.write(told)
        except TimeoutError:
            # gRPC holds the message until the other end reads or is gone: so long it counts.
            stands_still.push_async_exit(room.pop_all())
            raise errors.Unavailable(
                f"nothing was read for {streams.write_seconds:.0f} s: the stream is ended; ask again"
            ) from None


def _check_size(call: str, told: protobuf.Message) -> None:
    """Raise :class:`errors.Rejected` for an answer that gRPC would not take: with words instead of its own error."""
    size = told.ByteSize()
    if size > calls.MESSAGE_BYTES:
        log.log_system_event("answer_too_large", {"call": call, "bytes": size}, level="error")
        raise errors.Rejected(
            f"{call}: the answer has {size} bytes, and a message takes {calls.MESSAGE_BYTES}: ask for less at once",
            str(verdicts.Reason.TOO_LARGE),
        )


def _refusal(call: str, error: Exception) -> errors.HiveMindError:
    """Return the error that the other end hears of; a defect is logged.

    The frames that an error went through have the request in them, and gRPC refers to the error that ends a call in
    cycles: until the next collection of garbage each refused request stayed in memory. So errors lose their frames.
    """
    named = _named(error)
    if not isinstance(named, errors.HiveMindError) or isinstance(named, errors.ImpossibleMove):
        log.log_system_event("call_failed", {"call": call}, level="error", error=error)
        named = errors.HiveMindError(f"{call} failed in the pool: {type(error).__name__}; its log says more")
    for without_frames in (error, named):
        link: BaseException | None = without_frames
        while link is not None:
            link.__traceback__ = None
            link.__context__, link = None, link.__context__
    return named


def _named(error: Exception) -> Exception:
    """Errors of the rooms below, in words that the wire knows."""
    match error:
        case artifact_store.NoSuchArtifact():
            return errors.Rejected(str(error), str(verdicts.Reason.MISSING_ARTIFACT))
        case writing.TooLarge():
            return errors.Rejected(str(error), str(verdicts.Reason.TOO_LARGE))
        # Sent again, from where the store says that it stands.
        case writing.WrongContent() | writing.TakenOver():
            return errors.Unavailable(str(error))
        case calls.Garbled():
            return errors.UserError(f"what was sent cannot be read: {error}")
        case OSError():
            return errors.Unavailable(f"the pool's disk: {error.strerror or error}")
        case _:
            return error
