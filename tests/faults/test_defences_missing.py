"""A worker behind a proxy that takes a defence off and hides it: it takes no task, says why, and comes back."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import node_parts
import own_images
import pytest
import stripping_proxy
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
from hivemind_worker.worker.machine import defences, monitor
from hivemind_worker.worker.pool_link import channel, client

pytestmark = pytest.mark.docker


async def test_a_worker_without_a_defence_takes_nothing_until_it_holds(
    docker_url: str, busybox_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(defences, "RETRY_SECONDS", 0.5)
    stripping = stripping_proxy.Stripping(("pids",), forged=True)
    pool = server.NodePool(tmp_path / "pool", lease_seconds=10.0)
    await pool.start()
    files, stop, node_id = store.Store(tmp_path / "work"), stopping.Stop(), f"test-{uuid.uuid4().hex[:12]}"
    async with stripping_proxy.before(docker_url, stripping) as address, asynchronous.AsyncClient(pool.address) as ours:
        runs = docker_executor.DockerExecutor(
            engine=engines.Engine(address),
            store=files,
            node_id=node_id,
            boot_id="1",
            supply=docker_executor.Supply(access=own_images.ANY),
        )
        node = worker_node.WorkerNode(
            worker_node.Terms(
                node_id=node_id,
                version="0",
                limits=node_parts.limits(),
                capacity=node_parts.CAPACITY,
                heartbeat_seconds=1.0,
                fitness=node_parts.WHATEVER,
            ),
            pool=client.NodePoolClient(channel.Access(pool.address)),
            runs=runs,
            files=files,
            journal=writer.Journal(tmp_path / "worker.journal"),
            unsent=outbox.Outbox(tmp_path / "outbox"),
            watched=monitor.ResourceMonitor(tmp_path),
        )
        work = asyncio.create_task(node.run(stop), name="the node")
        try:
            (task,) = await ours.submit({"command": "echo ran", "docker_image": busybox_image, "memory_limit": "64m"})

            async def unfit() -> bool:
                return [each.status for each in await ours.nodes()] == ["unhealthy"]

            look: Callable[[], bool | Awaitable[bool]] = unfit
            await waiting.wait_until(look, description="the pool knows that it is not fit", seconds=20)
            assert "process limit" in (await ours.nodes())[0].message
            assert "process limit" in node.health.ready()[1]
            exposition, _ = await node.metrics()
            assert b'hivemind_worker_defence_in_force{defence="processes_limit"} 0.0' in exposition
            assert b'hivemind_worker_defence_in_force{defence="memory"} 1.0' in exposition
            assert (await ours.task(task)).status is state.TaskState.QUEUED
            stripping.strips = ()
            (ended,) = await ours.wait([task], 30)
            assert ended.status is state.TaskState.COMPLETED, ended.result
        finally:
            stop.request(stopping.StopLevel.KILL, "the test is over")
            await work
            await pool.stop()
