"""Servers that a task with egress may reach or must not, and a gateway that names the one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from hivemind_worker.runtime.egress import gateway
from hivemind_worker.settings import egress

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

GOOD, WITHIN, REBINDING = "good.example", "within.example", "rebinding.example"
BIG = b"x" * 300_000


@dataclass
class World:
    """A server that may be reached at ``port``, and what must not be: a service of this machine, and its pool."""

    port: int = 0
    service_port: int = 0
    pool_port: int = 0
    intruders: list[str] = field(default_factory=list)
    """Every connection to what must not be reached."""
    lookups: list[str] = field(default_factory=list)

    def resolve(self, name: str) -> Sequence[str]:
        """The name server of this world."""
        self.lookups.append(name)
        if name == REBINDING:  # another answer each time: 127.0.0.2 is this machine too, and is not listed
            return ["127.0.0.1" if self.lookups.count(name) % 2 else "127.0.0.2"]
        return ["127.0.0.1"] if name in {GOOD, WITHIN} else []

    def gateway(self, **limits: float) -> gateway.Gateway:
        """The way out of a node whose owner lists the one server."""
        allow = (
            *(f"127.0.0.1:{self.port}", f"{GOOD}:{self.port}", f"{REBINDING}:{self.port}"),
            *(f"{WITHIN}:*", "localhost:*", "public", f"127.0.0.1:{self.pool_port}"),
        )
        settings = egress.Egress(allow=allow, **limits)
        return gateway.Gateway(gateway.terms(settings, (f"127.0.0.1:{self.pool_port}",)), self.resolve)


@contextlib.asynccontextmanager
async def world() -> AsyncIterator[World]:
    """All servers, listening."""
    made = World()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            first = await reader.read(65536)
            if first.startswith(b"GET /redirect"):
                to = f"http://127.0.0.2:{made.service_port}/"
                writer.write(f"HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode())
            elif first.startswith(b"GET "):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(BIG) + len(first)) + BIG + first)
            else:
                while first:
                    writer.write(first)
                    await writer.drain()
                    first = await reader.read(65536)
            await writer.drain()
        writer.close()

    def intruder(name: str) -> Handler:
        async def note(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            made.intruders.append(name)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")
            writer.close()

        return note

    async with contextlib.AsyncExitStack() as stack:

        async def serve(handler: Handler, host: str, port: int = 0) -> int:
            server = await asyncio.start_server(handler, host, port)
            await stack.enter_async_context(server)
            return int(server.sockets[0].getsockname()[1])

        made.port = await serve(answer, "127.0.0.1")
        await serve(intruder("rebound"), "127.0.0.2", made.port)
        made.service_port = await serve(intruder("service"), "0.0.0.0")
        with contextlib.suppress(OSError):  # no IPv6 here
            await serve(intruder("service by IPv6"), "::1", made.service_port)
        made.pool_port = await serve(intruder("pool"), "127.0.0.1")
        yield made
