"""One pool on one channel: every call with its deadline, its second tries and errors in our own words."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Iterator
from typing import Protocol, TypeVar

import grpc

from hivemind_worker import errors
from hivemind_worker.concurrency import backoff, clock, stopping
from hivemind_worker.wire import calls, verdicts

CALL_SECONDS = 30.0
"""Deadline of one call that answers at once; a pool that needs longer is as good as gone."""

PATIENCE_SECONDS = 10.0
"""How long a pool may be away, by default, before a call is given up: the time that a pool takes to start again."""

PAUSE_SECONDS = 0.2
"""Ceiling of the first pause between two tries; it doubles up to `LONGEST_PAUSE`."""

LONGEST_PAUSE = 3.0

END_SECONDS = 1.0
"""How long a stream that has said everything may take to end: after that it is cancelled."""

Asked_contra = TypeVar("Asked_contra", contravariant=True)
Answer_co = TypeVar("Answer_co", covariant=True)
A = TypeVar("A")
Q = TypeVar("Q")
Stream = TypeVar("Stream", bound="grpc.aio.Call")


class Unary(Protocol[Asked_contra, Answer_co]):
    """A call with one answer, as the generated stub has it."""

    def __call__(self, request: Asked_contra, /, *, timeout: float | None = None) -> Awaitable[Answer_co]:
        """Ask."""


class Connection:
    """The calls of one pool, on a channel that is closed with :meth:`close`.

    ``patience`` is for how many seconds a pool that cannot be reached is tried again.
    """

    def __init__(self, channel: grpc.aio.Channel, address: str, patience: float = PATIENCE_SECONDS) -> None:
        self.address = address
        self.pool = calls.task_manager(channel)
        self._channel = channel
        self._patience = patience
        self._ending: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Let go of the channel, once the streams that end have ended: that takes a moment."""
        if self._ending:
            await asyncio.wait(self._ending, timeout=END_SECONDS)
        await stopping.settle(*self._ending)
        await self._channel.close()

    def finish(self, stream: AsyncGenerator[object, None]) -> None:
        """Read a stream that has said all that it had to say to its end, beside whatever follows."""
        ending = asyncio.create_task(_read_to_its_end(stream), name="client/stream's end")
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    def tries(self) -> Tries:
        """Return a fresh count of failures: what may be tried again, and after which pause."""
        return Tries(self.address, self._patience)

    async def ask(self, call: Unary[Q, A], request: Q, doing: str, call_seconds: float = CALL_SECONDS) -> A:
        """Return the answer to ``request``; ``doing`` is what an error says was tried.

        ``call_seconds`` is the deadline of each try.

        Tried again while patience lasts: every call of this protocol is harmless a second time. Raises
        :class:`errors.Unavailable` when patience has ended, and whatever the pool refused it with.
        """
        tries = self.tries()
        while True:
            try:
                return verdicts.legible(await call(request, timeout=call_seconds), doing)
            except grpc.aio.AioRpcError as error:
                await tries.again(error, doing)

    @contextlib.contextmanager
    def open(self, stream: Stream) -> Iterator[Stream]:
        """Have a stream open within a block: it is ended with it, also when nobody read it to its end."""
        try:
            yield stream
        finally:
            stream.cancel()

    def error(self, error: grpc.aio.AioRpcError, doing: str) -> errors.HiveMindError:
        """Return ``error`` in our words."""
        return _told(verdicts.read(error), doing, self.address)


class Tries:
    """Failures in a row, against one patience."""

    def __init__(self, address: str, patience: float) -> None:
        self._address = address
        self._patience = patience
        self._failures = 0
        self._since = 0.0

    def worked(self) -> None:
        """Something came through: the next failure is again the first."""
        self._failures = 0

    async def again(self, error: grpc.aio.AioRpcError, doing: str) -> None:
        """Pause before the next try, or raise ``error`` in our words where another would be in vain."""
        verdict = verdicts.read(error)
        if not self._failures:
            self._since = clock.now()
        pause = backoff.delay(self._failures, backoff.RANDOM, base=PAUSE_SECONDS, cap=LONGEST_PAUSE, least=0.02)
        left = self._since + self._patience - clock.now()
        if verdict.course is not verdicts.Course.RETRY or left <= 0:
            raise _told(verdict, doing, self._address) from error
        self._failures += 1
        await _NEVER.wait(timeout=min(pause, left))


async def _read_to_its_end(stream: AsyncGenerator[object, None]) -> None:
    """Nothing that goes wrong with it is news any more: all that it was opened for has come."""
    async with contextlib.aclosing(stream):
        with contextlib.suppress(errors.HiveMindError, TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                async for _ in stream:
                    pass


_NEVER = stopping.Stop()
"""Nobody asks this one to stop: waiting for it is a sleep, and a cancelled task leaves it at once."""


_OF_THE_POOL = "the pool"
"""How a pool of ours begins when it is there and cannot: its store's disk is full, it is closing."""


def _told(verdict: verdicts.Verdict, doing: str, address: str) -> errors.HiveMindError:
    unavailable = verdict.course is verdicts.Course.RETRY and verdict.code is grpc.StatusCode.UNAVAILABLE
    if unavailable and not verdict.message.startswith(_OF_THE_POOL):
        return errors.Unavailable(f"{doing}: no pool answers at {address}; is it running? (`hivemind up` starts one)")
    return verdicts.to_error(verdict, doing)
