"""A relay of calls to a pool that can delay each at random, so that they overtake, and send some twice."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc_proxy

from hivemind_worker.wire import calls

REPEATED = frozenset({"RegisterNode", "UpdateNodeStatus", "ReportTaskResult", "GetAssignedTasks", "AppendTaskLogs"})
"""Calls that may come twice: the second time long after the first was answered."""


class Jumbler(grpc_proxy.Proxy):
    """Passes calls on as they come, until ``max_delay`` is set to more than 0 seconds."""

    def __init__(self, target: str, seed: int) -> None:
        super().__init__(target)
        self.max_delay = 0.0
        self.delayed = 0
        self.repeated = 0
        self._draw = random.Random(f"jumble {seed}")
        self._repeats: set[asyncio.Task[None]] = set()

    async def _relayed(
        self, method: str, requests: AsyncIterator[bytes], context: calls.Context
    ) -> AsyncIterator[bytes]:
        delay = self._draw.uniform(0.0, self.max_delay) if self.max_delay else 0.0
        if delay:
            self.delayed += 1
            await asyncio.sleep(delay)
        if delay and self._draw.random() < 0.25 and method.rpartition("/")[2] in REPEATED:
            copy = [request async for request in requests]
            self.repeated += 1
            metadata = [pair for pair in context.invocation_metadata() or () if not str(pair[0]).startswith("grpc-")]
            task = asyncio.create_task(self._repeat(method, copy, metadata), name="late repeat")
            self._repeats.add(task)
            task.add_done_callback(self._repeats.discard)
            requests = _again(copy)
        async for answer in super()._relayed(method, requests, context):
            yield answer

    async def _repeat(self, method: str, requests: list[bytes], metadata: list[tuple[str, str | bytes]]) -> None:
        """The same request once more, late; nobody reads its answer."""
        await asyncio.sleep(self._draw.uniform(0.0, 2 * self.max_delay))
        relay: Callable[..., Any] = self._channel.stream_stream(method)
        call = relay(timeout=10.0, metadata=metadata)
        with contextlib.suppress(Exception):  # whatever it is answered, its first was what counted
            for request in requests:
                await call.write(request)
            await call.done_writing()
            async for _ in call:
                break
        call.cancel()

    async def end(self) -> None:
        """End the repeats that are still to come."""
        for task in self._repeats:
            task.cancel()
        await asyncio.gather(*self._repeats, return_exceptions=True)


async def _again(requests: list[bytes]) -> AsyncIterator[bytes]:
    for request in requests:
        yield request


@contextlib.asynccontextmanager
async def before(target: str, *, seed: int) -> AsyncIterator[Jumbler]:
    """Have one within this block."""
    proxy = Jumbler(target, seed)
    async with grpc_proxy.serving(proxy):
        try:
            yield proxy
        finally:
            await proxy.end()
