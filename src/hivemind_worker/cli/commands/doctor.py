"""`hivemind doctor`: can tasks run here, and what really fences them. Proved by trying, within ten seconds."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from typing import Any

import click

from hivemind_worker.cli import exit_codes, folders, look, options, probing


@click.command("doctor")
@options.of(*options.TO_POOL, groups=("docker", "images", "storage"))
@look.options()
def command(**given: Any) -> None:
    """Probe whether tasks can run here, and how well they are fenced.

    Each defence is tried in a container or sandbox of the kind that tasks get. The exit code is 0 when all hold (but
    those of accept_missing_defences), otherwise 1; whether a pool answers is told, and does not count.
    """
    shown = look.current()
    settings = options.load(given)

    async def probe() -> tuple[bool, list[probing.Row]]:
        with folders.private() as folder:
            fence = asyncio.create_task(probing.fence(settings, folder), name="fence")
            asked = asyncio.create_task(probing.within(4, "pool", probing.pool(settings)), name="pool")
            kept = await asyncio.to_thread(probing.folders, settings)
            fenced = await _fenced(fence)
            return fenced.holds, [*fenced.rows, *kept, *await asked]

    holds, rows = asyncio.run(probe())
    for row in rows:
        if shown.json:
            shown.object(dataclasses.asdict(row))
    if not shown.json:
        shown.table(
            ("check", "in force", "why", "fix"),
            [(row.check, "yes" if row.in_force else "NO", row.why, row.fix) for row in rows],
            prose=("check", "why", "fix"),
        )
    sys.exit(exit_codes.OK if holds and _usable(rows) else exit_codes.FAILURE)


async def _fenced(fence: asyncio.Task[probing.Fence]) -> probing.Fence:
    try:
        async with asyncio.timeout(probing.FENCE_SECONDS):
            return await fence
    except TimeoutError:
        why = f"no answer within {probing.FENCE_SECONDS:g} s"
        row = probing.Row("isolation", in_force=False, why=why, fix="look why the engine hangs; try again")
        return probing.Fence("", holds=False, rows=(row,))


def _usable(rows: list[probing.Row]) -> bool:
    """Whether there is where to work; optional layers, the pool, and limits made up for otherwise may be missing."""
    return all(row.in_force for row in rows if row.check.endswith(("writable", "disk space")))
