"""L13: a machine that goes down soon after its worker has registered, again and again: an attempt each time."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import left_processes
import mortal
import preloaded
import pytest
import small_disk
import system_packages
import unsynced
import waiting

from hivemind_worker.pool.scheduling import challenge
from hivemind_worker.wire import calls
from hivemind_worker.worker.journal import former_boot

pb = calls.pb

pytestmark = [
    pytest.mark.skipif(system_packages.program("gcc") is None, reason="no compiler"),
    pytest.mark.skipif(not small_disk.can_mount(), reason="NO RIGHT TO MOUNT: no power is cut"),
]


class Unlucky(random.Random):
    """Draws the first change to lose: all that may be lost is."""

    def choice(self, seq: Any) -> Any:
        """Return the first."""
        return seq[0]


class Machine:
    """A worker on a disk that a power cut takes back to what was synced."""

    def __init__(self, worker: mortal.Mortal, undo: Path, library: Path) -> None:
        self.worker = worker
        self._undo = undo
        undo.mkdir()
        worker.extra_environment = {
            **unsynced.environment([worker.state], undo),
            **preloaded.environment({"unsynced": library}),
        }

    async def go_down(self) -> None:
        """All processes end, and what was not synced is gone; the next boot has another id."""
        worker = self.worker
        worker.kill()

        def left() -> dict[int, str]:
            found = left_processes.of_node(worker.node_id, worker.state)
            left_processes.end(found)
            return found

        await waiting.wait_until(lambda: not left(), description="all of it has ended")
        await asyncio.to_thread(unsynced.roll_back, [worker.state], self._undo, Unlucky())

    async def is_given(self, task_id: str, attempt: int) -> None:
        """Wait until the machine has been given that attempt."""

        async def look() -> bool:
            info = await self.worker.at.info(task_id)
            return info.attempt == attempt and info.state in {"assigned", "running"}

        asked: Callable[[], bool | Awaitable[bool]] = look
        await waiting.wait_until(asked, description=f"attempt {attempt} is given", seconds=30)


@contextlib.asynccontextmanager
async def machine(folder: Path) -> AsyncIterator[Machine]:
    """One that nobody has switched on yet; it goes down at the end."""
    words = ("--isolation=sandbox", "--log-format=json", "--heartbeat-interval=1", "--grace-seconds=1")
    with small_disk.mounted(folder / "state", 2_048):
        async with mortal.node(folder, *words, pool={"lease_seconds": 30.0}) as worker:
            made = Machine(worker, folder / "undo", preloaded.build("unsynced", folder))
            try:
                yield made
            finally:
                await made.go_down()


@pytest.mark.long
@pytest.mark.sandbox
async def test_l13_a_task_that_takes_its_machine_down_at_once_uses_up_its_attempts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its acceptance nor what the worker forgets once it has registered has reached the disk by then."""
    monkeypatch.setattr(challenge, "CHALLENGE_SECONDS", 0.5)
    monkeypatch.setattr(challenge, "RECONNECT_SECONDS", 0.0)
    async with machine(tmp_path) as at:
        await at.worker.start()
        await at.go_down()
        (task_id,) = await at.worker.at.submit(
            pb.Task(command="sleep 60", disk_limit="16m", memory_limit="64m", max_attempts=2)
        )
        for attempt in (1, 2):
            at.worker.begin()
            await at.is_given(task_id, attempt)
            assert (await at.worker.at.info(task_id)).disruptions == 0
            await at.go_down()
        at.worker.begin()
        info = await at.worker.ended(task_id)
        assert (info.state, info.attempt, info.disruptions) == ("failed", 2, 0)


STRUCK = (
    "worker.journal.writer:Journal.open:before",
    "worker.journal.writer:Journal.open:after",
    "worker.pool_link.client:NodePoolClient.register_node:before",
    "worker.pool_link.client:NodePoolClient.register_node:after",
)


@pytest.mark.long
@pytest.mark.sandbox
@pytest.mark.parametrize("goes_down", [False, True], ids=["the worker", "the machine"])
@pytest.mark.parametrize("strike", STRUCK)
async def test_l13_wherever_the_next_worker_ends_what_the_machine_forgot_is_an_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strike: str, *, goes_down: bool
) -> None:
    """It, or its machine, as it opens its journal, and as it registers."""
    monkeypatch.setattr(challenge, "CHALLENGE_SECONDS", 0.5)
    monkeypatch.setattr(challenge, "RECONNECT_SECONDS", 0.0)
    async with machine(tmp_path) as at:
        await at.worker.start()
        (task_id,) = await at.worker.at.submit(pb.Task(command="sleep 2", disk_limit="16m", memory_limit="64m"))
        await at.is_given(task_id, 1)
        await at.go_down()
        at.worker.begin(strike)
        await at.worker.killed()
        if goes_down:
            await at.go_down()
        at.worker.begin()
        info = await at.worker.ended(task_id)
        assert (info.attempt, info.disruptions) == (2, 0)
        assert not former_boot.path_beside(at.worker.state / "worker.journal").exists()
