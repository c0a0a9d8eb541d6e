"""Whoever waits has the result the moment it is told: it does not wait for the stream's own end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from scripted_pool import serving

from hivemind_worker.client import asynchronous
from hivemind_worker.wire import calls

pb = calls.pb


class _Pool(calls.TaskManagerServicer):
    """Tells the end of each task, and never ends the stream."""

    def __init__(self) -> None:
        self.left = asyncio.Event()

    async def WatchTasks(  # noqa: N802
        self, request: pb.WatchTasksRequest, _: calls.Context
    ) -> AsyncIterator[pb.WatchTasksResponse]:
        try:
            for task_id in request.task_ids:
                yield pb.WatchTasksResponse(task=pb.TaskInfo(id=task_id, state="completed", version=3))
            await asyncio.Event().wait()
        finally:
            self.left.set()


async def test_waiting_ends_with_the_last_task_and_lets_go_of_the_stream() -> None:
    pool = _Pool()  # type: ignore[abstract]  # the other calls are never made
    async with serving(pool) as address, asynchronous.AsyncClient(address) as client:
        tasks = await client.wait(["a", "b"], 20)
        assert [task.id for task in tasks] == ["a", "b"]
        async with asyncio.timeout(20):
            await pool.left.wait()
