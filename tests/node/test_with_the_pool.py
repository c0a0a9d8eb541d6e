from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import node_parts
import pytest
import pytest_asyncio
import waiting

from hivemind_worker.client import asynchronous
from hivemind_worker.concurrency import stopping
from hivemind_worker.pool import server
from hivemind_worker.tasks import outcome, resources, state


@pytest_asyncio.fixture
async def pool(tmp_path: Path) -> AsyncIterator[server.NodePool]:
    made = server.NodePool(tmp_path / "pool", lease_seconds=5.0)
    await made.start()
    yield made
    await made.stop()


@pytest_asyncio.fixture
async def client(pool: server.NodePool) -> AsyncIterator[asynchronous.AsyncClient]:
    async with asynchronous.AsyncClient(pool.address) as made:
        yield made


def _command(text: str, **more: Any) -> dict[str, Any]:
    return {"command": text, "memory_limit": "64m", "cpu_quota": 20_000, **more}


async def test_a_task_goes_in_and_its_result_comes_back(
    pool: server.NodePool, client: asynchronous.AsyncClient, tmp_path: Path
) -> None:
    async with node_parts.running(pool.address, tmp_path / "work"):
        (task_id,) = await client.submit(
            _command("cat in/a; echo oops >&2; printf result > results/out", input_files={"in/a": "given\n"})
        )
        (task,) = await client.wait(task_id, 20)
        assert task.status is state.TaskState.COMPLETED
        assert task.node_id == "node-1"
        assert task.result is not None
        assert task.result.exit_code == 0
        assert {"accepted", "preparing", "starting", "running", "collecting", "upload"} <= task.result.timings.keys()
        (path,) = await client.download(task_id, tmp_path / "fetched")
        assert path.read_bytes() == b"result"
        said = {"stdout": b"", "stderr": b""}
        async for output in client.logs(task_id):
            said[str(output.stream)] += output.data
        assert said == {"stdout": b"given\n", "stderr": b"oops\n"}


async def test_failures_are_told_apart(pool: server.NodePool, client: asynchronous.AsyncClient, tmp_path: Path) -> None:
    async with node_parts.running(pool.address, tmp_path / "work") as node:
        ids = await client.submit(
            [
                _command("exit 7"),
                _command("sleep 60", timeout=0.2),
                _command("kill -9 $$"),
                {"code": "import sys; print(sys.argv[1:]); sys.exit(4)", "args": ["a b", "c"]},
            ]
        )
        ended = [task.result for task in await client.wait(ids, 30)]
        assert [result.reason for result in ended if result] == [
            outcome.Reason.NONZERO_EXIT,
            outcome.Reason.TIMEOUT,
            outcome.Reason.NONZERO_EXIT,
            outcome.Reason.NONZERO_EXIT,
        ]
        assert [result.exit_code for result in ended if result] == [7, 143, 137, 4]
        node.runs.raises = RuntimeError("a defect")
        (task_id,) = await client.submit(_command("true", max_attempts=2))
        (task,) = await client.wait(task_id, 20)
        assert task.result is not None
        assert (task.result.reason, task.attempt) == (outcome.Reason.INTERNAL, 2)
        assert "a defect" not in task.result.error
        node.runs.raises = None
        (task,) = await client.wait(await client.submit(_command("true")), 20)
        assert task.status is state.TaskState.COMPLETED


async def test_a_task_can_be_cancelled_in_every_phase(
    pool: server.NodePool, client: asynchronous.AsyncClient, tmp_path: Path
) -> None:
    async with node_parts.running(pool.address, tmp_path / "work", max_concurrent_tasks=1) as node:
        node.runs.prepare_gate = asyncio.Event()
        (preparing,) = await client.submit(_command("true"))
        await waiting.wait_until(lambda: node.runs.running == 1, description="it prepares")
        (queued,) = await client.submit(_command("true"))
        await client.cancel([preparing, queued])
        (one, two) = await client.wait([preparing, queued], 5)
        assert {one.status, two.status} == {state.TaskState.CANCELLED}
        assert len(node.runs.ran) == 1
        node.runs.prepare_gate = None
        (running,) = await client.submit(_command("trap '' TERM; echo up; sleep 60"))
        await _phase(node, "running")
        await client.cancel(running)
        (task,) = await client.wait(running, 10)
        assert task.status is state.TaskState.CANCELLED
        (ended,) = await client.submit(_command("true"))
        await client.wait(ended, 10)
        assert await client.cancel(ended) == [state.TaskState.COMPLETED]
        await waiting.wait_until(lambda: not node.node.snapshot().attempts, description="nothing is held")
        assert node.node.snapshot().reserved == resources.Resources()


async def _phase(node: node_parts.Node, phase: str) -> None:
    await waiting.wait_until(
        lambda: phase in [held.phase for held in node.node.snapshot().attempts], description=f"an attempt is {phase}"
    )


@pytest.mark.serial
async def test_a_full_node_hears_a_cancellation_at_once(
    pool: server.NodePool, client: asynchronous.AsyncClient, tmp_path: Path
) -> None:
    terms = {"max_concurrent_tasks": 1, "heartbeat_seconds": 60.0}
    async with node_parts.running(pool.address, tmp_path / "work", **terms) as node:
        (task_id,) = await client.submit(_command("sleep 60"))
        await _phase(node, "running")
        began = asyncio.get_running_loop().time()
        await client.cancel(task_id)
        await client.wait(task_id, 5)
        assert asyncio.get_running_loop().time() - began < 1.0


async def test_reservations_keep_tasks_apart_that_do_not_fit_together(
    pool: server.NodePool, client: asynchronous.AsyncClient, tmp_path: Path
) -> None:
    async with node_parts.running(pool.address, tmp_path / "work", max_concurrent_tasks=0) as node:
        ids = await client.submit([_command("sleep 0.1", cpu_quota=150_000) for _ in range(6)])
        await client.wait(ids, 30)
        assert node.runs.most_at_once == 2  # 4 cores hold two of 1.5
        (large,) = await client.submit(_command("true", required_resources={"cpu_cores": 16}))
        (small,) = await client.submit(_command("true"))
        await client.wait(small, 10)
        assert (await client.task(large)).status is state.TaskState.QUEUED
        await client.cancel(large)


async def test_draining_finishes_what_runs_and_hands_back_what_it_cannot(
    pool: server.NodePool, client: asynchronous.AsyncClient, tmp_path: Path
) -> None:
    async with contextlib.AsyncExitStack() as nodes:
        first = await nodes.enter_async_context(node_parts.running(pool.address, tmp_path / "first", drain_seconds=1.0))
        quick, slow = await client.submit(
            [_command("sleep 0.4"), _command("test $HIVEMIND_ATTEMPT = 2 || sleep 60; echo second")]
        )
        await waiting.wait_until(lambda: first.runs.running == 2, description="both run")
        first.stop.request(stopping.StopLevel.DRAIN, "SIGTERM")
        second = await nodes.enter_async_context(
            node_parts.running(pool.address, tmp_path / "second", node_id="node-2")
        )
        one, two = await client.wait([quick, slow], 20)
        assert (one.node_id, one.attempt) == ("node-1", 1)
        assert (two.node_id, two.attempt, two.status) == ("node-2", 2, state.TaskState.COMPLETED)
        assert len(second.runs.ran) == 1
        await waiting.wait_until(
            lambda: first.node.snapshot().ended == 2 and not first.node.snapshot().attempts, description="all handed on"
        )


async def test_the_operator_drains_and_resumes_a_node(
    pool: server.NodePool, client: asynchronous.AsyncClient, tmp_path: Path
) -> None:
    async with node_parts.running(pool.address, tmp_path / "work") as node:
        await waiting.wait_until(lambda: node.node.snapshot().connected, description="registered")
        await client.drain("node-1")
        await waiting.wait_until(lambda: node.node.snapshot().status == "draining", description="it drains")
        (task_id,) = await client.submit(_command("true"))
        await client.resume("node-1")
        (task,) = await client.wait(task_id, 10)
        assert task.status is state.TaskState.COMPLETED


async def test_a_resumed_node_gets_its_task_at_once_not_with_its_next_heartbeat(
    pool: server.NodePool, client: asynchronous.AsyncClient, tmp_path: Path
) -> None:
    async with node_parts.running(pool.address, tmp_path / "work", heartbeat_seconds=3.0) as node:
        await waiting.wait_until(lambda: node.node.snapshot().connected, description="registered")
        await client.drain("node-1")
        (task_id,) = await client.submit(_command("true"))
        await waiting.wait_until(lambda: node.node.snapshot().status == "draining", description="it drains")
        await client.resume("node-1")
        (task,) = await client.wait(task_id, 10)
        assert task.status is state.TaskState.COMPLETED
        assert node.node.snapshot().status == "draining"  # the heartbeat that ends this comes later


@pytest.mark.long
async def test_two_workers_and_two_hundred_tasks(
    pool: server.NodePool, client: asynchronous.AsyncClient, tmp_path: Path
) -> None:
    terms = {"max_concurrent_tasks": 6}
    async with (
        node_parts.running(pool.address, tmp_path / "one", **terms) as one,
        node_parts.running(pool.address, tmp_path / "two", node_id="node-2", **terms) as two,
    ):
        tasks = [_a_task(number) for number in range(200)]
        ids = await client.submit(tasks)
        await client.cancel([task_id for number, task_id in enumerate(ids) if number % 20 == 19])
        ended = await client.wait(ids, 90)
        for number, task in enumerate(ended):
            assert task.result is not None or number % 20 == 19, number
            reason = task.result.reason if task.result else None
            match number % 20:
                case 17:
                    assert reason is outcome.Reason.NONZERO_EXIT, number
                case 18:
                    assert reason is outcome.Reason.TIMEOUT, number
                case 19:
                    assert task.status is state.TaskState.CANCELLED, number
                case _:
                    assert task.status is state.TaskState.COMPLETED, (number, task)
                    assert task.result is not None
                    (file,) = task.result.results
                    assert file.artifact.size == _size(number)
        assert not set(one.runs.ran) & set(two.runs.ran)
        assert min(len(one.runs.ran), len(two.runs.ran)) > 10  # both had a part in it
        await waiting.wait_until(
            lambda: not [*one.files.artifacts(), *two.files.artifacts()], description="no result is left on the nodes"
        )


def _size(number: int) -> int:
    return {0: 6_000_000, 1: 1_048_576, 2: 1_048_577}.get(number % 20, 1_000 + number)


def _a_task(number: int) -> dict[str, Any]:
    match number % 20:
        case 17:
            return _command("exit 3")
        case 18:
            return _command("sleep 60", timeout=0.2)
        case 19:
            return _command("sleep 60", timeout=50)
        case _:
            return _command(f"head -c {_size(number)} /dev/zero | tr '\\0' '{chr(97 + number % 26)}' > results/out")
