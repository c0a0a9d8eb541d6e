"""Long work on an event loop in slices: others get a turn between two of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

from hivemind_worker.concurrency import clock

T = TypeVar("T")

SLICE_SECONDS = 0.005
"""How long the loop works on before it serves others: as long as the interpreter lets a thread work on."""


async def in_slices(items: Iterable[T]) -> AsyncIterator[T]:
    """Yield the items, and give others a turn whenever a slice of time has passed."""
    since = clock.now()
    for item in items:
        if clock.now() - since >= SLICE_SECONDS:
            await asyncio.sleep(0)
            since = clock.now()
        yield item
