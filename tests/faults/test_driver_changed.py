"""L05: a worker is started again with the other driver while it holds an attempt: one end, and nothing is left."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import in_containers
import leaks
import left_processes
import mortal
import pytest
import pytest_asyncio
import waiting

pytestmark = [pytest.mark.docker, pytest.mark.sandbox]

OTHER = {"docker": "sandbox", "sandbox": "docker"}


@pytest_asyncio.fixture
async def worker(docker_url: str, busybox_image: str, tmp_path: Path) -> AsyncIterator[mortal.Mortal]:
    words = (f"--docker-host={docker_url}", f"--default-image={busybox_image}", "--heartbeat-interval=1")
    more = ("--log-format=json", "--grace-seconds=1", "--drain-timeout=1")
    async with mortal.node(tmp_path, *words, *more, pool={"lease_seconds": 20.0}) as made:
        yield made
        if made.process is not None and made.process.poll() is None:
            assert await made.stop() == 0, made.log()
        assert not in_containers.of_node(docker_url, made.node_id)
        await waiting.wait_until(
            lambda: not left_processes.of_node(made.node_id, made.state),
            description="no process of it, nor what holds its sandboxes",
            seconds=leaks.SECONDS_IN_ENGINE,
        )


def executions(word: str) -> set[int]:
    """The host's numbers of the shells, in containers or sandboxes, whose command line has that word."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if words[0].endswith(b"sh") and any(word.encode() in one for one in words):
                found.add(int(folder.name))
    return found


@pytest.mark.long
@pytest.mark.parametrize("end", ["killed", "stopped"])
@pytest.mark.parametrize("former", ["docker", "sandbox"])
async def test_l05_the_other_driver_runs_the_task_again_and_ends_what_the_former_ran(
    worker: mortal.Mortal, former: str, end: str
) -> None:
    word = f"mark-{worker.node_id}"
    await worker.start(HIVEMIND_ISOLATION=former)
    # The first attempt never ends by itself.
    command = f': {word}; echo began; while [ "$HIVEMIND_ATTEMPT" = 1 ]; do sleep 0.1; done'
    task_id = await worker.submit(command, memory_limit="64m", disk_limit="16m")
    first = await waiting.wait_until(lambda: executions(word), description="the task runs", seconds=60)
    if end == "killed":
        worker.kill()
        # Not equal: a shell that is about to become `sleep` has the same words for a moment.
        assert executions(word) & first, "it outlives its worker"
    else:
        assert await worker.stop() == 0, worker.log()
    await worker.start(HIVEMIND_ISOLATION=OTHER[former])
    info = await worker.ended(task_id, seconds=60)
    assert (info.state, info.attempt, info.result.logs) == ("completed", 2, "began\n"), worker.log()
    assert info.result.isolation == OTHER[former]
    (lost,) = [event.details for event in info.story if event.event == "requeue"]
    assert ("worker_crash" if end == "killed" else "node_shutdown") in lost
    assert info.disruptions == (end == "stopped")
    await waiting.wait_until(lambda: not executions(word), description="nothing of it runs on", seconds=90)
