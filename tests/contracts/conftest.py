"""The executors, each as a bench that the contract suite runs on; and the stores, each with its clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import attempts
import pytest
import pytest_asyncio
import store_parts

from hivemind_worker.pool.store import sqlite, store


@pytest_asyncio.fixture(
    params=[pytest.param("process", marks=pytest.mark.sandbox), pytest.param("docker", marks=pytest.mark.docker)]
)
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[attempts.Bench]:
    if request.param == "docker":
        image = request.getfixturevalue("python_image")
        url = request.getfixturevalue("docker_url")
        async with attempts.docker_bench(url, image, tmp_path) as made:
            yield made
    else:
        async with attempts.process_bench(tmp_path) as made:
            yield made


@pytest.fixture
def clock() -> store_parts.Clock:
    return store_parts.Clock()


@pytest.fixture
def wall() -> store_parts.Clock:
    return store_parts.Clock(1_800_000_000.0)


@pytest.fixture(params=["sqlite"])
def opener_by(request: pytest.FixtureRequest, tmp_path: Path, wall: store_parts.Clock) -> store_parts.OpenerBy:
    """Opens the test's store with the time that its leases are due by."""
    assert request.param == "sqlite"
    return lambda time: sqlite.SqliteStore(tmp_path / "pool.sqlite", store_parts.LEASE, time, wall)


@pytest.fixture
def opener(opener_by: store_parts.OpenerBy, clock: store_parts.Clock) -> store_parts.Opener:
    return lambda: opener_by(clock)


@pytest_asyncio.fixture
async def kept(opener: store_parts.Opener) -> AsyncIterator[store.Store]:
    opened = opener()
    await opened.open()
    yield opened
    await opened.close()
