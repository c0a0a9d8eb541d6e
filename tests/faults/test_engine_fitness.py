"""L09 for the node: its engine goes away or hangs; it is not fit meanwhile, says so, and is back without a restart."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import engine_proxy
import node_parts
import own_images
import pytest
import waiting

from hivemind_worker.artifacts import outbox, store
from hivemind_worker.client import asynchronous
from hivemind_worker.concurrency import stopping
from hivemind_worker.pool import server
from hivemind_worker.runtime.docker import docker_executor
from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.tasks import state
from hivemind_worker.worker import worker_node
from hivemind_worker.worker.journal import writer
from hivemind_worker.worker.machine import fitness
from hivemind_worker.worker.pool_link import channel, client

NONE = b"/no-such-call"

pytestmark = pytest.mark.docker


@pytest.mark.parametrize("answer", [pytest.param(-1, marks=pytest.mark.long), 0], ids=["broken", "hangs"])
async def test_l09_a_node_whose_engine_is_gone_takes_nothing_and_comes_back(
    docker_url: str, busybox_image: str, tmp_path: Path, answer: int
) -> None:
    fault = engine_proxy.Fault(NONE, answer)
    pool = server.NodePool(tmp_path / "pool", lease_seconds=10.0)
    await pool.start()
    files, stop = store.Store(tmp_path / "work"), stopping.Stop()
    node_id = f"test-{uuid.uuid4().hex[:12]}"
    async with engine_proxy.before(docker_url, fault) as address, asynchronous.AsyncClient(pool.address) as asking:
        runs = docker_executor.DockerExecutor(
            engine=engines.Engine(address),
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
            fitness=fitness.Limits(interval=0.2, probe_seconds=1.0),
        )
        pool_line = client.NodePoolClient(channel.Access(pool.address))
        node = worker_node.WorkerNode(
            terms,
            pool=pool_line,
            runs=runs,
            files=files,
            journal=writer.Journal(tmp_path / "worker.journal"),
            unsent=outbox.Outbox(tmp_path / "outbox"),
            watched=None,
        )
        work = asyncio.create_task(node.run(stop), name="the node")
        try:
            task = {"command": "echo ran", "docker_image": busybox_image, "memory_limit": "64m"}
            (before,) = await asking.wait(await asking.submit(task), 60)
            assert before.status is state.TaskState.COMPLETED, before.result
            await runs._jobs.idle()  # its capsule is gone: what hangs would be waited for
            fault.call = b"/"

            async def unhealthy() -> bool:
                return [each.status for each in await asking.nodes()] == ["unhealthy"]

            await _until(unhealthy)
            (seen,) = await asking.nodes()
            assert "Docker service failed" in seen.message
            (queued,) = await asking.submit(task)

            async def beats() -> bool:
                return (await asking.nodes())[0].last_heartbeat_at > seen.last_heartbeat_at

            await _until(beats)
            assert (await asking.task(queued)).status is state.TaskState.QUEUED
            fault.call = NONE
            (after,) = await asking.wait(queued, 60)
            assert after.status is state.TaskState.COMPLETED, after.result
        finally:
            fault.call = NONE
            stop.request(stopping.StopLevel.KILL, "the test is over")
            await work
            await pool.stop()


async def _until(look: Callable[[], bool | Awaitable[bool]]) -> None:
    await waiting.wait_until(look, description=look.__name__, seconds=20)
