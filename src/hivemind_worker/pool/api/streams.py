"""What calls may have in the pool's memory: bytes on their way, by caller and in all, and how long they stand still.

gRPC has a message in memory while it comes and until the other end has taken it, and nobody else says how many. So each
is counted before it is read or written; what finds no room waits, and is then refused for another try.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

from google.protobuf import message as protobuf

from hivemind_worker import errors
from hivemind_worker.pool.api import peer_locks
from hivemind_worker.wire import calls, unparsed

T = TypeVar("T")

MAX_BYTES = 256 * 1024**2
"""Of all callers together, for each kind of stream: 64 of the largest messages."""

MAX_PEER_BYTES = 64 * 1024**2
"""Of one caller's address: 16 of the largest messages. More at once would make no disk faster."""

MAX_WAITING_PART = 4
"""Of what is in memory while it waits: a quarter of the room may wait for more, by caller and in all."""

RESERVED_PART = 8
"""An eighth of all the room is for callers that have no more than an eighth of their own: four that use up theirs would
else leave nobody else any."""

MAX_WAITING = 2_000
"""Streams that wait for room; one more is refused at once."""

WAIT_SECONDS = 10.0
"""How long a stream waits for room: less than the 15 s that a worker waits for the answer to a call."""

IDLE_SECONDS = 30.0
"""How long a message of an upload may take to come: 1 MiB takes 16 s on the slowest line that a worker puts up with."""

DRAIN_SECONDS = 1.0
DRAIN_MESSAGES = 8
"""What is read and dropped of a stream that needs no more: the few messages that are on their way already."""

WRITE_SECONDS = 120.0
"""How long a message may take to be read: one of 4 MiB takes 64 s on such a line."""

READ_SECONDS = WRITE_SECONDS
"""How long the one request of a call may take to come."""

HALF_MAX_BYTES, HALF_MAX_PEER_BYTES = MAX_BYTES // 2, MAX_PEER_BYTES // 2
"""Of requests: one half while they are read, the other while they are worked on."""

WORK_FACTOR = 2
"""What a call makes of its request, in Python's values, beside the parsed message itself."""

ANSWER_FACTOR = 4
"""What is taken to make an answer out of so many bytes of the store: as they are read, parsed, and sent."""

NODE_CALLS = frozenset({"RegisterNode", "UpdateNodeStatus", "GetAssignedTasks", "Ping"})
"""What keeps a node alive waits behind nothing else."""

PIECE_FACTOR = 3
"""What a piece of a file takes until it is a message: as it is read, in the message, and as the bytes of that."""

SMALL_ANSWER_BYTES = 4 * 1024
"""An answer of no more is not counted: 10,000 calls that read none have 40 MiB of them."""


class Room:
    """Bytes of a budget, counted until the block ends."""

    __slots__ = ("_budget", "_peer", "_size")

    def __init__(self, budget: Budget, peer: str, size: int) -> None:
        self._budget = budget
        self._peer = peer
        self._size = size

    @property
    def size(self) -> int:
        """What it counts now."""
        return self._size

    def shrink(self, size: int) -> None:
        """Count no more than ``size`` bytes from now on."""
        surplus, self._size = self._size - size, size
        self._budget.give_back(self._peer, surplus)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shrink(0)


class Budget:
    """Bytes of one kind of stream. Whoever waits for room gets it in turn, but for those whose caller has none left."""

    def __init__(
        self,
        max_bytes: int = MAX_BYTES,
        max_peer_bytes: int = MAX_PEER_BYTES,
        max_waiting: int = MAX_WAITING,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        self._max_bytes = max_bytes
        self._max_peer_bytes = max_peer_bytes
        self._max_waiting = max_waiting
        self._wait_seconds = wait_seconds
        self._used = 0
        self._used_by: collections.Counter[str] = collections.Counter()
        self._waiting: dict[asyncio.Future[None], tuple[str, int]] = {}
        self._waiting_bytes: collections.Counter[str] = collections.Counter()
        """Of what is in memory already while it waits, by caller."""

    @property
    def used_bytes(self) -> int:
        """What is counted now."""
        return self._used

    @contextlib.asynccontextmanager
    async def room(self, peer: str, size: int, *, in_memory: int = 0) -> AsyncIterator[None]:
        """Count ``size`` bytes of ``peer`` within the block. Raises as `take`."""
        with await self.take(peer, size, in_memory=in_memory):
            yield

    async def take(self, peer: str, size: int, *, in_memory: int = 0) -> Room:
        """Count ``size`` bytes of ``peer`` until its room is left. Raises :class:`errors.Unavailable` for lack of room.

        ``in_memory`` bytes are there already: what waits of them is bounded as well; what is beyond is refused at once.
        """
        await self._take(peer, size, in_memory)
        return Room(self, peer, size)

    def give_back(self, peer: str, size: int) -> None:
        """Count so many bytes less."""
        if size:
            self._give(peer, size)

    async def _take(self, peer: str, size: int, waiting_bytes: int = 0) -> None:
        if self._fits(peer, size):
            self._count(peer, size)
            return
        if len(self._waiting) >= self._max_waiting or not self._may_wait(peer, waiting_bytes):
            raise errors.Unavailable("the pool has no room for another stream now: too many wait for it already")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = (peer, size)
        self._waiting_bytes[peer] += waiting_bytes
        try:
            # Not `wait_for`: a turn that comes in the moment of the deadline is taken.
            await asyncio.wait({turn}, timeout=self._wait_seconds)
        except asyncio.CancelledError:
            if turn.done():
                self._give(peer, size)
            raise
        finally:
            self._waiting.pop(turn, None)
            self._waiting_bytes[peer] -= waiting_bytes
            if not self._waiting_bytes[peer]:
                del self._waiting_bytes[peer]
        if not turn.done():
            raise errors.Unavailable(
                f"the pool has no room for another stream from {peer} now: "
                f"{self._used_by[peer] // 1024**2} MiB of its streams are under way, {self._used // 1024**2} MiB in all"
            )

    def _may_wait(self, peer: str, size: int) -> bool:
        """What waits alone may be of any size."""
        waiting, all_waiting = self._waiting_bytes[peer], self._waiting_bytes.total()
        return not size or (
            (not waiting or waiting + size <= self._max_peer_bytes // MAX_WAITING_PART)
            and (not all_waiting or all_waiting + size <= self._max_bytes // MAX_WAITING_PART)
        )

    def _fits(self, peer: str, size: int) -> bool:
        """Nothing always fits; what is larger than all the room goes alone."""
        used_by = self._used_by[peer]
        return not size or (self._fits_all(peer, size) and (not used_by or used_by + size <= self._max_peer_bytes))

    def _fits_all(self, peer: str, size: int) -> bool:
        reserved = 0 if self._is_small(peer, size) else self._max_bytes // RESERVED_PART
        return not self._used or self._used + size <= self._max_bytes - reserved

    def _is_small(self, peer: str, size: int) -> bool:
        return self._used_by[peer] + size <= self._max_peer_bytes // RESERVED_PART

    def _count(self, peer: str, size: int) -> None:
        self._used += size
        self._used_by[peer] += size

    def _give(self, peer: str, size: int) -> None:
        self._count(peer, -size)
        if not self._used_by[peer]:
            del self._used_by[peer]
        is_full = False  # then only what is reserved is given: nothing small overtakes for ever what is large
        for turn, (waiting_peer, waiting_size) in list(self._waiting.items()):
            if not self._fits_all(waiting_peer, waiting_size):
                is_full = True
            if is_full and not self._is_small(waiting_peer, waiting_size):
                continue
            if not turn.done() and self._fits(waiting_peer, waiting_size):
                self._count(waiting_peer, waiting_size)
                del self._waiting[turn]
                turn.set_result(None)


class Incoming(Generic[T]):
    """The messages of a call's incoming stream. None is kept here, and none may keep us waiting.

    Raises :class:`errors.Unavailable` where the next one does not come within ``idle_seconds``.
    """

    def __init__(self, stream: AsyncIterator[T], idle_seconds: float) -> None:
        self._stream = aiter(stream)
        self._idle_seconds = idle_seconds

    def __aiter__(self) -> Incoming[T]:
        return self

    async def __anext__(self) -> T:
        try:
            async with asyncio.timeout(self._idle_seconds):
                message = await anext(self._stream)
        except TimeoutError:
            raise errors.Unavailable(
                f"nothing came for {self._idle_seconds:.0f} s: the stream is ended, to be taken up where it stands"
            ) from None
        return await unparsed.parse(message)

    async def close(self) -> None:
        """Let go of the stream, read or not.

        gRPC leaves one that was not read to its end to the garbage collector, with the message it holds. And a caller
        that is amid a message when its call ends keeps its connection open for good: what it has begun is read first.
        """
        with contextlib.suppress(Exception):  # its end, a deadline, a caller that is gone: nobody needs what comes here
            async with asyncio.timeout(DRAIN_SECONDS):
                for _ in range(DRAIN_MESSAGES):
                    await anext(self._stream)
        close: Callable[[], Awaitable[None]] | None = getattr(self._stream, "aclose", None)
        if close is not None:
            await close()


_ROOMS: contextvars.ContextVar[contextlib.ExitStack] = contextvars.ContextVar("rooms")
"""What the call that this task works on has of the budgets."""


def _half() -> Budget:
    return Budget(HALF_MAX_BYTES, HALF_MAX_PEER_BYTES)


@dataclass(frozen=True, slots=True)
class Requests:
    """The budgets of calls that have one request: what is being read, and what is worked on, answers included.

    Whoever works on one may wait for room for its answer, and never for what is being read.
    """

    reading: Budget = field(default_factory=_half)
    work: Budget = field(default_factory=_half)


class Streams:
    """The budgets of a pool's calls, each kind by itself, so that none waits behind another.

    ``files`` and ``output`` that come, ``downloads`` (files, output) and ``answers`` that are sent, ``requests`` of one
    message, ``node_requests`` that keep a node alive, and what streams hold as long as they are ``open``. ``looks``: of
    each caller's watchers one at a time makes messages.
    """

    def __init__(
        self,
        *,
        files: Budget | None = None,
        output: Budget | None = None,
        downloads: Budget | None = None,
        answers: Budget | None = None,
        requests: Requests | None = None,
        idle_seconds: float = IDLE_SECONDS,
        write_seconds: float = WRITE_SECONDS,
        read_seconds: float = READ_SECONDS,
    ) -> None:
        self.files = files or Budget()
        self.output = output or Budget()
        self.downloads = downloads or Budget()
        self.answers = answers or Budget()
        self.requests = requests or Requests()
        self.node_requests = Requests()
        self.open = Budget()
        self.looks = peer_locks.PeerLocks()
        self.idle_seconds = idle_seconds
        self.write_seconds = write_seconds
        self.read_seconds = read_seconds

    async def receive(
        self, call: str, request: T, context: calls.Context, rooms: contextlib.ExitStack, *, streams: bool = False
    ) -> T:
        """Return the request of a call once there was room to read and to parse it. What it takes counts in ``rooms``.

        ``streams``: the call stays open for as long as it likes, and must keep nobody from work. Raises
        :class:`errors.Unavailable` where it does not come in time or finds no room; as `unparsed.parsed_bytes`.
        """
        _ROOMS.set(rooms)
        if not isinstance(request, unparsed.Unread):
            return await unparsed.parse(request)
        budgets = self.node_requests if call in NODE_CALLS else self.requests
        caller = peer(context)
        with await budgets.reading.take(caller, calls.MESSAGE_BYTES) as reading:
            message: unparsed.Unparsed[Any] = await self._read(request)
            reading.shrink(len(message.data))
            work = await budgets.work.take(caller, WORK_FACTOR * await unparsed.parsed_bytes(message))
            rooms.enter_context(work)
            parsed = unparsed.parse_counted(message)
        if streams:
            rooms.enter_context(await self.open.take(caller, work.size))
            work.shrink(0)
        return cast("T", parsed)

    async def _read(self, request: unparsed.Unread[Any]) -> unparsed.Unparsed[Any]:
        try:
            async with asyncio.timeout(self.read_seconds):
                return await request.read()
        except TimeoutError:
            raise errors.Unavailable(f"the request did not come within {self.read_seconds:.0f} s: call again") from None

    async def room_to_work(self, context: calls.Context, size: int) -> Room:
        """Count ``size`` bytes that a call is about to have in memory. Raises :class:`errors.Unavailable`."""
        return await self.requests.work.take(peer(context), size)

    async def work_on(self, context: calls.Context, size: int) -> None:
        """As `room_to_work`, until the one answer of this call is counted."""
        if size:
            _ROOMS.get().enter_context(await self.room_to_work(context, size))

    def let_wait(self) -> None:
        """Count nothing more of this call's request, which it has let go of: it waits, and keeps nobody from work."""
        _ROOMS.get().close()

    async def count_answer(self, context: calls.Context, message: protobuf.Message) -> None:
        """Count the one answer of a call until the other end has taken it. Raises :class:`errors.Unavailable`.

        gRPC cannot take back an answer that it was given, so one that nobody reads counts until its caller hangs up.
        """
        size = sent_bytes(message)
        if size > SMALL_ANSWER_BYTES:
            room = await self.answers.take(peer(context), size)
            give_back: Any = lambda _: room.shrink(0)  # noqa: E731  (the library's type has another arity)
            context.add_done_callback(give_back)

    @contextlib.asynccontextmanager
    async def incoming(
        self, budget: Budget, stream: AsyncIterator[T], context: calls.Context
    ) -> AsyncIterator[Incoming[T]]:
        """Yield what reads a call's incoming stream, once there is room for it, and let go of it at the end."""
        async with budget.room(peer(context), calls.MESSAGE_BYTES):
            pieces = Incoming(stream, self.idle_seconds)
            try:
                yield pieces
            finally:
                await pieces.close()


def sent_bytes(message: protobuf.Message) -> int:
    """Return what a message takes while it is sent: gRPC has its bytes twice, as they come and as they go."""
    return 2 * message.ByteSize()


def peer(context: calls.Context) -> str:
    """Return the caller's address without its port: connections cost nothing, and would each have a budget."""
    address = context.peer()
    return address.rpartition(":")[0] if address.startswith(("ipv4:", "ipv6:")) else address
