"""Removes what a node left at its engine: earlier lives of it, and this life where the engine's answer was lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from typing import Final

from hivemind_worker import errors
from hivemind_worker.concurrency import stopping
from hivemind_worker.runtime.docker import command_records, leftovers
from hivemind_worker.runtime.docker import engine as engines

SWEEP_SECONDS: Final = 60.0
"""Between two looks."""


class Sweeper:
    """Looks when it is opened, again and again, and when it is closed. ``record``: of a single command."""

    def __init__(
        self, engine: engines.Engine, node_id: str, boot_id: str, record: command_records.Record | None = None
    ) -> None:
        self._engine = engine
        self._node_id = node_id
        self._boot_id = boot_id
        self._record = record
        self._closing = stopping.Stop()
        self._sweeping: asyncio.Task[None] | None = None

    async def open(self, spared: Collection[str]) -> None:
        """Remove what earlier lives left, but what is ``spared`` by its name. Raises EngineLost, OSError."""
        if self._record is not None:
            await asyncio.to_thread(self._record.begin)
        await self._sweep(spared)
        self._sweeping = asyncio.create_task(self._sweep_repeatedly(spared), name="containers/sweep")

    async def settle(self) -> None:
        """Stop looking."""
        self._closing.request(stopping.StopLevel.DRAIN, "the executor closes")
        if self._sweeping is not None:
            await stopping.settle(self._sweeping)

    async def close(self) -> None:
        """Look for the last time, once nothing is made or removed any more; what stays the next start removes."""
        is_clean = False
        try:
            with contextlib.suppress(errors.NodeFault):
                await leftovers.remove_unsure(self._engine, self._node_id, self._boot_id)
                is_clean = not self._engine.unsure.names
        finally:
            if self._record is not None:
                await asyncio.to_thread(self._record.end, is_clean=is_clean)

    async def _sweep(self, spared: Collection[str]) -> None:
        await leftovers.remove(self._engine, self._node_id, boot_id=self._boot_id, spared=spared)
        await leftovers.remove_unsure(self._engine, self._node_id, self._boot_id)

    async def _sweep_repeatedly(self, spared: Collection[str]) -> None:
        """What a worker asked for as it was killed, or had given up, may be made after somebody has looked."""
        while not await self._closing.wait(timeout=SWEEP_SECONDS):
            with contextlib.suppress(errors.NodeFault):
                await self._sweep(spared)
