"""L05: what a killed `hivemind run` left at an engine, the next start of its user removes; what lives stays."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import engine_api
import installed
import mortal
import pytest
import waiting

from hivemind_worker.concurrency import stopping
from hivemind_worker.runtime import former_driver

pytestmark = pytest.mark.docker


class Commands:
    """Single commands of one user, with a cache folder of their own by which theirs are told from others'."""

    def __init__(self, folder: Path, docker_url: str, image: str) -> None:
        self._docker_url = docker_url
        self.cache = folder / "cache"
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("HIVEMIND_")}
        self._environment |= {
            "HIVEMIND_CACHE_DIR": str(self.cache),
            "HIVEMIND_DOCKER_HOST": docker_url,
            "HIVEMIND_DEFAULT_IMAGE": image,
        }
        self.begun: list[subprocess.Popen[bytes]] = []

    def begin(self, *argv: str, isolation: str = "docker", **options: str) -> subprocess.Popen[bytes]:
        """Start one and do not wait."""
        words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        command = [*mortal.COMMAND, "run", f"--isolation={isolation}", *words, "--", *argv]
        self.begun.append(installed.popen(command, env=self._environment, stdin=subprocess.DEVNULL))
        return self.begun[-1]

    def nodes(self) -> set[str]:
        """The names that the records of commands have given their containers."""
        return {path.stem for path in (self.cache / "commands").glob("*.json")}

    def containers(self, node_id: str, *states: str) -> list[str]:
        """Ids of what bears a command's name, in one of these states of the engine; in any without."""
        filters = json.dumps({"label": [f"io.hivemind.node-id={node_id}"], "status": states})
        found = engine_api.get(self._docker_url, "/containers/json", all="1", filters=filters)
        return [one["Id"] for one in found]

    def volumes(self, node_id: str) -> list[str]:
        """Names of its volumes."""
        filters = json.dumps({"label": [f"io.hivemind.node-id={node_id}"]})
        found = engine_api.get(self._docker_url, "/volumes", filters=filters)
        return [one["Name"] for one in found["Volumes"] or ()]

    def runs(self, before: set[str]) -> str:
        """Wait until a new command's task runs in its container, and return the command's name."""

        def new() -> str:
            return next((node_id for node_id in self.nodes() - before if self.containers(node_id, "running")), "")

        return waiting.wait_for(new, description="the command's container runs", seconds=60)


@pytest.fixture
def commands(tmp_path: Path, docker_url: str, busybox_image: str) -> Iterator[Commands]:
    made = Commands(tmp_path, docker_url, busybox_image)
    yield made
    for process in made.begun:
        process.kill()
        process.wait()
    for node_id in made.nodes():
        for container in made.containers(node_id):
            engine_api.delete(docker_url, f"/containers/{container}?force=1")


def sandboxed_command(commands: Commands) -> None:
    # Its sweep is beside its task, which must leave it the time.
    commands.begin("sleep", "3", isolation="sandbox").wait()


def command_in_a_container(commands: Commands) -> None:
    commands.begin("sleep", "3").wait()


@pytest.mark.long
@pytest.mark.parametrize(
    "next_start",
    [command_in_a_container, pytest.param(sandboxed_command, marks=pytest.mark.sandbox)],
    ids=lambda next_start: next_start.__name__,
)
def test_l05_what_a_killed_command_left_at_the_engine_is_removed_by_the_next(
    commands: Commands, next_start: Callable[[Commands], None]
) -> None:
    killed = commands.begin("sleep", "600", memory="64m")
    node_id = commands.runs(set())
    living = commands.begin("sleep", "600")
    other = commands.runs({node_id})
    killed.kill()  # the command alone
    killed.wait()
    assert commands.containers(node_id), "the engine knows nothing of its end"
    next_start(commands)
    assert not commands.containers(node_id)
    assert not commands.volumes(node_id)
    assert commands.containers(other), "another command that lives loses nothing"
    living.terminate()
    living.wait()
    assert not commands.containers(other)
    assert not commands.nodes(), "whoever ended in order, or was swept, has no record"


async def test_l05_what_a_killed_command_left_is_removed_beside_a_worker(commands: Commands, tmp_path: Path) -> None:
    killed = commands.begin("sleep", "600")
    node_id = await asyncio.to_thread(commands.runs, set())
    killed.kill()
    killed.wait()
    stop = stopping.Stop()
    node = former_driver.Node("docker", f"test-{node_id}", "unix:///nowhere", tmp_path)
    sweeping = asyncio.ensure_future(former_driver.loop(node, commands.cache)(stop))
    try:
        await waiting.wait_until(lambda: not commands.containers(node_id), description="it is removed", seconds=60)
    finally:
        stop.request(stopping.StopLevel.DRAIN, "the test ends")
        await sweeping
