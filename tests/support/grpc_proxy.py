"""A pool's port that stands before the real one and spoils chosen calls: done but not answered, twice, late, garbled.

It relays bytes and knows no messages, so it can pass on what no generated code would.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import gc
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import grpc

from hivemind_worker.wire import calls

# What it passes on is as large and as wrong as a test wants it.
_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.so_reuseport", 0),
    # A pool that was killed is met again soon after it is back.
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


@dataclass
class Fault:
    """What happens to the next ``times`` calls of the name ``call`` (`*`: any).

    - ``lost``: the pool does it, the answer is lost.
    - ``dropped``: it never reaches the pool.
    - ``twice``: the pool gets it twice, and the second answer comes back.
    - ``late``: after ``seconds``.
    - ``hung``: no answer, ever.
    - ``cut``: the stream of answers breaks after the first.
    - ``garbled``: ``data`` comes instead of the answer, and the pool hears nothing.
    """

    call: str
    how: str
    times: int = 1
    seconds: float = 0.0
    data: bytes = b""
    met: int = 0


class Proxy(grpc.GenericRpcHandler):
    """Relays every call to ``target``, except for the faults, which are used up in order."""

    def __init__(self, target: str, faults: Iterable[Fault] = ()) -> None:
        self.faults = list(faults)
        self.calls: collections.Counter[str] = collections.Counter()
        self.address = ""
        self._channel = grpc.aio.insecure_channel(target, options=[*_OPTIONS, ("grpc.use_local_subchannel_pool", 1)])
        self._closing = asyncio.Event()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        """Be asked by the library for what handles a call."""
        method = str(details.method)

        async def relayed(requests: AsyncIterator[bytes], context: calls.Context) -> AsyncIterator[bytes]:
            async for answer in self._relayed(method, requests, context):
                yield answer

        return grpc.stream_stream_rpc_method_handler(relayed)

    def _fault(self, call: str) -> Fault | None:
        for fault in self.faults:
            if fault.call in {call, "*"} and fault.met < fault.times:
                fault.met += 1
                return fault
        return None

    async def _relayed(
        self, method: str, requests: AsyncIterator[bytes], context: calls.Context
    ) -> AsyncIterator[bytes]:
        call = method.rpartition("/")[2]
        self.calls[call] += 1
        fault = self._fault(call)
        how = fault.how if fault else ""
        said = [request async for request in requests]
        if fault is not None and how == "garbled":
            yield fault.data
            return
        if how == "dropped":
            await context.abort(grpc.StatusCode.UNAVAILABLE, "dropped on the way")
        if fault is not None and how == "late":
            await asyncio.sleep(fault.seconds)
        if how == "hung":
            await self._closing.wait()
        try:
            if how in {"lost", "twice"}:
                async for _ in self._ask(method, said, context):
                    pass
            if how == "lost":
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the answer was lost")
            async for answer in self._ask(method, said, context):
                yield answer
                if how == "cut":
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "the stream broke")
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details() or "", tuple(error.trailing_metadata() or ()))

    async def _ask(self, method: str, said: list[bytes], context: calls.Context) -> AsyncIterator[bytes]:
        relay: Callable[..., Any] = self._channel.stream_stream(method)
        metadata = [pair for pair in context.invocation_metadata() or () if not str(pair[0]).startswith("grpc-")]
        call = relay(timeout=context.time_remaining(), metadata=metadata)
        try:
            for request in said:
                await call.write(request)
            await call.done_writing()
            async for answer in call:
                yield answer
        except asyncio.InvalidStateError:
            await call  # refused before it was all written: its status follows
        finally:
            call.cancel()


@contextlib.asynccontextmanager
async def before(target: str, *faults: Fault, compression: grpc.Compression | None = None) -> AsyncIterator[Proxy]:
    """Have one within this block."""
    proxy = Proxy(target, faults)
    async with serving(proxy, compression):
        yield proxy


@contextlib.asynccontextmanager
async def serving(proxy: Proxy, compression: grpc.Compression | None = None) -> AsyncIterator[None]:
    """Have this one listen within the block."""
    server = grpc.aio.server(options=_OPTIONS, compression=compression)
    server.add_generic_rpc_handlers((proxy,))
    proxy.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield
    finally:
        proxy._closing.set()
        await server.stop(None)
        await proxy._channel.close()
        del server
        for _ in range(3):  # as in scripted_pool: what was refused half read is collected first
            gc.collect()
            await asyncio.sleep(0.02)
