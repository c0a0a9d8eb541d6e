"""What a call costs the pool in memory, whatever is asked: measured at a pool that is a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import grpc
import installed
import memory_attacks
import memory_world
import pool_parts
import pytest
import services

from hivemind_worker.wire import calls

pb = calls.pb
MIB = 1024**2
MAX_MIB = 32
"""Most that a call may take, whatever is asked."""
TASKS = 50
MARGIN_MIB = 64
"""Over what the pool had before: 32 MiB for the call, and what the interpreter's own allocator holds on to."""


def peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split(maxsplit=1)[0]) / 1024


def begin_peak_anew(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


async def attack(address: str, pid: int) -> dict[str, float]:
    peaks = {}
    async with grpc.aio.insecure_channel(address, options=calls.CLIENT_OPTIONS) as channel:
        nodes, tasks = calls.node_manager(channel), calls.task_manager(channel)
        node = pb.RegisterNodeRequest(node_id="n", cpu_cores=64, memory_gb=64, disk_gb=500, boot_id="b")
        session = (await nodes.RegisterNode(node)).session_id
        submit = pb.SubmitTasksRequest(tasks=[pb.Task(command="true", cpu_quota=1_000, memory_limit="6m")] * TASKS)
        ids = list((await tasks.SubmitTasks(submit)).task_ids)
        worker = pool_parts.Worker(pool_parts.Stubs(nodes, tasks), "n", session)
        done = 0
        while done < TASKS:
            for task in (await worker.poll(5, most=64)).tasks:
                await worker.report(task, logs="x" * 3 * MIB)
                done += 1
        begin_peak_anew(pid)
        before = peak_mib(pid)
        answer = await tasks.ListTasks(pb.ListTasksRequest(page_size=1_000))
        assert len(answer.tasks) == TASKS
        peaks["ListTasks"] = peak_mib(pid) - before
        begin_peak_anew(pid)
        before = peak_mib(pid)
        stalled = [tasks.WatchTasks(pb.WatchTasksRequest(task_ids=ids)) for _ in range(4)]
        for call in stalled:
            await call.read()
        await asyncio.sleep(2)  # what is read ahead is read now
        peaks["WatchTasks"] = (peak_mib(pid) - before) / len(stalled)
        for call in stalled:
            call.cancel()
    return peaks


@pytest.mark.timeout(240)
def test_no_call_costs_more_than_its_answer(tmp_path: Path) -> None:
    with services.Services(installed.Shell(tmp_path)) as running:
        process, address = running.pool()
        peaks = asyncio.run(attack(address, process.pid))
    assert max(peaks.values()) < MARGIN_MIB, peaks


IDLE = 600


async def leave_uploads_idle(address: str, pid: int) -> float:
    """How much the pool grew at so many uploads that each send 1 MiB of 2, and no more."""
    async with contextlib.AsyncExitStack() as open_channels:
        channels = [
            await open_channels.enter_async_context(grpc.aio.insecure_channel(address, options=calls.CLIENT_OPTIONS))
            for _ in range(4)
        ]
        node = pb.RegisterNodeRequest(node_id="n", cpu_cores=4, memory_gb=8, disk_gb=50, boot_id="b")
        session = (await calls.node_manager(channels[0]).RegisterNode(node)).session_id
        begin_peak_anew(pid)
        before = peak_mib(pid)
        uploads = [calls.node_manager(channels[n % 4]).UploadArtifact() for n in range(IDLE)]
        writes = [asyncio.create_task(write_half(upload, session, n)) for n, upload in enumerate(uploads)]
        await asyncio.wait(writes, timeout=20)  # those that find no room are refused before
        grown = peak_mib(pid) - before
        assert (await calls.node_manager(channels[0]).Ping(pb.PingRequest())).version, "the pool still answers"
        for upload, write in zip(uploads, writes, strict=True):
            upload.cancel()
            write.cancel()
        await asyncio.wait(writes)
    return grown


async def write_half(
    upload: grpc.aio.StreamUnaryCall[pb.UploadArtifactRequest, pb.UploadArtifactResponse], session: str, number: int
) -> None:
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await upload.write(
            pb.UploadArtifactRequest(
                node_id="n", session_id=session, sha256=f"{number:064x}", size=2 * MIB, data=bytes(MIB)
            )
        )


@pytest.mark.long
@pytest.mark.timeout(120)
def test_uploads_that_stand_idle_cost_little(tmp_path: Path) -> None:
    with services.Services(installed.Shell(tmp_path)) as running:
        process, address = running.pool()
        grown = asyncio.run(leave_uploads_idle(address, process.pid))
    assert grown < 128, f"{grown} MiB for {IDLE} idle uploads"


# ---- messages full of nothing ----

BOMBS = {
    "SubmitTasks": memory_attacks.ATTACKS["SubmitTasks"]["empties"],
    "RegisterNode": memory_attacks.ATTACKS["RegisterNode"]["held"],
    "AppendTaskLogs": memory_attacks.ATTACKS["AppendTaskLogs"]["empties"],
    "ReportTaskResult": memory_attacks.ATTACKS["ReportTaskResult"]["files"],
}


async def bombed(pid: int, address: str) -> dict[str, float]:
    async with grpc.aio.insecure_channel(address, options=calls.CLIENT_OPTIONS) as channel:
        world = memory_world.World(pid, channel)
        await world.nodes.Ping(pb.PingRequest())
        world.before_mib = memory_world.now_mib(pid)
        grown = {}
        for name, attack in BOMBS.items():
            memory_world.begin_peak(pid)
            await attack(world)
            grown[name] = world.grown_mib()
        return grown


@pytest.mark.timeout(120)
def test_a_message_full_of_nothing_takes_no_more_than_any_other(tmp_path: Path) -> None:
    with services.Services(installed.Shell(tmp_path)) as running:
        process, address = running.pool()
        grown = asyncio.run(bombed(process.pid, address))
    assert max(grown.values()) <= MAX_MIB, grown


# ---- requests that are refused ----

REFUSALS = 40
REFUSED = {
    "DrainNode": memory_attacks.ATTACKS["DrainNode"]["unknown"],
    "SubmitTasks": memory_attacks.ATTACKS["SubmitTasks"]["large"],
}
"""Each request has 4 MiB, so 40 that stay in memory are 160 MiB."""


async def refused(pid: int, address: str) -> dict[str, float]:
    async with grpc.aio.insecure_channel(address, options=calls.CLIENT_OPTIONS) as channel:
        world = memory_world.World(pid, channel)
        grown = {}
        for name, attack in REFUSED.items():
            await attack(world)
            memory_world.begin_peak(pid)
            world.before_mib = memory_world.now_mib(pid)
            for _ in range(REFUSALS):
                await attack(world)
            grown[name] = world.grown_mib()
        return grown


@pytest.mark.long
@pytest.mark.timeout(120)
def test_a_request_that_was_refused_is_not_kept_in_memory(tmp_path: Path) -> None:
    with services.Services(installed.Shell(tmp_path)) as running:
        process, address = running.pool()
        grown = asyncio.run(refused(process.pid, address))
    assert max(grown.values()) <= MAX_MIB, grown


def test_every_call_of_both_services_is_attacked() -> None:
    services_of = calls.pb.DESCRIPTOR.services_by_name.values()
    there = {method.name for service in services_of for method in service.methods}
    assert set(memory_attacks.ATTACKS) == there, "a new call needs its rows in memory_attacks.py"
