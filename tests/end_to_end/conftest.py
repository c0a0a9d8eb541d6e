"""Shells of users: with nothing, with each isolation in turn, and with `hivemind up` running."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import engine_api
import fences
import installed
import pytest

LABEL = '{"label":["io.hivemind.environment"]}'


@pytest.fixture(scope="session", autouse=True)
def _command() -> Iterator[None]:
    """Import the command once for all shells."""
    with installed.preloaded():
        yield


@pytest.fixture
def shell(tmp_path: Path) -> installed.Shell:
    return installed.Shell(tmp_path)


@pytest.fixture(params=fences.BOTH)
def fenced(request: pytest.FixtureRequest, tmp_path: Path) -> installed.Shell:
    """A shell whose tasks are fenced by each isolation in turn."""
    return _shell(request, request.param, tmp_path)


def _shell(request: pytest.FixtureRequest, isolation: str, home: Path) -> installed.Shell:
    if isolation == "sandbox":
        return installed.Shell(home, "--isolation", "sandbox")
    engine = request.getfixturevalue("docker_url")
    image = request.getfixturevalue("python_image")
    return installed.Shell(home, "--isolation", "docker", "--docker-host", engine, "--default-image", image)


@pytest.fixture(scope="module", params=fences.BOTH)
def lasting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[installed.Up]:
    """As `up`, one for all tests of a file that neither end it nor count what it has."""
    with installed.running_up(_shell(request, request.param, tmp_path_factory.mktemp("lasting"))) as found:
        yield found


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
