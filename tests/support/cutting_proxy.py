"""A line that breaks: a TCP relay that hangs up after so many bytes, as often as it is told to."""

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
        self.address = ""
        self.broken = 0

    def break_now(self) -> None:
        """Hang up on every connection there is."""
        self.broken += len(self._open)
        for task in self._open:
            task.cancel()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        left = [self._cuts.pop(0)] if self._cuts else None
        with contextlib.suppress(OSError, asyncio.CancelledError):
            there_reader, there_writer = await asyncio.open_connection(self._host, int(self._port))
            ways = [
                asyncio.create_task(_copy(reader, there_writer, left), name="to the pool"),
                asyncio.create_task(_copy(there_reader, writer, left), name="from the pool"),
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


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: list[int] | None) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(PIECE):
            if left is not None:
                left[0] -= len(data)
                if left[0] <= 0:
                    return
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
