"""Many calls at once: from one caller and from several, with requests and answers as large as they come."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import memory_attacks
import memory_relay
import memory_world

from hivemind_worker.wire import calls

pb = calls.pb
MIB = 1024**2
Call = Callable[[memory_world.World, int], Awaitable[Any]]

CALLS = 120
"""Of each caller. Each has a message of 3 or 4 MiB, so without a bound they take some 500 MiB and more."""

CHANNELS = 4
SECONDS = 15.0
"""How long the calls of a crowd are let be: longer than any of them waits for room."""


async def _submit(world: memory_world.World, number: int) -> None:
    task = memory_attacks.gpu_task(id="crowd", command="x" * (memory_attacks.FULL - 5_000))
    await world.tasks.SubmitTasks(pb.SubmitTasksRequest(tasks=[task]))


async def _report(world: memory_world.World, number: int) -> None:
    result = pb.TaskResult(status="failed", reason="nonzero_exit", exit_code=1, logs=memory_world.LONG)
    await world.nodes.ReportTaskResult(
        pb.ReportTaskResultRequest(
            task_id=world.ids["long"][0], node_id="n", session_id=world.session, attempt=1, result=result
        )
    )


async def _beat(world: memory_world.World, number: int) -> None:
    request = pb.UpdateNodeStatusRequest(node_id="n", session_id=world.session, held=memory_attacks.refs(9_500))
    await world.nodes.UpdateNodeStatus(request)


async def _poll(world: memory_world.World, number: int) -> None:
    request = pb.GetAssignedTasksRequest(
        node_id="n", session_id=world.session, images=memory_attacks.words(10_000, 350), wait_seconds=30, paused=True
    )
    await world.nodes.GetAssignedTasks(request)


async def _unknown(world: memory_world.World, number: int) -> None:
    await memory_attacks.send(world, "DrainNode", memory_attacks.unknown())


async def _find(world: memory_world.World, number: int) -> None:
    await world.tasks.FindArtifacts(pb.FindArtifactsRequest(sha256=[f"{n:064x}" for n in range(40_000)]))


async def _get(world: memory_world.World, number: int) -> None:
    await world.tasks.GetTask(pb.GetTaskRequest(task_id=world.ids["long"][number % 4]))


async def _list(world: memory_world.World, number: int) -> None:
    await world.tasks.ListTasks(pb.ListTasksRequest(page_size=1_000))


async def _results(world: memory_world.World, number: int) -> None:
    await world.tasks.ListResults(pb.ListResultsRequest(task_id=world.ids["named"][0]))


async def _nodes(world: memory_world.World, number: int) -> None:
    await world.tasks.ListNodes(pb.ListNodesRequest())


async def _logs(world: memory_world.World, number: int) -> None:
    await memory_attacks.read(world.tasks.GetTaskLogs(pb.GetTaskLogsRequest(task_id=world.ids["long"][number % 4])))


async def _output(world: memory_world.World, number: int) -> None:
    await memory_attacks.read(world.tasks.GetTaskLogs(pb.GetTaskLogsRequest(task_id=world.ids["logged"][0])))


async def _watch(world: memory_world.World, number: int) -> None:
    await memory_attacks.read(world.tasks.WatchTasks(pb.WatchTasksRequest(task_ids=world.ids["long"])))


async def _watch_many(world: memory_world.World, number: int) -> None:
    ids = (world.ids["queued"] * (1 + 10_000 // len(world.ids["queued"])))[:10_000]
    await memory_attacks.read(world.tasks.WatchTasks(pb.WatchTasksRequest(task_ids=ids)))


async def _download(world: memory_world.World, number: int) -> None:
    request = pb.DownloadResultRequest(task_id=world.ids["named"][0], name="out/029999")
    await memory_attacks.read(world.tasks.DownloadResult(request))


REQUESTS: dict[str, Call] = {
    "SubmitTasks": _submit,
    "ReportTaskResult": _report,
    "UpdateNodeStatus": _beat,
    "GetAssignedTasks": _poll,
    "DrainNode": _unknown,
    "FindArtifacts": _find,
}
"""With large requests."""

ANSWERS: dict[str, Call] = {
    "GetTask": _get,
    "ListTasks": _list,
    "ListResults": _results,
    "ListNodes": _nodes,
    "GetTaskLogs": _logs,
    "GetTaskLogs as sent": _output,
    "WatchTasks": _watch,
    "WatchTasks of 10,000": _watch_many,
    "DownloadResult": _download,
}
"""With large answers, which may be read or not."""


async def fill(world: memory_world.World) -> None:
    """Put large answers into the store."""
    await memory_world.register(world)
    await memory_world.upload(world, memory_world.file())
    await memory_world.end_long(world, 4)
    files = [
        pb.ResultFile(name=f"out/{n:06}", sha256=memory_world.file_sum(), size=memory_world.FILE_BYTES)
        for n in range(30_000)
    ]
    await memory_world.end_named(world, files)
    queued = [memory_attacks.gpu_task() for _ in range(2_000)]
    world.ids["queued"] = list((await world.tasks.SubmitTasks(pb.SubmitTasksRequest(tasks=queued))).task_ids)


async def fill_output(world: memory_world.World) -> None:
    """Send a task's output in pieces, as it comes."""
    await memory_world.end_logged(world, "logged", b"y" * 8 * MIB, MIB)


async def fill_nodes(world: memory_world.World) -> None:
    """Register nodes that say much of themselves."""
    for number in range(8):
        await world.nodes.RegisterNode(
            pb.RegisterNodeRequest(node_id=f"heavy-{number}", capabilities=memory_attacks.words(1_000, 900))
        )


@contextlib.asynccontextmanager
async def crowd(
    world: memory_world.World, address: str, call: Call, *, sources: int = 1, reads: bool = True, trickles: bool = False
) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Make `CALLS` calls at once from each of some addresses.

    Not ``reads``: nobody takes the answers, or but a byte a second where they ``trickle``.
    """
    async with contextlib.AsyncExitStack() as stack:
        started: list[asyncio.Task[None]] = []
        for number in range(sources):
            relay = memory_relay.Relay(address, f"127.0.0.{2 + number}", trickles=trickles)
            await stack.enter_async_context(relay)
            channels = [
                await stack.enter_async_context(grpc.aio.insecure_channel(relay.address, options=calls.CLIENT_OPTIONS))
                for _ in range(CHANNELS)
            ]
            for channel in channels:
                await calls.node_manager(channel).Ping(pb.PingRequest())
            if not reads:
                relay.answers.clear()
            for place in range(CALLS):
                mine = memory_world.World(world.pid, channels[place % CHANNELS], world.session, ids=world.ids)
                started.append(asyncio.create_task(_quietly(call(mine, place))))
        yield started
        for task in started:
            task.cancel()
        await asyncio.wait(started)


async def _quietly(call: Awaitable[Any]) -> None:
    with contextlib.suppress(grpc.aio.AioRpcError):
        await call


async def served_mib(
    world: memory_world.World, address: str, call: Call, *, seconds: float = SECONDS, **how: Any
) -> tuple[float, bool]:
    """How much a pool grew at a crowd in so many seconds, and whether somebody else was served meanwhile."""
    async with (
        memory_relay.Relay(address, "127.0.0.99") as relay,
        grpc.aio.insecure_channel(relay.address, options=calls.CLIENT_OPTIONS) as channel,
    ):
        other = memory_world.World(world.pid, channel, world.session, ids=world.ids)
        memory_world.begin_peak(world.pid)
        before = memory_world.now_mib(world.pid)
        async with crowd(world, address, call, **how) as started:
            served = asyncio.create_task(_serve(other))
            await asyncio.wait([*started, served], timeout=seconds, return_when=asyncio.ALL_COMPLETED)
            grown = memory_world.now_mib(world.pid, "VmHWM") - before
        return grown, await served


async def _serve(other: memory_world.World) -> bool:
    """Ask for something small, again and again while a crowd is there; whether each was answered in time."""
    for _ in range(20):
        try:
            await other.nodes.Ping(pb.PingRequest(), timeout=20)
            await other.tasks.GetTask(pb.GetTaskRequest(task_id=other.ids["queued"][0]), timeout=20)
        except grpc.aio.AioRpcError:
            return False
    return True
