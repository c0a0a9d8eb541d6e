"""What the verbs that ask a pool have in common: a client on the settings in force, and one event loop around it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from hivemind_worker.cli import options
from hivemind_worker.client import asynchronous
from hivemind_worker.wiring import clients

T = TypeVar("T")
Told = Callable[[str, int, int], None]


def pool(given: dict[str, Any], ask: Callable[[asynchronous.AsyncClient], Awaitable[T]], told: Told | None = None) -> T:
    """Open a client as the options and settings say, do what ``ask`` does with it, and return what it returns.

    ``told`` is told of files on their way: what, bytes done, bytes in all.
    """

    async def within() -> T:
        async with clients.build(settings, told) as client:
            return await ask(client)

    settings = options.load(given)
    return asyncio.run(within())
