"""A real pool on a free loopback port, and a hand-driven worker that makes single calls to it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from hivemind_worker.pool import server
from hivemind_worker.wire import calls

pb = calls.pb


@dataclass
class Stubs:
    """Both stubs of a pool that runs somewhere."""

    nodes: calls.NodeManager
    tasks: calls.TaskManager

    async def submit(self, *tasks: pb.Task, key: str = "") -> list[str]:
        """Submit; without tasks one that does nothing."""
        given = tasks or (pb.Task(command="true"),)
        answer = await self.tasks.SubmitTasks(pb.SubmitTasksRequest(tasks=given, idempotency_key=key))
        return list(answer.task_ids)

    async def info(self, task_id: str) -> pb.TaskInfo:
        """What the pool knows of a task."""
        return (await self.tasks.GetTask(pb.GetTaskRequest(task_id=task_id))).task

    async def worker(self, name: str = "n", boot_id: str = "boot", **said: Any) -> Worker:
        """Register a node."""
        request = pb.RegisterNodeRequest(
            node_id=name, boot_id=boot_id, **{"cpu_cores": 4, "memory_gb": 8, "disk_gb": 50, **said}
        )
        return Worker(self, name, (await self.nodes.RegisterNode(request)).session_id)


@dataclass
class Running(Stubs):
    """A pool that runs in this process, and both stubs."""

    pool: server.NodePool


@dataclass
class Worker:
    """A node that does what it is told, call by call."""

    at: Stubs
    name: str
    session_id: str

    async def poll(self, seconds: float = 0.0, *held: pb.Task, **said: Any) -> pb.GetAssignedTasksResponse:
        """Ask for tasks."""
        refs = [pb.AttemptRef(task_id=task.id, attempt=task.attempt) for task in held]
        return await self.at.nodes.GetAssignedTasks(
            pb.GetAssignedTasksRequest(
                node_id=self.name, session_id=self.session_id, wait_seconds=seconds, held=refs, **said
            )
        )

    async def take(self) -> pb.Task:
        """Ask for one task and get it."""
        (task,) = (await self.poll(10)).tasks
        return task

    async def report(self, task: pb.Task, status: str = "completed", **result: Any) -> pb.ReportTaskResultResponse:
        """Report how an attempt stands or ended."""
        request = pb.ReportTaskResultRequest(
            task_id=task.id, node_id=self.name, session_id=self.session_id, attempt=task.attempt, status=status
        )
        if status != "running":
            request.result.CopyFrom(pb.TaskResult(status=status, **result))
        return await self.at.nodes.ReportTaskResult(request)

    async def beat(self, *held: pb.Task, status: str = "busy") -> pb.UpdateNodeStatusResponse:
        """Send a heartbeat."""
        refs = [pb.AttemptRef(task_id=task.id, attempt=task.attempt) for task in held]
        return await self.at.nodes.UpdateNodeStatus(
            pb.UpdateNodeStatusRequest(node_id=self.name, session_id=self.session_id, status=status, held=refs)
        )


@contextlib.asynccontextmanager
async def running(folder: Path, **said: Any) -> AsyncIterator[Running]:
    """A pool on a free port, stopped at the end."""
    pool = server.NodePool(folder, **said)
    address = await pool.start()
    try:
        async with grpc.aio.insecure_channel(address, options=calls.CLIENT_OPTIONS) as channel:
            found = Running(calls.node_manager(channel), calls.task_manager(channel), pool)
            yield found
            # A fixture's value outlives its loop, and gRPC keeps two sockets per loop while one stub is alive.
            del found.nodes, found.tasks, channel
    finally:
        await pool.stop()


@contextlib.asynccontextmanager
async def connected(address: str) -> AsyncIterator[Stubs]:
    """The stubs of a pool in another process."""
    async with grpc.aio.insecure_channel(address, options=calls.CLIENT_OPTIONS) as channel:
        found = Stubs(calls.node_manager(channel), calls.task_manager(channel))
        yield found
        del found.nodes, found.tasks, channel
