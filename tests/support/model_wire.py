"""The delivery model's backend over gRPC: a real pool on loopback, plain stubs, and the store's clock in our hands."""

from __future__ import annotations

import asyncio
import contextlib
import math
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import grpc
import model_calls as calls
from model_calls import Answer, Call, Key, Refusal
from model_ledger import demand
from waiting import wait_until

from hivemind_worker import units
from hivemind_worker.pool import backup, restore, server
from hivemind_worker.pool.scheduling import challenge, leases
from hivemind_worker.pool.store import clocks, records
from hivemind_worker.tasks import resources
from hivemind_worker.wire import calls as wire
from hivemind_worker.wire import verdicts

pb = wire.pb
T = TypeVar("T")
LEASE = 0.4
"""Seconds of the store's clock."""
LOOKS_PER_LEASE = 100
"""How often the pool looks for lost leases, in real time: that is what this backend waits for most."""

REFUSALS = {
    verdicts.Reason.UNKNOWN_NODE: Refusal.UNKNOWN_NODE,
    verdicts.Reason.UNKNOWN_SESSION: Refusal.UNKNOWN_NODE,
    verdicts.Reason.SESSION_REPLACED: Refusal.REPLACED,
    verdicts.Reason.CONFLICT: Refusal.CONFLICT,
    verdicts.Reason.NO_SUCH_TASK: Refusal.NO_SUCH_TASK,
}
VERDICTS = {
    pb.VERDICT_ACCEPTED: "accepted",
    pb.VERDICT_DUPLICATE: "duplicate",
    pb.VERDICT_STALE: "stale",
    pb.VERDICT_UNKNOWN: "unknown",
}


class WireBackend:
    """One pool, started again when it is told to."""

    lease = LEASE
    can_crash = False
    can_restore = True
    asks_incumbent = True
    looks_itself = True

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._folder = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        self._path = Path(self._folder.name) / "pool"
        self._seconds = 1_000.0
        self._wall = 1_700_000_000.0
        self._backups = 0
        self._looks = 0
        self._looking = False
        self._patches = contextlib.ExitStack()
        self._patches.enter_context(mock.patch.object(leases, "LOOKS_PER_LEASE", LOOKS_PER_LEASE))
        # Its peers do one thing after the other: none of them answers while another registers.
        self._patches.enter_context(mock.patch.object(challenge, "CHALLENGE_SECONDS", 0.02))
        self._patches.enter_context(mock.patch.object(challenge, "RECONNECT_SECONDS", 0.0))
        self._run(self._start())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        # `Runner.run` installs a handler of SIGINT each time, which takes as long as a short call.
        return self._runner.get_loop().run_until_complete(work)

    async def _start(self) -> None:
        # What goes by in one step counts whole: in a pool that stands still only a part of it would.
        running = clocks.RunningTime(math.inf, lambda: self._seconds)
        with mock.patch.object(leases, "running_time", return_value=running):
            pool = server.NodePool(self._path, lease_seconds=LEASE)
        pool.store._times = clocks.Clocks(running, lambda: self._wall + self._seconds)
        self._count_looks(pool)
        address = await pool.start()
        self._pool = pool
        self._channel = grpc.aio.insecure_channel(address, options=wire.CLIENT_OPTIONS)
        self._nodes, self._tasks = wire.node_manager(self._channel), wire.task_manager(self._channel)

    def _count_looks(self, pool: server.NodePool) -> None:
        expire, begin_anew = pool.store.expire, pool.store.begin_leases_anew

        async def looked(as_of: float | None = None) -> records.Lost:
            self._looking = True
            found = await expire(as_of)
            self._looks, self._looking = self._looks + 1, False
            return found

        async def began() -> None:
            self._looking = True
            await begin_anew()
            self._looks, self._looking = self._looks + 1, False

        pool.store.expire, pool.store.begin_leases_anew = looked, began  # type: ignore[method-assign]

    async def _stop(self) -> None:
        await self._channel.close()
        await self._pool.stop()
        # gRPC keeps two sockets per loop while one stub is alive.
        del self._nodes, self._tasks, self._channel, self._pool

    def close(self) -> None:
        self._run(self._stop())
        self._patches.close()
        self._runner.close()
        self._folder.cleanup()

    def wait(self, seconds: float) -> None:
        self._run(self._wait(seconds))

    async def _wait(self, seconds: float) -> None:
        # Between two looks, so that the next one judges by this time.
        await wait_until(lambda: not self._looking, description="the pool is between two looks", seconds=60)
        self._seconds += seconds

    def set_clock(self, step: float) -> None:
        self._wall += step

    def reopen(self) -> None:
        self._run(self._stop())
        self._run(self._start())

    def crash_in(self, *made: Call, statement: int) -> list[Answer]:
        raise NotImplementedError

    def save(self) -> object:
        """`hivemind pool backup`, while the pool serves."""
        self._backups += 1
        target = Path(self._folder.name) / f"backup-{self._backups}"
        backup.make(self._folders(), target)
        return target

    def restore(self, saved: object | None) -> None:
        """`hivemind pool restore`, into an empty folder."""
        self._run(self._stop())
        shutil.rmtree(self._path)
        if isinstance(saved, Path):
            restore.restore(saved, self._folders())
        self._run(self._start())

    def _folders(self) -> backup.Folders:
        return backup.Folders(self._path / "pool.sqlite", self._path / "logs", self._path / "artifacts")

    # -- calls ---------------------------------------------------------------------------------------------------------

    def make(self, *made: Call) -> list[Answer]:
        return self._run(self._all(made))

    async def _all(self, made: tuple[Call, ...]) -> list[Answer]:
        return list(await asyncio.gather(*(self._one(call) for call in made)))

    async def _one(self, call: Call) -> Answer:
        try:
            return await self._make(call)
        except grpc.aio.AioRpcError as error:
            found = verdicts.read(error)
            demand(found.code is not grpc.StatusCode.INTERNAL, f"{call} made the pool fail: {found}")
            if found.reason is None and found.code is grpc.StatusCode.UNAVAILABLE:
                return Answer(refusal=Refusal.UNAVAILABLE)
            return Answer(refusal=REFUSALS.get(found.reason, Refusal.REJECTED) if found.reason else Refusal.REJECTED)

    async def _make(self, call: Call) -> Answer:
        match call:
            case calls.Register():
                return await self._register(call)
            case calls.Beat():
                return await self._beat(call)
            case calls.Poll():
                return await self._poll(call)
            case calls.Report():
                return await self._report(call)
            case calls.Expire() | calls.BeginAnew():
                await self._look()
                return Answer()
            case _:
                return await self._submitters(call)

    async def _look(self) -> None:
        """The pool has looked at its leases with the clock as it stands now: one look may have begun before."""
        seen = self._looks
        await wait_until(lambda: self._looks > seen + 1, description="the pool looks at its leases", seconds=60)

    async def _submitters(self, call: Call) -> Answer:
        match call:
            case calls.Submit():
                tasks = [new_task(spec) for spec in call.specs]
                request = pb.SubmitTasksRequest(tasks=tasks, idempotency_key=call.request_key)
                return Answer(ids=tuple((await self._tasks.SubmitTasks(request)).task_ids))
            case calls.Retry():
                again = pb.RetryTasksRequest(task_ids=call.ids, idempotency_key=call.request_key)
                return Answer(ids=tuple((await self._tasks.RetryTasks(again)).new_task_ids))
            case calls.Cancel():
                await self._tasks.CancelTasks(pb.CancelTasksRequest(task_ids=call.ids))
            case calls.Drain(draining=True):
                await self._tasks.DrainNode(pb.DrainNodeRequest(node_id=call.node))
            case calls.Drain():
                await self._tasks.ResumeNode(pb.ResumeNodeRequest(node_id=call.node))
        return Answer()

    async def _register(self, call: calls.Register) -> Answer:
        opened = await self._nodes.RegisterNode(
            pb.RegisterNodeRequest(
                node_id=call.node,
                boot_id=call.boot,
                state_lock_id=call.lock,
                cpu_cores=call.capacity.cpu_cores,
                memory_gb=call.capacity.memory_bytes / units.GIB,
                disk_gb=call.capacity.disk_bytes / units.GIB,
                labels={"zone": call.zone} if call.zone else {},
                max_concurrent_tasks=call.max_tasks,
                held=refs(call.listed),
            )
        )
        # A node without a boot id knows no sessions; it is told one all the same.
        return Answer(session=opened.session_id, epoch=opened.store_epoch, drop=self._keys(opened.drop))

    async def _beat(self, call: calls.Beat) -> Answer:
        orders = await self._nodes.UpdateNodeStatus(
            pb.UpdateNodeStatusRequest(
                node_id=call.node,
                session_id=call.session,
                status="offline" if call.offline else "busy",
                held=refs(call.listed or ()),
            )
        )
        return Answer(cancel=self._keys(orders.cancel), drop=self._keys(orders.drop), draining=orders.draining)

    async def _poll(self, call: calls.Poll) -> Answer:
        request = pb.GetAssignedTasksRequest(
            node_id=call.node,
            session_id=call.session,
            most=call.max_tasks,
            paused=call.paused,
            held=refs(call.listed),
        )
        if call.free is not None:
            request.free.CopyFrom(
                pb.FreeResources(
                    cpu_cores=call.free.cpu_cores,
                    memory_bytes=call.free.memory_bytes,
                    disk_bytes=call.free.disk_bytes,
                )
            )
        given = await self._nodes.GetAssignedTasks(request)
        assigned = tuple(
            calls.Assigned(Key(task.store_epoch, task.id, task.attempt), task.command) for task in given.tasks
        )
        return Answer(assigned=assigned, cancel=self._keys(given.cancel), rests=None)

    async def _report(self, call: calls.Report) -> Answer:
        request = pb.ReportTaskResultRequest(
            task_id=call.key.task,
            node_id=call.node,
            session_id=call.session,
            attempt=call.key.attempt,
            status=call.status or "running",
            store_epoch=call.key.epoch,
            run_id=call.run,
        )
        if call.status:
            request.result.CopyFrom(
                pb.TaskResult(
                    status=call.status,
                    reason=call.reason,
                    error="as told",
                    image_digest=call.body,
                    node_check=call.check,
                )
            )
        return Answer(verdict=VERDICTS[(await self._nodes.ReportTaskResult(request)).verdict])

    def _keys(self, named: Any) -> tuple[Key, ...]:
        return tuple(Key(ref.store_epoch, ref.task_id, ref.attempt) for ref in named)

    # -- views ---------------------------------------------------------------------------------------------------------

    def view(self) -> calls.View:
        return self._run(self._view())

    async def _view(self) -> calls.View:
        info, tasks, nodes = await asyncio.gather(
            self._tasks.GetPoolInfo(pb.GetPoolInfoRequest()),
            self._tasks.ListTasks(pb.ListTasksRequest(page_size=1_000)),
            self._tasks.ListNodes(pb.ListNodesRequest()),
        )
        return calls.View(
            info.store_epoch,
            {task.id: self._task(task) for task in tasks.tasks},
            {node.node_id: self._node(node) for node in nodes.nodes},
        )

    def _task(self, task: pb.TaskInfo) -> calls.TaskView:
        return calls.TaskView(
            task.id,
            task.state,
            task.attempt,
            task.node_id,
            task.max_attempts,
            task.cancel_requested,
            task.result.image_digest or None,
            task.disruptions,
            task.retry_of,
            task.result.reason,
        )

    def _node(self, node: pb.NodeInfo) -> calls.NodeView:
        return calls.NodeView(
            node.node_id,
            node.status != "lost",
            node.draining,
            amounts(node.capacity),
            node.max_concurrent_tasks,
            amounts(node.free),
            frozenset((ref.task_id, ref.attempt) for ref in node.attempts),
        )


def amounts(message: pb.FreeResources) -> resources.Resources:
    return resources.Resources(message.cpu_cores, message.memory_bytes, message.disk_bytes, message.gpus)


def refs(listed: tuple[calls.Listed, ...]) -> list[pb.AttemptRef]:
    return [
        pb.AttemptRef(
            task_id=item.key.task,
            attempt=item.key.attempt,
            store_epoch=item.key.epoch,
            run_id=item.run,
            phase="running" if item.run else "accepted",
        )
        for item in listed
    ]


def new_task(spec: calls.Spec) -> pb.Task:
    return pb.Task(
        id=spec.id,
        command=spec.digest,
        priority=spec.priority,
        max_attempts=spec.max_attempts,
        node_selector={"zone": spec.zone} if spec.zone else {},
        required_resources=pb.RequiredResources(
            cpu_cores=spec.needs.cpu_cores,
            memory_gb=spec.needs.memory_bytes / units.GIB,
            disk_gb=spec.needs.disk_bytes / units.GIB,
        ),
    )
