"""One task followed live: its output as it comes, its end, and ^C on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from hivemind_worker.concurrency import periodic, stopping
from hivemind_worker.tasks import state

if TYPE_CHECKING:
    from hivemind_worker.client import asynchronous, following, shapes

WHY_SECONDS = 2.0
"""How often one asks why a task waits; the first time after so long, as most do not wait at all."""

Write = Callable[["following.Output"], None]


async def follow(
    client: asynchronous.AsyncClient,
    task_id: str,
    stop: stopping.Stop,
    write: Write | None,
    note: Callable[[str], None],
) -> shapes.Task:
    """Write a task's output as it comes and return the task once it has ended and all of it is written.

    ``stop`` at level cancel cancels the task, whose end is still waited for; at kill raises
    :class:`stopping.Stopped`. Without ``write`` the output is somebody else's business. ``write`` may block; an OSError
    of it means that nobody reads the output: the task is cancelled, and once it has ended the error is raised.
    ``note`` is told why a task waits.
    """
    printing = asyncio.create_task(_print(client, task_id, stop, write), name=f"output of {task_id}")
    telling = asyncio.create_task(_say_why_it_waits(client, task_id, stop, note), name=f"why {task_id} waits")
    cancelling = asyncio.create_task(_cancel_on(client, task_id, stop), name=f"cancelling {task_id}")
    try:
        (task,) = await stop.until(stopping.StopLevel.KILL, client.wait(task_id))
        await stop.until(stopping.StopLevel.KILL, _join(printing))
    finally:
        await stopping.settle(printing, telling, cancelling)
    if not telling.cancelled():
        telling.result()
    if not cancelling.cancelled():
        cancelling.result()  # a pool that would not cancel it: that is told
    return task


async def _print(client: asynchronous.AsyncClient, task_id: str, stop: stopping.Stop, write: Write | None) -> None:
    if write is None:
        return
    async for output in client.logs(task_id, follow=True):
        try:
            await asyncio.to_thread(write, output)
        except OSError as error:
            stop.request(stopping.StopLevel.CANCEL, f"nobody reads the output: {error.strerror}")
            raise


async def _say_why_it_waits(
    client: asynchronous.AsyncClient, task_id: str, stop: stopping.Stop, note: Callable[[str], None]
) -> None:
    said = ""
    async for _ in periodic.every(WHY_SECONDS, stop, level=stopping.StopLevel.CANCEL, at_once=False):
        task = await client.task(task_id)
        if task.status is not state.TaskState.QUEUED:
            return
        if task.waiting_because != said:
            said = task.waiting_because
            note(f"hivemind: it waits: {said}")


async def _join(task: asyncio.Task[None]) -> None:
    await task


async def _cancel_on(client: asynchronous.AsyncClient, task_id: str, stop: stopping.Stop) -> None:
    await stop.wait(stopping.StopLevel.CANCEL)
    await client.cancel(task_id)
