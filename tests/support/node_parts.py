"""A worker node put together for a test: the real one, on the terms that the test gives."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from subprocess_executor import SubprocessExecutor

from hivemind_worker import units
from hivemind_worker.artifacts import outbox, store
from hivemind_worker.concurrency import stopping
from hivemind_worker.runtime import executor
from hivemind_worker.tasks import plan, resources
from hivemind_worker.tasks.kinds import kind
from hivemind_worker.telemetry.health import checks
from hivemind_worker.worker import worker_node
from hivemind_worker.worker.journal import writer
from hivemind_worker.worker.machine import fitness, monitor
from hivemind_worker.worker.pool_link import channel, client

CAPACITY = resources.Resources(4.0, 8 * units.GIB, 64 * units.GIB)
CAPS = plan.Caps(65_536, 65_536, units.GIB, 1_000, 16, 60.0)

WHATEVER = fitness.Limits(
    overload_cpu_percent=100.0,
    overload_memory_percent=100.0,
    unhealthy=checks.Thresholds(cpu_percent=100.0, memory_percent=100.0, disk_percent=100.0),
)
"""Work whatever else this machine is busy with, and however full it is."""


def limits(grace_seconds: float = 2.0, most: resources.Resources = CAPACITY) -> kind.NodeLimits:
    """What the node allows a task."""
    return kind.NodeLimits("example/none:1", 60.0, grace_seconds, CAPS, most)


class Node:
    """A node that is running, with the parts a test looks at."""

    def __init__(self, address: str, folder: Path, **terms: Any) -> None:
        self.files = store.Store(folder)
        lock = terms.pop("lock", None)
        books, undelivered = terms.pop("books", folder), terms.pop("undelivered", 0)
        undelivered_count = terms.pop("undelivered_count", 0)
        self.runs = SubprocessExecutor(self.files)
        runs: executor.Executor = terms.pop("runs", None) or self.runs
        self.stop = stopping.Stop()
        given: dict[str, Any] = {
            "node_id": "node-1",
            "version": "0.0.test",
            "limits": limits(),
            "capacity": CAPACITY,
            "max_concurrent_tasks": 4,
            "heartbeat_seconds": 0.2,
            "poll_seconds": 5.0,
            "drain_seconds": 20.0,
            "short_poll_seconds": 0.05,
            "fitness": WHATEVER,
        }
        self.node = worker_node.WorkerNode(
            worker_node.Terms(**{**given, **terms}),
            pool=client.NodePoolClient(channel.Access(address)),
            runs=runs,
            files=self.files,
            journal=writer.Journal(books / "worker.journal", "this-boot"),
            unsent=outbox.Outbox(books / "outbox", undelivered, undelivered_count),
            watched=monitor.ResourceMonitor(folder),
            lock=lock,
        )


@contextlib.asynccontextmanager
async def running(address: str, folder: Path, **terms: Any) -> AsyncIterator[Node]:
    """A node at work; at the end it is killed, and everything of it has ended."""
    node = Node(address, folder, **terms)
    work = asyncio.create_task(node.node.run(node.stop), name="the node")
    try:
        yield node
    finally:
        node.stop.request(stopping.StopLevel.KILL, "the test is over")
        await work
