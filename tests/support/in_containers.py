"""A worker process whose tasks run in containers, and what of it is at the engine."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import engine_api
import mortal
import waiting

from hivemind_worker.worker.journal import reader


@contextlib.asynccontextmanager
async def worker(
    docker_url: str, image: str, folder: Path, *more: str, pool: Mapping[str, object] | None = None
) -> AsyncIterator[mortal.Mortal]:
    """One that is not started yet; in the end nothing of it may be at the engine."""
    words = (f"--docker-host={docker_url}", f"--default-image={image}", "--heartbeat-interval=1", *more)
    async with mortal.node(folder, "--isolation=docker", "--log-format=json", *words, pool=pool) as made:
        yield made
    assert not of_node(docker_url, made.node_id)


def of_node(docker_url: str, node_id: str) -> list[str]:
    """Ids of its containers."""
    filters = f'{{"label":["io.hivemind.node-id={node_id}"]}}'
    return [found["Id"] for found in engine_api.get(docker_url, "/containers/json", all="1", filters=filters)]


def pids(docker_url: str, node_id: str, word: str) -> set[str]:
    """The host's numbers of the processes in its capsules that have a word in their command line.

    Not of those that such a process has forked, and which have not yet become another program.
    """
    found = set()
    for container in of_node(docker_url, node_id):
        try:
            said = engine_api.get(docker_url, f"/containers/{container}/top", ps_args="-o pid,ppid,args")
        except engine_api.EngineRefusedError:
            continue  # not begun, or gone
        parents = {pid: parent for pid, parent, args in said["Processes"] or () if word in args}
        found |= {pid for pid, parent in parents.items() if parent not in parents}
    return found


async def runs(docker_url: str, made: mortal.Mortal, word: str = "while") -> set[str]:
    """Wait until a task's own processes run, and number them."""
    try:
        return await waiting.wait_until(
            lambda: pids(docker_url, made.node_id, word), description="the task runs", seconds=60
        )
    except AssertionError as error:
        raise AssertionError(f"{error}\n{made.log()}") from None


def owes_nothing(made: mortal.Mortal) -> bool:
    """Whether nothing is kept that nobody wants."""
    return not made.left() and not reader.read(made.state / "worker.journal").holdings.attempts
