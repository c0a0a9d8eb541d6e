"""A pool and a worker of one's own, in this process, for as long as one command takes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from hivemind_worker import errors
from hivemind_worker.cli import folders, service, tapped
from hivemind_worker.concurrency import stopping
from hivemind_worker.filesystem import memory
from hivemind_worker.settings import schema
from hivemind_worker.tasks import resources
from hivemind_worker.wiring import executors, pools, workers

_SOCKET_PATH = 100
"""Longest path of a Unix socket, in bytes: the kernel takes 107."""


@contextlib.asynccontextmanager
async def pool_and_worker(
    settings: schema.Settings, needs: resources.Resources, stop: stopping.Stop, tap: tapped.Tap, note: executors.Note
) -> AsyncIterator[schema.Settings]:
    """Have a pool and a worker within this block, and give the settings by which to reach them.

    All they keep lies in a private folder that is removed in the end. Where the worker fails, so does the block, with
    the worker's error; where this machine can never meet ``needs``, with :class:`errors.InvalidTask`. ``stop`` at level
    kill makes the end one at once. ``tap`` is given the tasks' output.
    """
    memory.protect()
    try:
        with folders.private() as folder, _listen(folder) as listen:
            private = _private(settings, folder, listen)
            async with service.serving(pools.build(private)) as address:
                here = _at(private, address)
                worker = await workers.build(here, note, lambda runs: tapped.TappedExecutor(runs, tap), measured=False)
                _large_enough(worker.snapshot().capacity, needs)
                inside = stopping.Stop()
                async with asyncio.TaskGroup() as group:
                    working = group.create_task(worker.run(inside), name="worker")
                    try:
                        yield here
                    finally:
                        killed = stop.level is stopping.StopLevel.KILL
                        level = stopping.StopLevel.KILL if killed else stopping.StopLevel.CANCEL
                        inside.request(level, "the command has ended")
                        await asyncio.wait({working})
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None


def _large_enough(capacity: resources.Resources, needs: resources.Resources) -> None:
    """No other worker will ever come to this pool: what does not fit here would wait for good."""
    if lacking := needs.lacking(capacity):
        what = "; ".join(lacking).replace(" free", " in all")
        raise errors.InvalidTask("task", f"asks for more than this machine has to give: {what}")


@contextlib.contextmanager
def _listen(folder: Path) -> Iterator[str]:
    """Have the address of a socket in ``folder``: a port would be open to every user of this machine."""
    socket = folder / "pool.sock"
    if len(str(socket).encode()) <= _SOCKET_PATH:
        yield f"unix:{socket}"
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"unix:/proc/self/fd/{handle}/{socket.name}"
    finally:
        os.close(handle)


def _private(settings: schema.Settings, folder: Path, listen: str) -> schema.Settings:
    """The same settings, with everything that is kept in ``folder``, and listened at ``listen``."""
    storage = {"state_dir": folder, "work_dir": folder / "work", "log_dir": folder / "log"}
    pool = {"listen": listen, "store": None, "artifact_dir": None}
    security = {"tls_ca_file": None, "tls_cert_file": None, "tls_key_file": None, "insecure": False}
    return settings.model_copy(
        update={
            "node": settings.node.model_copy(update={"node_id": f"run-{secrets.token_hex(4)}", "labels": {}}),
            "storage": settings.storage.model_copy(update=storage),
            "pool": settings.pool.model_copy(update=pool),
            "security": settings.security.model_copy(update=security),
        }
    )


def _at(settings: schema.Settings, address: str) -> schema.Settings:
    """The same settings, for whoever calls the pool at ``address``."""
    return settings.model_copy(update={"node": settings.node.model_copy(update={"node_pool_address": address})})
