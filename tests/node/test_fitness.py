"""A node that is not fit takes nothing, tells the pool why, goes on with all else, and is fit again by itself."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import node_parts
import pytest
import pytest_asyncio
import small_disk
import waiting
from prometheus_client import parser
from subprocess_executor import SubprocessExecutor

from hivemind_worker import units
from hivemind_worker.artifacts import store
from hivemind_worker.client import asynchronous
from hivemind_worker.concurrency import stopping
from hivemind_worker.pool import server
from hivemind_worker.tasks import resources, state
from hivemind_worker.telemetry.health import checks
from hivemind_worker.worker.machine import admission, fitness, monitor, readings, room

QUICK = dataclasses.replace(node_parts.WHATEVER, interval=0.05)


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


async def _until(look: Callable[[], bool | Awaitable[bool]], *, description: str, seconds: float = 5) -> None:
    await waiting.wait_until(look, description=description, seconds=seconds)


async def _node_is(client: asynchronous.AsyncClient, status: str) -> str:
    """Wait until the pool says so of the one node; its message."""

    async def seen() -> bool:
        return [node.status for node in await client.nodes()] == [status]

    await _until(seen, description=f"the node is {status} at the pool", seconds=5)
    (node,) = await client.nodes()
    return node.message


async def test_what_fences_tasks_breaks_and_comes_back(
    pool: server.NodePool, client: asynchronous.AsyncClient, tmp_path: Path
) -> None:
    async with node_parts.running(pool.address, tmp_path / "work", fitness=QUICK, heartbeat_seconds=60.0) as node:
        (running,) = await client.submit(_command("until test -e go; do sleep 0.02; done; echo done"))
        await waiting.wait_until(lambda: node.runs.running == 1, description="it runs")
        node.runs.unfit = "the engine's socket is gone"
        # At once, not with the next of the heartbeats, which are a minute apart.
        assert "the engine's socket is gone" in await _node_is(client, "unhealthy")
        said = await node.node.health.check_health()
        assert said["status"] == "unhealthy"
        assert node.node.health.ready() == (False, "Sandbox failed: the engine's socket is gone")
        assert node.node.health.live()
        (queued,) = await client.submit(_command("true"))
        with pytest.raises(TimeoutError):
            await client.wait(queued, 0.5)
        assert "node-1" in (await client.task(queued)).waiting_because
        assert "the engine's socket is gone" in (await client.task(queued)).waiting_because
        assert len(node.runs.ran) == 1
        await client.cancel(running)  # what runs is still heard of, to its end
        (ended,) = await client.wait(running, 5)
        assert ended.status is state.TaskState.CANCELLED
        node.runs.unfit = ""
        (late,) = await client.wait(queued, 5)
        assert late.status is state.TaskState.COMPLETED
        assert await _node_is(client, "idle") == ""


@pytest.mark.skipif(not small_disk.can_mount(), reason="NO RIGHT TO MOUNT: a full disk is not tested")
async def test_d04_a_full_disk_makes_it_unavailable_and_nothing_else_and_it_recovers_alone(
    pool: server.NodePool, client: asynchronous.AsyncClient, tmp_path: Path
) -> None:
    with small_disk.mounted(tmp_path / "disk", 32) as disk:
        capacity = dataclasses.replace(node_parts.CAPACITY, disk_bytes=24 * units.MIB)
        small = {"disk_limit": "4m"}
        limits = dataclasses.replace(QUICK, unhealthy=checks.Thresholds(cpu_percent=100.0, memory_percent=100.0))
        async with node_parts.running(
            pool.address, disk.path, fitness=limits, capacity=capacity, limits=node_parts.limits(most=capacity)
        ) as node:
            go = tmp_path / "go"
            (running,) = await client.submit(
                _command(f"until test -e {go}; do sleep 0.02; done; echo kept > results/x", **small)
            )
            await waiting.wait_until(lambda: node.runs.running == 1, description="it runs")
            (disk.path / "filler").write_bytes(bytes(30 * units.MIB))
            assert "disk: Low disk space" in await _node_is(client, "unhealthy")
            found = (await node.node.health.check_health())["checks"]
            assert isinstance(found, dict)
            assert [name for name, check in found.items() if check["status"] == "unhealthy"] == ["disk_space"]
            (queued,) = await client.submit(_command("true", **small))
            before = (await client.nodes())[0].last_heartbeat_at

            async def beats() -> bool:
                return (await client.nodes())[0].last_heartbeat_at > before

            await _until(beats, description="heartbeats go on")
            go.touch()
            (ended,) = await client.wait(running, 5)  # its result is stored and delivered: there is a reserve
            assert ended.status is state.TaskState.COMPLETED
            assert ended.result is not None
            assert [file.name for file in ended.result.results] == ["x"]
            assert (await client.task(queued)).status is state.TaskState.QUEUED
            assert len(node.runs.ran) == 1
            disk.clear()
            (late,) = await client.wait(queued, 5)
            assert late.status is state.TaskState.COMPLETED
            assert await _node_is(client, "idle") == ""


async def test_a_machine_busy_with_other_things_takes_no_more_and_says_so(
    pool: server.NodePool, client: asynchronous.AsyncClient, tmp_path: Path
) -> None:
    busy = dataclasses.replace(QUICK, overload_memory_percent=0.5)
    async with node_parts.running(pool.address, tmp_path / "work", fitness=busy) as node:

        async def told() -> bool:
            return "overload_memory_percent" in (await client.nodes())[0].message if await client.nodes() else False

        await _until(told, description="the pool is told")
        assert (await client.nodes())[0].status == "busy"
        (task_id,) = await client.submit(_command("true"))
        with pytest.raises(TimeoutError):
            await client.wait(task_id, 0.3)
        assert node.runs.ran == []
        await client.cancel(task_id)


class _Blind(monitor.ResourceMonitor):
    """A machine whose kernel shows nothing, once that is said."""

    blind = False

    def collect(self) -> readings.Machine:
        if self.blind:
            raise OSError(5, "Input/output error", "/proc/stat")
        return super().collect()


async def test_a_look_that_fails_is_told_once_and_the_node_works_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = store.Store(tmp_path)
    place = room.Room(admission.Admission(node_parts.CAPACITY, 1))
    watched = _Blind(tmp_path)
    limits = fitness.Limits(interval=0.01, probe_seconds=0.1, overload_cpu_percent=100.0)
    fit = fitness.Fitness(limits, place, SubprocessExecutor(files), watched, lambda: fitness.Turnover(0, ()))
    stop = stopping.Stop()
    loop = asyncio.create_task(fit.run(stop))
    await waiting.wait_until(lambda: fit.machine is not None, description="it sees")
    watched.blind = True
    await waiting.wait_until(lambda: fit.standing, description="it is known that nothing is seen any more")
    assert [record.msg["event_type"] for record in caplog.records if isinstance(record.msg, dict)] == ["look_failed"]
    assert not place.paused
    watched.blind = False
    await waiting.wait_until(lambda: not fit.standing, description="it sees again")
    stop.request(stopping.StopLevel.DRAIN, "the test is over")
    await loop


async def test_a_wait_for_room_ends_with_a_reason_and_the_task_is_handed_back(
    pool: server.NodePool, client: asynchronous.AsyncClient, tmp_path: Path
) -> None:
    terms = {"fitness": QUICK, "resource_wait_seconds": 0.3}
    async with node_parts.running(pool.address, tmp_path / "work", **terms) as node:
        # As if the machine's memory were taken by others in the moment between the poll and its answer.
        place = node.node._room.reservations
        place.reserve = lambda *_: False  # type: ignore[method-assign]
        (task_id,) = await client.submit(_command("true", max_attempts=1))

        async def waits() -> bool:
            return "node-1: it handed such a task back" in (await client.task(task_id)).waiting_because

        await _until(waits, description="it was handed back and says why it waits", seconds=10)
        handed_back = [event.details for event in (await client.task(task_id)).story if event.event == "requeue"]
        reason = "node_shutdown: handed back: insufficient resources: waited 0.3 s for room"
        assert all(details.startswith(reason) for details in handed_back)
        assert node.node.snapshot().reserved == resources.Resources()
        del place.reserve  # there is room again; it is offered the task once it has rested
        (ended,) = await client.wait(task_id, 40)
        assert ended.status is state.TaskState.COMPLETED
        assert ended.attempt == len(handed_back) + 1 <= 4


async def test_l14_reservations_never_exceed_a_capacity_that_shrinks(
    pool: server.NodePool, client: asynchronous.AsyncClient, tmp_path: Path
) -> None:
    async with node_parts.running(pool.address, tmp_path / "work", max_concurrent_tasks=0, fitness=QUICK) as node:
        place, over = node.node._room, []
        reserve = place.reservations.reserve

        def watched(key: Any, needs: resources.Resources) -> bool:
            taken = reserve(key, needs)
            if taken and not place.reservations.reserved.fits(place.reservations.now):
                over.append((place.reservations.reserved, place.reservations.now))
            return taken

        place.reservations.reserve = watched  # type: ignore[method-assign]
        ids = await client.submit([_command("sleep 0.05", cpu_quota=60_000, memory_limit="1g") for _ in range(24)])
        for cores in (4.0, 2.0, 0.7, 3.0, 0.0, 4.0):
            place.resize(resources.Resources(cores, int(cores * 2 * units.GIB), node_parts.CAPACITY.disk_bytes))
            await asyncio.sleep(0)
        ended = await client.wait(ids, 40)
        assert {task.status for task in ended} == {state.TaskState.COMPLETED}
        assert over == []
        assert len(node.runs.ran) == 24
        assert node.runs.most_at_once <= 6


async def test_gpus_are_handed_out_by_name_and_never_twice(
    pool: server.NodePool, client: asynchronous.AsyncClient, tmp_path: Path
) -> None:
    capacity = resources.Resources(4.0, 8 * units.GIB, 64 * units.GIB, gpus=3)
    devices = ("GPU-a", "GPU-b", "GPU-c")
    async with node_parts.running(
        pool.address, tmp_path / "work", capacity=capacity, gpu_devices=devices, fitness=QUICK
    ) as node:
        wanted = {"required_resources": {"gpus": 1}}
        ids = await client.submit(
            [_command("sleep 0.2", **wanted) for _ in range(3)]
            + [_command("sleep 0.2", required_resources={"gpus": 2})]
        )
        ended = await client.wait(ids, 20)
        assert {task.status for task in ended} == {state.TaskState.COMPLETED}
        given = [plan.gpu_devices for plan in node.runs.plans]
        assert sorted(map(len, given)) == [1, 1, 1, 2]
        assert {name for names in given[:3] for name in names} == set(devices)
        (too_many,) = await client.submit(_command("true", required_resources={"gpus": 4}))
        assert "gpus: wants 4, 3 in all" in (await client.task(too_many)).waiting_because
        await client.cancel(too_many)


async def test_the_metrics_tell_what_happened_on_both_sides(
    pool: server.NodePool, client: asynchronous.AsyncClient, tmp_path: Path
) -> None:
    async with node_parts.running(pool.address, tmp_path / "work", fitness=QUICK) as node:
        ids = await client.submit([_command("true"), _command("exit 3")])
        await client.wait(ids, 10)
        await waiting.wait_until(lambda: node.node.snapshot().ended == 2, description="both are behind it")
        worker, central = _read(await node.node.metrics()), _read(await pool.metrics())
    assert worker["hivemind_worker_attempts_accepted_total", ""] == 2
    assert worker["hivemind_worker_attempts_ended_total", "reason=,status=completed"] == 1
    assert worker["hivemind_worker_attempts_ended_total", "reason=nonzero_exit,status=failed"] == 1
    assert worker["hivemind_worker_step_seconds_count", "step=running"] == 2
    assert worker["hivemind_worker_ready", ""] == 1
    assert worker["hivemind_worker_host_memory_bytes", "kind=total"] > 1e8
    assert worker["hivemind_worker_pool_last_answer_timestamp_seconds", ""] > 1.7e9
    assert central["hivemind_pool_tasks_submitted_total", ""] == 2
    assert central["hivemind_pool_tasks_ended_total", "reason=,state=completed"] == 1
    assert central["hivemind_pool_tasks_ended_total", "reason=nonzero_exit,state=failed"] == 1
    assert central["hivemind_pool_reports_total", "verdict=accepted"] == 2
    assert central["hivemind_pool_task_wait_seconds_count", ""] == 2
    assert central["hivemind_pool_tasks", "state=completed"] == 1
    words = [central.get(("hivemind_pool_nodes", f"status={word}"), 0) for word in ("idle", "busy")]
    assert sum(words) == 1
    assert central["hivemind_pool_call_seconds_count", "method=SubmitTasks,result=answered"] == 1


def _read(said: tuple[bytes, str]) -> dict[tuple[str, str], float]:
    return {
        (sample.name, ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))): sample.value
        for family in parser.text_string_to_metric_families(said[0].decode())
        for sample in family.samples
    }
