"""What a quiet worker tells of itself, for whoever shows it."""

from __future__ import annotations

import datetime as dt

from hivemind_worker import units
from hivemind_worker.tasks import resources
from hivemind_worker.worker.machine import monitor, status

NOW = dt.datetime(2026, 5, 4, 12, 0, tzinfo=dt.UTC)
AT = NOW.timestamp()
MACHINE = {"cpu": {"count": 8}, "memory": {"total": 16 * units.GIB}, "disk": {"total": 512 * units.GIB}}
RECENT = tuple(monitor.Moment(AT - 60 * minutes, 10.0 * minutes, 50.0, 25.0) for minutes in (10, 5, 0))
SNAPSHOT = status.Snapshot(
    node_id="node-1",
    boot_id="boot",
    status=status.NodeStatus.IDLE,
    pool="pool.example:50051",
    session_id="s",
    connected=True,
    plain_pool=False,
    trouble="",
    isolation="sandbox",
    capacity=resources.Resources(8.0, 16 * units.GIB, 100 * units.GIB),
    reserved=resources.Resources(1.5, units.GIB, 0),
    max_concurrent_tasks=2,
    attempts=(),
    ended=0,
    last_errors=(),
    machine=MACHINE,
    recent=RECENT,
)
