"""What `grpc.health.v1` says of the pool: SERVING while it hands out tasks, as its readiness is. Made by NodePool."""

from __future__ import annotations

import asyncio

from grpc_health.v1 import health, health_pb2  # type: ignore[import-untyped]

from hivemind_worker.concurrency import stopping
from hivemind_worker.pool import readiness
from hivemind_worker.wire import calls


class ServingStatus:
    """``servicer`` answers whoever asks; one loop keeps it in step with the readiness. For one event loop."""

    def __init__(self, ready: readiness.Readiness) -> None:
        self.servicer = health.aio.HealthServicer()
        self._readiness = ready
        self._changed = asyncio.Event()
        ready.listen(lambda is_ready: self._changed.set())  # noqa: ARG005  (what is true when it is written counts)

    async def update(self) -> None:
        """Say how it is now, of the pool and of each of its services."""
        statuses = health_pb2.HealthCheckResponse
        status = statuses.NOT_SERVING if self._readiness.unready_reasons else statuses.SERVING
        for name in ("", *calls.service_names()):
            await self.servicer.set(name, status)

    async def run(self, stop: stopping.Stop) -> None:
        """Follow the readiness until the stop."""
        closing = asyncio.create_task(stop.wait(), name="serving status/stop")
        closing.add_done_callback(lambda _: self._changed.set())
        try:
            while not stop.requested:
                await self._changed.wait()
                self._changed.clear()
                await self.update()
        finally:
            await stopping.settle(closing)
