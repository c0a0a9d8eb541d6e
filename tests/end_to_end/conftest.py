"""Shells of users: with nothing, with each isolation in turn, and with `hivemind up` running."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import engine_api
import installed
import pytest

LABEL = '{"label":["io.hivemind.environment"]}'


@pytest.fixture
def shell(tmp_path: Path) -> installed.Shell:
    return installed.Shell(tmp_path)


@pytest.fixture(
    params=[pytest.param("sandbox", marks=pytest.mark.sandbox), pytest.param("docker", marks=pytest.mark.docker)]
)
def fenced(request: pytest.FixtureRequest, tmp_path: Path) -> installed.Shell:
    """A shell whose tasks are fenced by each isolation in turn."""
    if request.param == "sandbox":
        return installed.Shell(tmp_path, "--isolation", "sandbox")
    engine = request.getfixturevalue("docker_url")
    image = request.getfixturevalue("python_image")
    return installed.Shell(tmp_path, "--isolation", "docker", "--docker-host", engine, "--default-image", image)


@pytest.fixture
def up(fenced: installed.Shell) -> Iterator[installed.Up]:
    with installed.running_up(fenced) as found:
        yield found


@pytest.fixture(scope="module")
def engine(docker_url: str) -> Iterator[str]:
    """The engine, without the environments that these tests made in it."""
    before = _environments(docker_url)
    yield docker_url
    for made in _environments(docker_url) - before:
        engine_api.delete(docker_url, f"/images/{made}")


def _environments(engine: str) -> set[str]:
    return {image["Id"] for image in engine_api.get(engine, "/images/json", filters=LABEL)}
