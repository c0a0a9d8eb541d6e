"""A line to the pool that can come from another address, and stand still or trickle in either direction."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from types import TracebackType
from typing import Self

TRICKLE_BYTES = 1
"""What passes in a second while the line trickles."""

_READ_BYTES = 64 * 1024
_SOCKET_BYTES = 16 * 1024
"""What the kernel may hold of the answers: more of them would lie there instead of in the pool."""


class Relay:
    """Forwards connections to ``address`` (host:port) from the loopback address ``source``.

    While ``answers`` is cleared nothing of what the pool sends passes, but for a byte a second where it ``trickles``;
    the same for ``requests`` and what is sent to it.
    """

    def __init__(self, address: str, source: str = "127.0.0.1", *, trickles: bool = False) -> None:
        self._target = address
        self._source = source
        self._trickles = trickles
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()
        self.answers = asyncio.Event()
        self.requests = asyncio.Event()
        self.answers.set()
        self.requests.set()
        self.address = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for pump in self._pumps:
            pump.cancel()
        if self._pumps:
            await asyncio.wait(self._pumps)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pumps.add(task)
        upstream = socket.socket()
        upstream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BYTES)
        upstream.bind((self._source, 0))
        upstream.setblocking(False)
        host, _, port = self._target.rpartition(":")
        await asyncio.get_running_loop().sock_connect(upstream, (host, int(port)))
        pool_reader, pool_writer = await asyncio.open_connection(sock=upstream, limit=_READ_BYTES)
        pumps = {
            asyncio.create_task(self._pump(reader, pool_writer, self.requests)),
            asyncio.create_task(self._pump(pool_reader, writer, self.answers)),
        }
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            pass  # the end of this relay: the server would log it
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.wait(pumps)
            for end in (writer, pool_writer):
                end.transport.abort()
            self._pumps.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flows: asyncio.Event) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(_READ_BYTES):
                while data:
                    size = await self._passes(len(data), flows)
                    writer.write(data[:size])
                    await writer.drain()
                    data = data[size:]

    async def _passes(self, size: int, flows: asyncio.Event) -> int:
        """Wait until something may pass; return how much of ``size`` bytes."""
        if not flows.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(flows.wait(), 1.0 if self._trickles else None)
        return size if flows.is_set() else TRICKLE_BYTES
