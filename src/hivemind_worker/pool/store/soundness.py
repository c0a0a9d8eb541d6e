"""Whether the store's file is sound: looked into when it is opened, and at every error that says it is not."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from pathlib import Path

from hivemind_worker.pool.store import database, schema
from hivemind_worker.telemetry import logs

AT_OPEN_SECONDS = 5.0
"""How long a store is looked into before it serves; the rest of a larger one is looked into beside it. SQLite reads
127 MiB/s of it on two busy cores (1 KB rows), so that a store of half a gigabyte has been read whole by then."""

log = logs.StructuredLogger(__name__)


class Soundness:
    """What is known of a store's file. ``damage`` is empty until something is found; then nothing is written any more.

    Set from any thread, once; ``on_damage`` is then called on that thread.
    """

    def __init__(self, path: Path, on_damage: Callable[[], None] = lambda: None) -> None:
        self._path = path
        self._on_damage = on_damage
        self._problem = ""
        self._guard = threading.Lock()
        self._connection: database.Connection | None = None
        self._check: asyncio.Future[None] | None = None

    @property
    def damage(self) -> str:
        """What is wrong, and what to do; empty where nothing is known to be wrong."""
        if not self._problem:
            return ""
        return (
            f"the pool's store {self._path} is damaged ({self._problem}): nothing is handed out or written any more; "
            "stop the pool and put a backup in its place with `hivemind pool restore DIR --replace`"
        )

    def look_at(self, error: database.Error) -> str:
        """Take note of an error of the database; return :attr:`damage`."""
        if database.is_damage(error):
            self._found(str(error))
        return self.damage

    async def begin(self, seconds: float = AT_OPEN_SECONDS) -> None:
        """Look into every page, for ``seconds`` at most; then go on beside whoever waited."""
        if problem := database.lost(self._path):
            self._found(problem)
            return
        if database.application_id(self._path) != schema.APPLICATION_ID:
            return  # new, or another program's: whoever opens it to write says so
        self._check = asyncio.ensure_future(asyncio.to_thread(self._look))
        await asyncio.wait({self._check}, timeout=seconds)

    async def end(self) -> None:
        """Look no further."""
        if self._check is not None:
            while not self._check.done():
                if self._connection is not None:
                    self._connection.interrupt()
                await asyncio.wait({self._check}, timeout=0.1)
            await self._check

    def _look(self) -> None:
        try:
            connection = database.reading(self._path)
        except database.Error:
            return  # whoever opens it to write says why that cannot be
        with contextlib.closing(connection):
            self._connection = connection
            try:
                problem = database.damage(connection)
            finally:
                self._connection = None
        if problem:
            self._found(problem)

    def _found(self, problem: str) -> None:
        with self._guard:
            if self._problem:
                return
            self._problem = problem
        log.log_system_event("store_damaged", {"path": str(self._path), "problem": problem}, level="error")
        self._on_damage()
