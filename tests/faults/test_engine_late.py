"""L09: an engine that does late, or unheard, what a worker had given up: nothing runs twice, nothing of it is left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import engine_api
import engine_proxy
import node_parts
import own_images
import pool_parts
import pytest
import waiting

from hivemind_worker import errors
from hivemind_worker.artifacts import outbox, store
from hivemind_worker.concurrency import stopping
from hivemind_worker.runtime.docker import docker_executor, hardening, leftovers, sweeper
from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.wire import calls
from hivemind_worker.worker import worker_node
from hivemind_worker.worker.journal import writer
from hivemind_worker.worker.pool_link import channel, client

pb = calls.pb
pytestmark = pytest.mark.docker


@contextlib.asynccontextmanager
async def node(pool: str, folder: Path, docker_url: str, node_id: str) -> AsyncIterator[docker_executor.DockerExecutor]:
    """A worker node whose tasks run in containers of that engine; it is drained in the end."""
    files, stop = store.Store(folder / "work"), stopping.Stop()
    runs = docker_executor.DockerExecutor(
        engine=engines.Engine(docker_url),
        store=files,
        node_id=node_id,
        boot_id="1",
        supply=docker_executor.Supply(access=own_images.ANY),
    )
    terms = worker_node.Terms(
        node_id=node_id,
        version="0",
        limits=node_parts.limits(),
        capacity=node_parts.CAPACITY,
        heartbeat_seconds=1.0,
        fitness=node_parts.WHATEVER,
    )
    made = worker_node.WorkerNode(
        terms,
        pool=client.NodePoolClient(channel.Access(pool)),
        runs=runs,
        files=files,
        journal=writer.Journal(folder / "worker.journal"),
        unsent=outbox.Outbox(folder / "outbox"),
        watched=None,
    )
    work = asyncio.create_task(made.run(stop), name="the node")
    try:
        yield runs
    finally:
        stop.request(stopping.StopLevel.DRAIN, "the test is over")
        await work


def left(docker_url: str, node_id: str) -> list[str]:
    """Ids of a node's containers, and names of its volumes."""
    filters = json.dumps({"label": [f"io.hivemind.node-id={node_id}"]})
    containers = engine_api.get(docker_url, "/containers/json", all="1", filters=filters)
    volumes = engine_api.get(docker_url, "/volumes", filters=filters)["Volumes"] or ()
    return [one["Id"] for one in containers] + [one["Name"] for one in volumes]


async def ended(at: pool_parts.Running, task: pb.Task) -> pb.TaskInfo:
    """Submit it and wait for its end."""
    (task_id,) = await at.submit(task)
    found: list[pb.TaskInfo] = []

    async def look() -> bool:
        found[:] = [await at.info(task_id)]
        return found[0].state in {"completed", "failed"}

    asked: Callable[[], bool | Awaitable[bool]] = look
    await waiting.wait_until(asked, description="the task ends", seconds=60)
    return found[0]


CASES = {
    "create-late": (b"/containers/create?name=", "16m"),
    "create-unheard": (b"/containers/create?name=", "16m"),
    "start-late": (b"/start", "16m"),
    "start-unheard": (b"/start", "16m"),
    "volume-late": (b"/volumes/create", "512m"),
    "volume-unheard": (b"/volumes/create", "512m"),
}

# Each takes seconds: the one that began without its answer is run always.
ALWAYS = {"start-unheard"}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.serial if case in ALWAYS else pytest.mark.long) for case in CASES]
)
async def test_l09_what_is_done_late_or_unheard_runs_nothing_twice_and_leaves_nothing(
    docker_url: str,
    busybox_image: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    case: str,
) -> None:
    call, disk = CASES[case]
    monkeypatch.setattr(engines, "CALL_SECONDS", 3.0)
    monkeypatch.setattr(sweeper, "SWEEP_SECONDS", 0.5)
    node_id = f"test-{uuid.uuid4().hex[:12]}"
    # A call of three seconds is lost at a busy engine, too: what it has to do with the fault is left to be seen.
    task = pb.Task(command="echo ran", docker_image=busybox_image, memory_limit="64m", disk_limit="16m", max_attempts=9)
    fault = engine_proxy.Fault(b"no such call", 0, times=1, late=asyncio.Event())
    async with pool_parts.running(tmp_path / "pool") as at, engine_proxy.before(docker_url, fault) as address:
        async with node(at.pool.address, tmp_path, address, node_id) as runs:
            assert fault.late is not None
            first = await ended(at, task)
            assert first.state == "completed", first  # the volume with the capsule's program is there now
            await runs._jobs.idle()
            task.disk_limit = disk
            if case.endswith("unheard"):
                fault.late.set()
            fault.call = call
            info = await ended(at, task)
            assert (info.state, info.result.logs) == ("completed", "ran\n"), info
            assert fault.met == 1
            lost = [event.details for event in info.story if event.event == "requeue"]
            assert lost
            assert info.attempt == 1 + len(lost)
            assert all("engine_lost" in one for one in lost), lost
            # What the first attempt asked for comes when nobody waits for it any more.
            fault.late.set()
            await waiting.wait_until(lambda: fault.done == 1, description="the engine has done it", seconds=30)
            await runs._jobs.idle()
            spare = set(runs._workspaces._spare)
            await waiting.wait_until(
                lambda: set(left(docker_url, node_id)) <= spare,
                description="nothing of it is left while the node goes on",
                seconds=30,
            )
        assert not left(docker_url, node_id)


async def test_l09_what_the_engine_is_slow_to_answer_for_is_not_swept(docker_url: str, busybox_image: str) -> None:
    asked, other = engines.Engine(docker_url), engines.Engine(docker_url)
    node_id, name = f"test-{uuid.uuid4().hex[:12]}", f"hivemind-{uuid.uuid4().hex[:24]}"
    around = hardening.Surroundings(node_id, "1", "", "")
    await asked.connect()
    await other.connect()
    try:
        with contextlib.suppress(errors.EngineLost), asked.unsure.making(name):
            # It is there, and whoever asked for it has not heard so yet.
            await other.create(name, hardening.filler(around, busybox_image, {}))
            await leftovers.remove_unsure(asked, node_id, "1")
            assert len(left(docker_url, node_id)) == 1
            raise errors.EngineLost("no answer came")
        await leftovers.remove_unsure(asked, node_id, "1")
        assert not left(docker_url, node_id)
    finally:
        await other.remove(name)
        await asked.close()
        await other.close()
