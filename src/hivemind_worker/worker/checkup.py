"""The reference document's four checks of a node, made of what it knows; whether it lives, whether it takes tasks."""

from __future__ import annotations

from typing import Final

from hivemind_worker import errors
from hivemind_worker.concurrency import clock
from hivemind_worker.telemetry.health import checks, report
from hivemind_worker.worker.machine import fitness, room
from hivemind_worker.worker.pool_link import client, session

SILENT_SECONDS: Final = 120.0
"""After which a pool counts as gone that grants no lease: four of the default's heartbeats."""


def checker(
    pool: client.NodePoolClient, line: session.Session, held: room.Room, fit: fitness.Fitness
) -> report.HealthChecker:
    """Return what makes the node's health report; to be used on the node's event loop."""

    async def node_pool() -> checks.Check:
        return await _node_pool(pool, line, fit.limits.probe_seconds)

    async def docker() -> checks.Check:
        return fit.isolation

    async def system() -> checks.Check:
        return fit.system_resources()

    async def disk_space() -> checks.Check:
        return fit.disk_space()

    return report.HealthChecker(
        {"node_pool": node_pool, "docker": docker, "resources": system, "disk_space": disk_space},
        live=lambda: not fit.standing,
        ready=lambda: _ready(line, held),
        seconds=fit.limits.probe_seconds,
    )


async def _node_pool(pool: client.NodePoolClient, line: session.Session, seconds: float) -> checks.Check:
    if not line.established:
        return checks.unhealthy(f"Node Pool connection failed: {line.trouble or 'not registered yet'}")
    if not line.plain:  # one that knows the reference's four calls alone has no ping: its session must do
        try:
            await pool.ping(seconds)
        except errors.HiveMindError as error:
            return checks.unhealthy(f"Node Pool connection failed: {error}")
    return checks.healthy("Node Pool connection OK")


def _ready(line: session.Session, held: room.Room) -> tuple[bool, str]:
    if held.closed:
        return False, "draining: it takes no further tasks"
    if held.holds:
        return False, "; ".join(held.holds.values())
    if not line.established:
        return False, f"not registered at the pool: {line.trouble or 'it has only just started'}"
    silent = clock.now() - line.heard_at
    if silent > (line.lease_seconds or SILENT_SECONDS):
        return False, f"the pool has not answered for {silent:.0f} s"
    return True, ""
