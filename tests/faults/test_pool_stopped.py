"""The pool's process is stopped for longer than the lease: nobody loses a task, and no session is taken for gone.

A pool that goes on has calls in its sockets that came while it was stopped, and answers them before it looks at its
leases.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import chaos_service
import grpc
import node_parts
import pool_parts
import waiting

from hivemind_worker.client import asynchronous
from hivemind_worker.tasks import state
from hivemind_worker.wire import verdicts

LEASE = 1.5


@contextlib.asynccontextmanager
async def pool_process(folder: Path) -> AsyncIterator[tuple[chaos_service.Service, str]]:
    """A pool in a process of its own, and its address."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HIVEMIND_")}
    words = [
        "pool", "--listen=127.0.0.1:0", f"--state-dir={folder / 'pool'}", f"--log-dir={folder / 'log'}",
        "--log-format=json", f"--pool-lease-seconds={LEASE}",
    ]  # fmt: skip
    service = chaos_service.Service("pool", folder, words, environment, '"pool_started"')
    try:
        await service.until_ready()
        yield service, await asyncio.to_thread(service.said, chaos_service.ADDRESS)
    finally:
        service.signal(signal.SIGKILL)
        assert service.process is not None
        service.process.wait()


@contextlib.asynccontextmanager
async def stopped(service: chaos_service.Service) -> AsyncIterator[None]:
    """Two leases pass while it is stopped. What is sent within waits in its sockets."""
    service.signal(signal.SIGSTOP)
    try:
        yield
        await asyncio.sleep(2 * LEASE)
    finally:
        service.signal(signal.SIGCONT)


async def test_a_pool_that_was_stopped_for_longer_than_the_lease_takes_no_task_from_anybody(tmp_path: Path) -> None:
    async with (
        pool_process(tmp_path) as (service, address),
        node_parts.running(address, tmp_path / "work") as node,
        asynchronous.AsyncClient(address, patience=30) as client,
    ):
        await client.submit({"id": "t", "command": f"sleep {3 * LEASE}"})
        await waiting.wait_until(lambda: node.runs.running == 1, description="the task runs")
        async with stopped(service):
            pass
        (task,) = await client.wait("t", 60)
        assert (task.status, task.attempt) == (state.TaskState.COMPLETED, 1)
        events = [event.event for event in (await client.task("t")).story]
        assert "requeue" not in events, "its node was there all the time"
        await waiting.wait_until(
            lambda: '"leases_begun_anew"' in service.log.read_text(), description="it tells that it stood still"
        )


async def test_a_heartbeat_from_before_the_attempt_was_given_costs_it_nothing(tmp_path: Path) -> None:
    async with pool_process(tmp_path) as (service, address), pool_parts.connected(address) as at:
        worker = await at.worker()
        for _ in range(12):  # for longer than a lease, so that what a heartbeat leaves out is given up
            await worker.beat()
            await asyncio.sleep(LEASE / 10)
        (task_id,) = await at.submit()
        task = await worker.take()
        async with stopped(service):
            # Sent before the task came, it was under way when the pool was stopped.
            late = asyncio.create_task(worker.beat())
            await asyncio.sleep(0.1)
        await late
        assert not (await worker.poll(0.5, task)).tasks, "it is given to nobody else"
        info = await at.info(task_id)
        assert (info.state, info.attempt) == ("assigned", 1)


async def test_a_living_session_is_not_taken_over(tmp_path: Path) -> None:
    async with pool_process(tmp_path) as (service, address), pool_parts.connected(address) as at:
        living = await at.worker("n", "boot-1", state_lock_id="1" * 32)
        async with stopped(service):
            newcomer = asyncio.create_task(at.worker("n", "boot-2", state_lock_id="2" * 32))
            await asyncio.sleep(0.1)
        beating = asyncio.create_task(_beat(living))
        try:
            async with asyncio.timeout(60):
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await newcomer
                    raise AssertionError("it took over a session that lives")
        finally:
            beating.cancel()
            await asyncio.wait([beating])
        refused = newcomer.exception()
        assert isinstance(refused, grpc.aio.AioRpcError)
        assert verdicts.read(refused).reason == verdicts.Reason.SESSION_REPLACED


async def _beat(worker: pool_parts.Worker) -> None:
    while True:
        await worker.beat()
        await asyncio.sleep(0.1)
