"""A pool as a process of its own, with much in its store, and what it takes in memory while it is asked."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pool_parts
import waiting

from hivemind_worker.wire import calls

pb = calls.pb
MIB = 1024**2
FILE_BYTES = 40 * MIB
LONG = "x" * (3 * MIB)
HEAVY_NODES = 40
"""Each says 1.5 MiB of itself."""
LARGE_TASKS = 12


def file() -> bytes:
    """A large file, of zeros."""
    return bytes(FILE_BYTES)


@functools.cache
def file_sum() -> str:
    """The SHA-256 of that file."""
    return hashlib.sha256(file()).hexdigest()


def wide() -> str:
    """A text of which one wide character makes four bytes of each in Python's memory."""
    return "🙂" + LONG


def now_mib(pid: int, name: str = "VmRSS") -> float:
    """What a process has in memory now, or with VmHWM the most since `begin_peak`."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split(f"{name}:")[1].split(maxsplit=1)[0]) / 1024


def begin_peak(pid: int) -> None:
    """Measure the most from here on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


@dataclass
class World:
    """The pool's process, a channel to it, and the ids of what is in its store."""

    pid: int
    channel: grpc.aio.Channel
    session: str = ""
    before_mib: float = 0.0
    ids: dict[str, list[str]] = field(default_factory=dict)

    @property
    def nodes(self) -> calls.NodeManager:
        """The workers' stub."""
        return calls.node_manager(self.channel)

    @property
    def tasks(self) -> calls.TaskManager:
        """The submitters' stub."""
        return calls.task_manager(self.channel)

    @property
    def worker(self) -> pool_parts.Worker:
        """The node that has the session."""
        return pool_parts.Worker(pool_parts.Stubs(self.nodes, self.tasks), "n", self.session)

    def grown_mib(self) -> float:
        """The most since the pool was fresh: also what earlier calls have left is counted."""
        return now_mib(self.pid, "VmHWM") - self.before_mib

    async def stands_still(self) -> None:
        """Wait until the pool takes no more memory, and no less."""
        last = [0.0] * 5

        def same() -> bool:
            last[:] = [*last[1:], now_mib(self.pid)]
            return max(last) - min(last) < 0.1

        await waiting.wait_until(same, description="the pool's memory stands still", seconds=30)


async def _ended(world: World, name: str, tasks: list[pb.Task], result: pb.TaskResult) -> None:
    """Put tasks into the store that have ended with this result."""
    submitted = await world.tasks.SubmitTasks(pb.SubmitTasksRequest(tasks=tasks))
    world.ids[name] = list(submitted.task_ids)
    left = set(world.ids[name])
    while left:
        for task in (await world.worker.poll(5, most=64)).tasks:
            request = pb.ReportTaskResultRequest(
                task_id=task.id, node_id="n", session_id=world.session, attempt=task.attempt, result=result
            )
            assert (await world.nodes.ReportTaskResult(request)).success
            left.discard(task.id)


def small_task(**said: object) -> pb.Task:
    """A task that fits beside many others."""
    return pb.Task(**{"command": "true", "cpu_quota": 1_000, "memory_limit": "6m", **said})  # type: ignore[arg-type]


async def upload(world: World, data: bytes, step: int = MIB) -> None:
    """Upload a result file."""
    head = pb.UploadArtifactRequest(
        node_id="n", session_id=world.session, sha256=hashlib.sha256(data).hexdigest(), size=len(data)
    )

    async def pieces() -> AsyncIterator[pb.UploadArtifactRequest]:
        yield head
        for start in range(0, len(data), step):
            yield pb.UploadArtifactRequest(offset=start, data=data[start : start + step])

    await world.nodes.UploadArtifact(pieces())


async def append(world: World, task: pb.Task, data: bytes, step: int) -> None:
    """Send a task's output in chunks of so many bytes."""
    count, at_once = len(data) // step, max(1, min(10_000, MIB // step))

    async def pieces() -> AsyncIterator[pb.AppendTaskLogsRequest]:
        for first in range(0, count, at_once):
            chunks = [
                pb.LogChunk(stream=pb.LOG_STREAM_STDOUT, offset=at, sequence=at // step, data=data[at : at + step])
                for at in range(first * step, min(count, first + at_once) * step, step)
            ]
            yield pb.AppendTaskLogsRequest(
                task_id=task.id, attempt=task.attempt, node_id="n", session_id=world.session, chunks=chunks
            )

    await world.nodes.AppendTaskLogs(pieces())


async def register(world: World) -> None:
    """Open the session of the node that ends everything."""
    node = pb.RegisterNodeRequest(node_id="n", cpu_cores=64, memory_gb=64, disk_gb=500, boot_id="b")
    world.session = (await world.nodes.RegisterNode(node)).session_id


async def end_long(world: World, count: int) -> None:
    """Put so many tasks into the store that have ended with 3 MiB of output."""
    result = pb.TaskResult(status="failed", reason="nonzero_exit", exit_code=1, logs=LONG)
    await _ended(world, "long", [small_task() for _ in range(count)], result)


async def end_named(world: World, files: list[pb.ResultFile]) -> None:
    """Put a task into the store that has ended with these files."""
    result = pb.TaskResult(status="failed", reason="nonzero_exit", exit_code=1, files=files)
    await _ended(world, "named", [small_task()], result)


async def end_logged(world: World, name: str, data: bytes, step: int) -> None:
    """Put a task into the store whose node has sent this output, in chunks of so many bytes."""
    await world.tasks.SubmitTasks(pb.SubmitTasksRequest(tasks=[small_task()]))
    task = await world.worker.take()
    await append(world, task, data, step)
    await world.worker.report(task, logs="y", stdout_bytes=len(data), reason="", exit_code=0)
    world.ids[name] = [task.id]


async def warm_up(world: World) -> None:
    """Have a fresh pool do some of everything once, and fill its store's cache of 32 MiB."""
    await register(world)
    large = small_task(required_resources=pb.RequiredResources(gpus=1), command="x" * 3 * MIB)
    for _ in range(12):
        ids = (await world.tasks.SubmitTasks(pb.SubmitTasksRequest(tasks=[large]))).task_ids
        await world.tasks.CancelTasks(pb.CancelTasksRequest(task_ids=ids))
    ids = (await world.tasks.SubmitTasks(pb.SubmitTasksRequest(tasks=[small_task()]))).task_ids
    task = await world.worker.take()
    await append(world, task, b"hello\n" * 100, 600)
    await world.worker.beat(task)
    await world.worker.report(task, logs="x" * 1_000)
    async for _ in world.tasks.GetTaskLogs(pb.GetTaskLogsRequest(task_id=ids[0])):
        pass
    await world.tasks.GetTask(pb.GetTaskRequest(task_id=ids[0]))
    await world.tasks.ListTasks(pb.ListTasksRequest(page_size=1))
    await world.tasks.ListResults(pb.ListResultsRequest(task_id=ids[0]))
    await upload(world, ids[0].encode())
    await world.tasks.GetPoolInfo(pb.GetPoolInfoRequest())


async def fill(world: World) -> None:
    """Put much of everything into the store."""
    await register(world)
    failed: dict[str, Any] = {"status": "failed", "reason": "nonzero_exit", "exit_code": 1}
    await upload(world, file())
    await end_long(world, 30)
    await _ended(world, "wide", [small_task() for _ in range(3)], pb.TaskResult(logs=wide(), **failed))
    files = [pb.ResultFile(name=f"out/{n:06}", sha256=file_sum(), size=FILE_BYTES) for n in range(30_000)]
    await _ended(world, "named", [small_task()], pb.TaskResult(files=files, **failed))
    large = [small_task(code="", command="x" * (3 * MIB)) for _ in range(LARGE_TASKS)]
    world.ids["large"] = []
    for task in large:
        await _ended(world, "one", [task], pb.TaskResult(logs="", **failed))
        world.ids["large"] += world.ids.pop("one")
    for name, data, step in (("logged", b"y" * 16 * MIB, MIB), ("tiny", b"z" * 40_000, 1)):
        await end_logged(world, name, data, step)
    queued = [small_task(required_resources=pb.RequiredResources(gpus=1)) for _ in range(10_000)]
    world.ids["queued"] = list((await world.tasks.SubmitTasks(pb.SubmitTasksRequest(tasks=queued))).task_ids)
    for number in range(HEAVY_NODES):
        await world.nodes.RegisterNode(
            pb.RegisterNodeRequest(
                node_id=f"heavy-{number}", cpu_cores=1, capabilities=[f"{n:04}" + "c" * 900 for n in range(1_000)]
            )
        )
        readings = {f"{n:04}" + "r" * 600: 1.0 for n in range(1_000)}
        await world.nodes.UpdateNodeStatus(pb.UpdateNodeStatusRequest(node_id=f"heavy-{number}", readings=readings))


async def filled(pid: int, address: str) -> World:
    """Put much of everything into the store of a pool that runs, and tell what."""
    async with grpc.aio.insecure_channel(address, options=calls.CLIENT_OPTIONS) as channel:
        world = World(pid, channel)
        await fill(world)
        return world
