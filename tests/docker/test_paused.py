"""A container that whoever may use the engine has paused: it is no less ended, and its worker says what is with it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import attempts
import pytest
import pytest_asyncio
import waiting

from hivemind_worker.concurrency import stopping
from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.runtime.docker import hardening, taking_up
from hivemind_worker.tasks import outcome

pytestmark = pytest.mark.docker


@pytest_asyncio.fixture
async def engine(docker_url: str) -> AsyncIterator[engines.Engine]:
    made = engines.Engine(docker_url, patience=0.5)
    await made.connect()
    yield made
    await made.close()


async def pause(engine: engines.Engine, container: str) -> None:
    await engine._empty("pause", f"containers/{container}/pause", "POST")


async def test_one_that_is_to_be_entered_again_is_said_to_be_paused(engine: engines.Engine, busybox_image: str) -> None:
    body = {"Image": busybox_image, "Cmd": ["sleep", "600"]}
    container = await engine.create(f"hivemind-paused-test-{uuid.uuid4().hex[:12]}", body)
    try:
        await engine.start(container)
        await pause(engine, container)
        found = await taking_up.attach(engine, container, stopping.Stop())
        assert found.stream is None
        assert "paused" in found.why
    finally:
        await engine.remove(container)


@pytest.mark.long
async def test_its_task_ends_at_its_time(
    engine: engines.Engine, docker_url: str, python_image: str, tmp_path: Path
) -> None:
    async with attempts.docker_bench(docker_url, python_image, tmp_path) as bench:
        plan = bench.plan(["sleep", "600"], limits={"timeout_seconds": 3.0}, grace_seconds=0.5)

        async def its_container() -> str:
            found = await engine.containers(f"{hardening.LABEL}.task-id={plan.task_id}")
            return next((str(each["Id"]) for each in found if each["State"] == "running"), "")

        run = asyncio.create_task(bench.executor.run(plan, stopping.Stop(), attempts.Watcher()))
        await pause(engine, await waiting.wait_until(its_container, description="it runs", seconds=30))
        async with asyncio.timeout(3.0 + 0.5 + 7.0 + 10.0):
            ended = await run
        assert ended.reason is outcome.Reason.TIMEOUT, ended.error
        await waiting.wait_until(lambda: not bench.executor.undead, description="it is gone", seconds=30)
