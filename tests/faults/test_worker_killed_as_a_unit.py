"""L01: the worker's whole unit is killed, sandboxes and all: what was told to start never runs again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import mortal
import pytest
import pytest_asyncio
import service_unit
import waiting

from hivemind_worker.wire import calls

pb = calls.pb

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(service_unit.mount() is None, reason="needs the right to make control groups"),
]


@pytest_asyncio.fixture
async def worker(tmp_path: Path) -> AsyncIterator[mortal.Mortal]:
    words = ("--isolation=sandbox", "--log-format=json", "--heartbeat-interval=1", "--grace-seconds=1")
    with service_unit.unit(tmp_path / "bin") as unit:
        async with mortal.node(tmp_path, *words, pool={"lease_seconds": 10.0}) as made:
            made.unit, made.prefix, made.extra_environment = unit, unit.prefix, unit.environment
            yield made


def executions(word: str) -> set[tuple[int, str]]:
    """Processes whose command line names ``word``, each with when it began: a number may be given again."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if any(word.encode() in each for each in words) and b"sh" in words[0]:
                found.add((int(folder.name), (folder / "stat").read_text().rpartition(")")[2].split()[19]))
        except OSError:
            continue  # it has ended
    return found


@pytest.mark.long
async def test_l01_a_task_whose_node_was_killed_three_times_ran_once(worker: mortal.Mortal) -> None:
    word = f"mark-{worker.node_id}"
    await worker.start()
    task_id = await worker.submit(f"echo began; sleep 600; : {word}", max_attempts=1)
    await waiting.wait_until(lambda: bool(executions(word)), description="the task runs", seconds=30)
    seen = executions(word)
    for _ in range(3):
        await worker.kill_unit()
        assert not executions(word)
        await worker.start()

        async def settled() -> bool:
            seen.update(executions(word))
            return bool(executions(word)) or (await worker.at.info(task_id)).state in {"failed", "completed"}

        look: Callable[[], bool | Awaitable[bool]] = settled
        await waiting.wait_until(look, description="it ran again, or has ended", seconds=30)
    assert len(seen) == 1, worker.log()
    info = await worker.ended(task_id)
    assert (info.state, info.attempt, info.result.reason) == ("failed", 1, "worker_crash"), info
    assert await worker.output(task_id) in {b"", b"began\n"}  # what had not left the killed process is gone with it


@pytest.mark.long
async def test_l01_a_task_that_kills_its_node_is_bounded_by_its_attempts(worker: mortal.Mortal) -> None:
    word = f"mark-{worker.node_id}"
    await worker.start()
    task_id = await worker.submit(f"sleep 600; : {word}", max_attempts=2)
    seen: set[tuple[int, str]] = set()

    async def settled() -> bool:
        running = executions(word)
        seen.update(running)
        return bool(running) or (await worker.at.info(task_id)).state in {"failed", "completed"}

    for _ in range(4):
        look: Callable[[], bool | Awaitable[bool]] = settled
        await waiting.wait_until(look, description="it runs, or has ended", seconds=30)
        if not executions(word):
            break
        await worker.kill_unit()
        await worker.start()
    info = await worker.ended(task_id)
    assert (info.state, info.attempt, info.result.reason) == ("failed", 2, "worker_crash"), info
    assert len(seen) == 2


@pytest.mark.long
async def test_l01_a_task_whose_preparation_kills_its_node_is_bounded_too(worker: mortal.Mortal) -> None:
    task_id = await worker.submit("echo began", max_attempts=1)
    lives = 0

    async def over() -> bool:
        assert worker.process is not None
        return worker.process.poll() is not None or (await worker.at.info(task_id)).state == "failed"

    while (await worker.at.info(task_id)).state != "failed":
        lives += 1
        assert lives <= 6, worker.log()
        worker.begin("runtime.sandbox.sandbox_executor:ProcessExecutor._converse:before")
        look: Callable[[], bool | Awaitable[bool]] = over
        await waiting.wait_until(look, description="it was killed, or the task has ended", seconds=40)
    info = await worker.at.info(task_id)
    assert (info.attempt, lives > 1) == (1, True)
