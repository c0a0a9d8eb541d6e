"""The pool's own checks: can its store be read, is there room on its disk; whether it lives and takes tasks."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

from hivemind_worker.pool import readiness
from hivemind_worker.pool.store import store
from hivemind_worker.telemetry.health import checks, report

DISK_PERCENT = 95.0
"""A pool needs little to go on; at this it should be told before its store cannot be written any more."""


def checker(
    kept: store.Store, folder: Path, serving: Callable[[], str], hands_out: readiness.Readiness
) -> report.HealthChecker:
    """Return what makes the pool's health report.

    ``serving`` says why it serves nobody, ``hands_out`` why it hands out nothing; both are empty while it does.
    """

    async def stored() -> checks.Check:
        if kept.damage:
            return checks.unhealthy(kept.damage)
        await kept.oldest_queued()
        return checks.healthy("Store OK")

    async def disk_space() -> checks.Check:
        disk = await asyncio.to_thread(shutil.disk_usage, folder)
        # As `df` counts: what only root may use is neither used nor free.
        percent = 100.0 * disk.used / max(disk.used + disk.free, 1)
        return checks.disk_space(checks.Thresholds(disk_percent=DISK_PERCENT), percent, disk.free, str(folder))

    def ready() -> tuple[bool, str]:
        reason = serving() or "; ".join(hands_out.unready_reasons)
        return not reason, reason

    return report.HealthChecker({"store": stored, "disk_space": disk_space}, live=lambda: not serving(), ready=ready)
