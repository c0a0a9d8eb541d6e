"""How every call ends: with its answer, with an error of ours as its status, or with a defect that is logged."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, cast

from google.protobuf import message as protobuf

from hivemind_worker import errors
from hivemind_worker.artifacts import store as artifact_store
from hivemind_worker.artifacts import writing
from hivemind_worker.concurrency import clock
from hivemind_worker.pool.api import measuring
from hivemind_worker.pool.api import streams as pool_streams
from hivemind_worker.telemetry import logs
from hivemind_worker.wire import calls, verdicts


class Measured(Protocol):
    """A servicer whose calls are counted."""

    @property
    def told(self) -> measuring.Measuring:
        """What is told of each call."""

    @property
    def streams(self) -> pool_streams.Streams:
        """What its calls may have in memory."""


Servicer = TypeVar("Servicer", bound=Measured)
Asked = TypeVar("Asked")
Told = TypeVar("Told", bound=protobuf.Message)

log = logs.StructuredLogger(__name__)


@dataclass(frozen=True, slots=True)
class Large(Generic[Told]):
    """A message of a stream that is made once there is room for it: ``max_bytes`` while ``make`` makes it."""

    make: Callable[[], Awaitable[Told]]
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Piece(Generic[Told]):
    """A message of a stream with ``size`` bytes of a file, which ``make`` reads once there is room to send them."""

    make: Callable[[], Awaitable[Told]]
    size: int


def once(
    method: Callable[[Servicer, Asked, calls.Context], Awaitable[Told]],
) -> Callable[[Servicer, Asked, calls.Context], Awaitable[Told]]:
    """Wrap a call with one answer."""

    @functools.wraps(method)
    async def answered(servicer: Servicer, request: Asked, context: calls.Context) -> Told:
        began, well = clock.now(), False
        try:
            with contextlib.ExitStack() as rooms:
                told = await _answer(servicer, method, request, context, rooms)
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
    rooms: contextlib.ExitStack,
) -> Told:
    streams = servicer.streams
    told = await method(servicer, await streams.receive(method.__name__, request, context, rooms), context)
    _check_size(method.__name__, told)
    await streams.count_answer(context, told)
    return cast("Told", told.SerializeToString())  # the message itself is let go of


def many(
    method: Callable[[Servicer, Asked, calls.Context], AsyncGenerator[Told | Large[Told] | Piece[Told], None]],
) -> Callable[[Servicer, Asked, calls.Context], AsyncIterator[Told]]:
    """Wrap a call with a stream of answers: each is counted until it is written, and must be read in time."""

    async def answered(servicer: Servicer, request: Asked, context: calls.Context) -> None:
        stands_still = contextlib.ExitStack()
        with stands_still:
            try:
                await _send(servicer, method, request, context, stands_still)
            except calls.Gone:
                return  # a write met a line that had broken: the other end's affair, as a cancelled call is
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
    method: Callable[[Servicer, Asked, calls.Context], AsyncGenerator[Told | Large[Told] | Piece[Told], None]],
    request: Asked,
    context: calls.Context,
    stands_still: contextlib.ExitStack,
) -> None:
    streams, call = servicer.streams, method.__name__
    with contextlib.ExitStack() as rooms:
        parsed = await streams.receive(call, request, context, rooms, streams=True)
        async with contextlib.aclosing(method(servicer, parsed, context)) as messages:
            del parsed
            async for told in messages:
                box = [told]
                del told  # neither while it is written nor while the next one is awaited
                await _write(streams, call, context, box, stands_still)


async def _write(
    streams: pool_streams.Streams,
    call: str,
    context: calls.Context,
    box: list[Told | Large[Told] | Piece[Told]],
    stands_still: contextlib.ExitStack,
) -> None:
    """Write the message in ``box``. Raises :class:`errors.Unavailable` where the other end does not read it."""
    with contextlib.ExitStack() as room:
        data = await _counted(streams, call, context, box.pop(), room)
        try:
            async with asyncio.timeout(streams.write_seconds):
                await context.write(data)
        except TimeoutError:
            # gRPC holds the message until the other end reads or is gone: so long it counts.
            stands_still.push(room.pop_all())
            raise errors.Unavailable(
                f"nothing was read for {streams.write_seconds:.0f} s: the stream is ended; ask again"
            ) from None


async def _counted(
    streams: pool_streams.Streams,
    call: str,
    context: calls.Context,
    told: Told | Large[Told] | Piece[Told],
    room: contextlib.ExitStack,
) -> bytes:
    """Return a message as bytes, which count in ``room``. Raises :class:`errors.Unavailable`."""
    peer = pool_streams.peer(context)
    if isinstance(told, Piece):
        size = told.size + pool_streams.SMALL_ANSWER_BYTES
        counted = room.enter_context(await streams.downloads.take(peer, pool_streams.PIECE_FACTOR * size))
        message = await told.make()
        _check_size(call, message)
        counted.shrink(pool_streams.sent_bytes(message))
        return message.SerializeToString()
    if isinstance(told, Large):
        with await streams.room_to_work(context, told.max_bytes):
            message = await told.make()
            _check_size(call, message)
            room.enter_context(await streams.answers.take(peer, pool_streams.sent_bytes(message)))
            return message.SerializeToString()
    _check_size(call, told)
    size = told.ByteSize()
    # What it was made of is there as well while it is written.
    room.enter_context(await streams.answers.take(peer, pool_streams.sent_bytes(told) + size, in_memory=size))
    return told.SerializeToString()


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
