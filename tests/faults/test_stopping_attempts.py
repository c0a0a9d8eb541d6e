"""L02, L05, L12: attempts stopped at each step, by their submitter, by the node's end, by a lease that is no more."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import engine_api
import in_containers
import mortal
import pytest
import pytest_asyncio
import waiting

from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.wire import calls

pytestmark = pytest.mark.docker
pb = calls.pb
ENDLESS = "trap '' TERM; while true; do sleep 0.1; done"


@pytest_asyncio.fixture
async def worker(docker_url: str, busybox_image: str, tmp_path: Path) -> AsyncIterator[mortal.Mortal]:
    more = ("--grace-seconds=1", "--drain-timeout=1", "--max-concurrent-tasks=2")
    async with in_containers.worker(docker_url, busybox_image, tmp_path, *more) as made:
        yield made


STEPS = {
    "pull": "runtime.docker.images:Images.ensure:hold",
    "create": "runtime.docker.engine:Engine.create:hold",
    "start": "runtime.docker.engine:Engine.start:hold",
    "placed": "worker.attempts.safekeeping:Safekeeping.placed:hold",
    "running": "",
}


@pytest.mark.parametrize(
    "step", [pytest.param(step, marks=[] if step == "running" else pytest.mark.long) for step in STEPS]
)
async def test_l12_cancelled_at_each_step(worker: mortal.Mortal, docker_url: str, step: str) -> None:
    await worker.start(STEPS[step])
    task_id = await worker.submit(ENDLESS)
    if STEPS[step]:
        await waiting.wait_until(worker.held.exists, description="it is held there", seconds=30)
    else:
        await in_containers.runs(docker_url, worker)
    began = time.monotonic()
    await worker.at.tasks.CancelTasks(pb.CancelTasksRequest(task_ids=[task_id]))
    info = await worker.ended(task_id)
    assert time.monotonic() - began < 15  # the grace of one second, and what a busy machine needs
    assert (info.state, info.result.reason) == ("cancelled", "cancelled")
    worker.held.unlink(missing_ok=True)
    await waiting.wait_until(
        lambda: not in_containers.of_node(docker_url, worker.node_id), description="its container is gone", seconds=15
    )
    assert (await worker.events(task_id)).count("cancel") == 1
    assert (await worker.ended(await worker.submit("echo next"))).result.logs == "next\n"
    await waiting.wait_until(lambda: in_containers.owes_nothing(worker), description="nothing is kept")


async def test_l12_a_cancel_while_it_uploads_and_one_after_the_end_change_no_end(worker: mortal.Mortal) -> None:
    await worker.start("worker.attempts.transfers:Uploads.send:hold")
    task_id = await worker.submit("echo x > results/x")
    await waiting.wait_until(worker.held.exists, description="the upload begins", seconds=30)
    await worker.at.tasks.CancelTasks(pb.CancelTasksRequest(task_ids=[task_id]))
    worker.held.unlink()
    ended = (await worker.ended(task_id)).state
    await worker.at.tasks.CancelTasks(pb.CancelTasksRequest(task_ids=[task_id]))
    events = await worker.events(task_id)
    assert events.count("complete") + events.count("cancel") == 1
    assert (await worker.at.info(task_id)).state == ended


@pytest.mark.long
async def test_l02_what_outlasts_the_drain_is_handed_back_and_a_second_signal_is_at_once(
    worker: mortal.Mortal, docker_url: str
) -> None:
    await worker.start()
    task_id = await worker.submit(ENDLESS, max_attempts=5)
    await in_containers.runs(docker_url, worker)
    assert await worker.stop() == 0
    info = await worker.at.info(task_id)
    assert (info.state, info.attempt) == ("queued", 1)
    assert "node_shutdown" in info.story[-1].details
    assert not in_containers.of_node(docker_url, worker.node_id)

    await worker.start(HIVEMIND_DRAIN_TIMEOUT="100")
    await in_containers.runs(docker_url, worker)
    assert worker.process is not None
    worker.process.terminate()
    await waiting.wait_until(lambda: "stopping in order" in worker.log(), description="it drains")
    began = time.monotonic()
    assert await worker.stop() == 0
    assert time.monotonic() - began < 20  # of the 100 that it had to drain
    assert not in_containers.of_node(docker_url, worker.node_id)


async def given_up(worker: mortal.Mortal, task_id: str) -> bool:
    return (await worker.at.info(task_id)).state == "queued"


@pytest.mark.long
async def test_l05_what_no_lease_covers_is_buried_and_another_nodes_is_untouched(
    docker_url: str, busybox_image: str, tmp_path: Path
) -> None:
    async with in_containers.worker(docker_url, busybox_image, tmp_path, pool={"lease_seconds": 2.0}) as worker:
        await _buried(worker, docker_url, busybox_image)


async def _buried(worker: mortal.Mortal, docker_url: str, busybox_image: str) -> None:
    engine = engines.Engine(docker_url)
    await engine.connect()
    labels = {"io.hivemind.node-id": "another-node", "io.hivemind.boot-id": "gone", "io.hivemind.role": "capsule"}
    other = await engine.create(
        f"{worker.node_id}-bystander", {"Image": busybox_image, "Cmd": ["true"], "Labels": labels}
    )
    orphan = {**labels, "io.hivemind.node-id": worker.node_id}
    try:
        left = await engine.create(
            f"{worker.node_id}-orphan", {"Image": busybox_image, "Cmd": ["true"], "Labels": orphan}
        )
        await worker.start()
        # One of its own may be there, in which it tries its defences.
        assert left not in in_containers.of_node(docker_url, worker.node_id)
        task_id = await worker.submit(ENDLESS)
        await in_containers.runs(docker_url, worker)
        worker.kill()
        look: Callable[[], bool | Awaitable[bool]] = functools.partial(given_up, worker, task_id)
        await waiting.wait_until(look, description="its lease runs out", seconds=20)
        await worker.at.tasks.CancelTasks(pb.CancelTasksRequest(task_ids=[task_id]))
        await worker.start()
        await waiting.wait_until(
            lambda: not in_containers.of_node(docker_url, worker.node_id), description="it is buried", seconds=20
        )
        assert (await worker.ended(task_id)).state == "cancelled"
        found = engine_api.get(docker_url, f"/containers/{other}/json")
        assert json.dumps(found["State"]["Status"]) == '"created"'
    finally:
        await engine.remove(f"{worker.node_id}-bystander")
        await engine.remove(f"{worker.node_id}-orphan")
        await engine.close()
