"""What containers use, on the real engine: by the kernel's files where they can be seen, else by the engine's word."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from hivemind_worker.concurrency import supervision
from hivemind_worker.runtime import live
from hivemind_worker.runtime.capsule import accounts
from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.runtime.docker import usage

pytestmark = pytest.mark.docker
MIB = 1024 * 1024
NOWHERE = Path("/nowhere")


@pytest_asyncio.fixture
async def engine(docker_url: str) -> AsyncIterator[engines.Engine]:
    made = engines.Engine(docker_url)
    await made.connect()
    yield made
    await made.close()


@pytest_asyncio.fixture
async def busy(engine: engines.Engine, busybox_image: str) -> AsyncIterator[str]:
    """A container that spins, with 64 MiB and a network of its own."""
    body = {
        "Image": busybox_image,
        "Cmd": ["/bin/sh", "-c", "while :; do :; done"],
        "HostConfig": {"Memory": 64 * MIB, "MemorySwap": 64 * MIB, "NetworkMode": "bridge"},
    }
    container = await engine.create(f"hivemind-monitor-test-{uuid.uuid4().hex[:12]}", body)
    await engine.start(container)
    yield container
    await engine.remove(container)


@pytest.mark.parametrize("files", [True, False])
async def test_files_and_engine_tell_of_a_running_container(engine: engines.Engine, busy: str, files: bool) -> None:
    seen = usage.read(busy) is not None
    if files and not seen:
        pytest.skip("this engine's control groups cannot be seen from here")
    monitor = usage.ContainerMonitor(engine) if files else usage.ContainerMonitor(engine, NOWHERE)
    first = await monitor.monitor_container(busy)
    assert first is not None
    assert first.cpu_percent is None
    found: accounts.Usage | None = first
    async with asyncio.timeout(30):
        while found is not None and not found.cpu_percent:
            found = await monitor.monitor_container(busy, first)
    assert found is not None
    assert found.memory_limit_bytes == 64 * MIB
    said = found.as_json()
    assert 0 < (said["memory_percent"] or 0) < 100
    assert 1 < (said["cpu_percent"] or 0) <= 110 * (os.cpu_count() or 1)
    assert said["network_rx"] is not None
    assert said["processes"] == 1


async def test_nothing_is_said_of_a_container_that_is_gone_or_stopped(engine: engines.Engine, busy: str) -> None:
    monitor = usage.ContainerMonitor(engine)
    assert await monitor.monitor_container("0" * 64) is None
    assert await monitor.monitor_container("../../etc") is None
    await engine.kill(busy)
    await engine.wait(busy, seconds=30)
    assert await monitor.monitor_container(busy) is None


async def test_the_engine_is_asked_about_one_container_at_a_time(engine: engines.Engine, busy: str) -> None:
    jobs = supervision.Jobs("test", lambda name, error: pytest.fail(f"{name}: {error}"))
    watched = live.Live(jobs)
    at_once: list[int] = []

    async def ask() -> accounts.Reading | None:
        at_once.append(len(jobs))
        return await usage.ask(engine, busy)

    keys = [("a", 1), ("b", 1), ("c", 1)]
    for key in keys:
        watched.begin(key, 64 * MIB, lambda: None, ask)
    async with asyncio.timeout(60):
        while len(await watched.usage()) < len(keys):
            await jobs.idle()
    assert set(at_once) == {1}
    assert len(at_once) == len(keys), "each in its turn, the longest unheard first"
    await jobs.close(seconds=30)
