"""The executors, each as a bench for hostile tasks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import attempts
import pytest
import pytest_asyncio


@pytest_asyncio.fixture(
    params=[pytest.param("process", marks=pytest.mark.sandbox), pytest.param("docker", marks=pytest.mark.docker)]
)
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[attempts.Bench]:
    """As in the contract suite."""
    if request.param == "docker":
        image = request.getfixturevalue("python_image")
        url = request.getfixturevalue("docker_url")
        async with attempts.docker_bench(url, image, tmp_path) as made:
            yield made
    else:
        async with attempts.process_bench(tmp_path) as made:
            yield made
