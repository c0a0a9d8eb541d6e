"""How every call ends: with its answer, with an error of ours as its status, or with a defect that is logged."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NoReturn, Protocol, TypeVar

from hivemind_worker.artifacts import store as artifact_store
from hivemind_worker.artifacts import writing
from hivemind_worker.concurrency import clock
from hivemind_worker.nodepool import measuring
from hivemind_worker.task import errors
from hivemind_worker.telemetry import logs
from hivemind_worker.wire import calls, verdicts


class Measured(Protocol):
    """A servicer whose calls are counted."""

    @property
    def told(self) -> measuring.Measuring:
        """What is told of each call."""


Servicer = TypeVar("Servicer", bound=Measured)
Asked = TypeVar("Asked")
Told = TypeVar("Told")

log = logs.StructuredLogger(__name__)


def once(
    method: Callable[[Servicer, Asked, calls.Context], Awaitable[Told]],
) -> Callable[[Servicer, Asked, calls.Context], Awaitable[Told]]:
    """Wrap a call with one answer."""

    @functools.wraps(method)
    async def answered(servicer: Servicer, request: Asked, context: calls.Context) -> Told:
        began, well = clock.now(), False
        try:
            told = await method(servicer, request, context)
            well = True
        except Exception as error:  # noqa: BLE001  (whatever it is, the other end must hear of it)
            await _fail(context, method.__name__, error)
        else:
            return told
        finally:
            servicer.told.call(method.__name__, clock.now() - began, answered=well)

    return answered


def many(
    method: Callable[[Servicer, Asked, calls.Context], AsyncIterator[Told]],
) -> Callable[[Servicer, Asked, calls.Context], AsyncIterator[Told]]:
    """Wrap a call with a stream of answers."""

    @functools.wraps(method)
    async def answered(servicer: Servicer, request: Asked, context: calls.Context) -> AsyncIterator[Told]:
        try:
            async for told in method(servicer, request, context):
                yield told
        except Exception as error:  # noqa: BLE001  (as above)
            await _fail(context, method.__name__, error)

    return answered


@contextlib.asynccontextmanager
async def listening(stream: AsyncIterator[Asked]) -> AsyncIterator[AsyncIterator[Asked]]:
    """Yield what reads a call's incoming stream, and let go of it at the end, read or not.

    gRPC leaves a stream that was not read to its end to the garbage collector, with the message it holds.
    """
    pieces = aiter(stream)
    try:
        yield pieces
    finally:
        close: Callable[[], Awaitable[None]] | None = getattr(pieces, "aclose", None)
        if close is not None:
            await close()


async def _fail(context: calls.Context, call: str, error: Exception) -> NoReturn:
    named = _named(error)
    if not isinstance(named, errors.HiveMindError) or isinstance(named, errors.ImpossibleMove):
        log.log_system_event("call_failed", {"call": call}, level="error", error=error)
        named = errors.HiveMindError(f"{call} failed in the pool: {type(error).__name__}; its log says more")
    await verdicts.refuse(context, named)


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
