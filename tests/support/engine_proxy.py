"""A port before the real engine that answers chosen calls itself: with an error, never, or by breaking the line."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable

from hivemind_worker.concurrency import stopping


@dataclasses.dataclass
class Fault:
    """What happens to requests that contain `call` in their first line, so many `times`.

    `answer`: an HTTP status; 0: no answer ever; -1: the connection breaks. With `late` the engine has the request once
    that is set, whoever still listens, and the answer is heard by nobody; `done` counts those answers.
    """

    call: bytes
    answer: int
    times: int = 1_000_000
    met: int = 0
    late: asyncio.Event | None = None
    done: int = 0

    def hits(self, request: bytes) -> bool:
        """Whether this request is one of them; counts it."""
        line = request.partition(b"\r\n")[0]
        hit = b" HTTP/1." in line and self.call in line and self.met < self.times
        self.met += hit
        return hit

    def bytes(self) -> bytes:
        """The answer."""
        body = b'{"message":"injected"}'
        head = f"HTTP/1.1 {self.answer} Fault\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body


async def _requests(
    fault: Fault,
    client: asyncio.StreamReader,
    answer: asyncio.StreamWriter,
    engine: asyncio.StreamWriter,
    deliver: Callable[[bytes], None],
) -> None:
    while data := await client.read(65536):
        if not fault.hits(data):
            engine.write(data)
            await engine.drain()
        elif fault.late is not None:
            deliver(await _whole(data, client))
        elif fault.answer > 0:
            answer.write(fault.bytes())
        elif fault.answer < 0:
            answer.transport.abort()


async def _deliver(path: str, request: bytes, fault: Fault) -> None:
    assert fault.late is not None
    await fault.late.wait()
    answers, engine = await asyncio.open_unix_connection(path)
    try:
        engine.write(request)
        await engine.drain()
        assert await answers.readline()
        fault.done += 1
    finally:
        engine.transport.abort()


async def _whole(request: bytes, client: asyncio.StreamReader) -> bytes:
    """A request with all of its body, of which the client has sent the beginning."""
    head, _, body = request.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            missing = int(line.partition(b":")[2]) - len(body)
            return request + (await client.readexactly(missing) if missing > 0 else b"")
    return request


@contextlib.asynccontextmanager
async def before(docker_url: str, fault: Fault) -> AsyncIterator[str]:
    """Open the port; its address as in DOCKER_HOST."""
    path = docker_url.removeprefix("unix://")
    serving: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
    delivering: set[asyncio.Task[None]] = set()

    def deliver(request: bytes) -> None:
        delivering.add(asyncio.create_task(_deliver(path, request, fault), name="late request"))

    async def answers(engine: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        while data := await engine.read(65536):
            answer.write(data)
            await answer.drain()

    async def serve(client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        me = asyncio.current_task()
        assert me is not None
        serving[me] = answer
        from_engine, engine = await asyncio.open_unix_connection(path)
        ways = [
            asyncio.create_task(_requests(fault, client, answer, engine, deliver), name="proxy requests"),
            asyncio.create_task(answers(from_engine, answer), name="proxy answers"),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await stopping.settle(*ways)
            for way in ways:
                with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                    way.result()
            answer.transport.abort()
            engine.transport.abort()
            serving.pop(me)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        host, port = server.sockets[0].getsockname()[:2]
        yield f"tcp://{host}:{port}"
    finally:
        server.close()
        for answer in tuple(serving.values()):
            answer.transport.abort()
        if serving:
            await asyncio.wait(set(serving))
        await stopping.settle(*delivering)
        await server.wait_closed()
