"""A line that breaks: a TCP relay that hangs up after so many bytes or at once, refuses, goes silent or deaf."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable

PIECE = 64 * 1024


class Line:
    """A relay to ``host:port``. Each connection takes the next of ``cuts`` as its number of bytes; then none is cut."""

    def __init__(self, target: str, cuts: Iterable[int]) -> None:
        self._host, _, self._port = target.rpartition(":")
        self._cuts = list(cuts)
        self._open: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self.refusing = False
        self.losing_answers = False
        self.delay_seconds = 0.0
        self.address = ""
        self.broken = 0
        self.accepted: list[float] = []
        """When somebody connected, by the loop's clock."""

    def break_now(self) -> None:
        """Hang up on every connection there is."""
        self.broken += len(self._open)
        for task in self._open:
            task.cancel()

    def part(self) -> None:
        """Hang up, and on whoever comes, until `join`."""
        self.refusing = True
        self.break_now()

    def freeze(self) -> None:
        """Be half-open: connections stand and are taken, and no byte comes through either way, until `join`."""
        self._flows.clear()

    def deafen(self) -> None:
        """Let everything through to the pool and nothing back: it is done, and the answer is lost; until `join`."""
        self.losing_answers = True

    def join(self) -> None:
        """Be a good line again. What was kept back by a frozen one flows on; where answers are lost it hangs up."""
        if self.losing_answers:
            self.break_now()
        self.losing_answers = False
        self.refusing = False
        self.delay_seconds = 0.0
        self._flows.set()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted.append(asyncio.get_running_loop().time())
        if self.refusing:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        left = [self._cuts.pop(0)] if self._cuts else None
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self._flows.wait()
            there_reader, there_writer = await asyncio.open_connection(self._host, int(self._port))
            ways = [
                asyncio.create_task(self._copy(reader, there_writer, left, answers=False), name="to the pool"),
                asyncio.create_task(self._copy(there_reader, writer, left, answers=True), name="from the pool"),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
                there_writer.transport.abort()
        if left is not None and left[0] <= 0:
            self.broken += 1
        writer.transport.abort()
        self._open.discard(task)

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: list[int] | None, *, answers: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(PIECE):
                if left is not None:
                    left[0] -= len(data)
                    if left[0] <= 0:
                        return
                if self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                await self._flows.wait()
                if not (answers and self.losing_answers):
                    writer.write(data)
                    await writer.drain()


@contextlib.asynccontextmanager
async def line(target: str, cuts: Iterable[int] = ()) -> AsyncIterator[Line]:
    """Have a relay within this block."""
    made = Line(target, cuts)
    server = await asyncio.start_server(made._relay, "127.0.0.1", 0)
    made.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
        made.break_now()
        await server.wait_closed()
