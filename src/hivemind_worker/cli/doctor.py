"""`hivemind doctor`: can tasks run here, and what really fences them. Proved by trying, within ten seconds."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from typing import Any

import click

from hivemind_worker.cli import exit_codes, folders, look, options, probing


@click.command("doctor")
@options.of(*options.TO_POOL, groups=("docker", "storage"))
@look.options()
def command(**given: Any) -> None:
    """Probe whether tasks can run here, and how well they are fenced.

    A task is run that looks at its own fence. The exit code is 0 when tasks can run safely here, otherwise 1; whether
    a pool answers is told, and does not count.
    """
    shown = look.current()
    settings = options.load(given)

    async def probe() -> tuple[str, list[probing.Row]]:
        with folders.private() as folder:
            fence = asyncio.create_task(probing.fence(settings, folder), name="fence")
            asked = asyncio.create_task(probing.within(4, "pool", probing.pool(settings)), name="pool")
            kept = await asyncio.to_thread(probing.folders, settings)
            isolation, fenced = await _fenced(fence)
            return isolation, [*fenced, *kept, *await asked]

    isolation, rows = asyncio.run(probe())
    for row in rows:
        if shown.json:
            shown.object(dataclasses.asdict(row))
    if not shown.json:
        shown.table(
            ("check", "in force", "why", "fix"),
            [(row.check, "yes" if row.in_force else "NO", row.why, row.fix) for row in rows],
            prose=("check", "why", "fix"),
        )
    sys.exit(exit_codes.OK if isolation and _safe(rows) else exit_codes.FAILURE)


async def _fenced(fence: asyncio.Task[tuple[str, list[probing.Row]]]) -> tuple[str, list[probing.Row]]:
    try:
        async with asyncio.timeout(2 * probing.PROBE_SECONDS):
            return await fence
    except TimeoutError:
        why = f"no answer within {2 * probing.PROBE_SECONDS:g} s"
        return "", [probing.Row("isolation", in_force=False, why=why, fix="look why the engine hangs; try again")]


def _safe(rows: list[probing.Row]) -> bool:
    """Whether all that must hold does; optional layers, the pool, and limits made up for otherwise may be missing."""
    must = ("writable", "disk space", "a task runs", *probing.MUST)
    return all(row.in_force or row.why.startswith("not tried") for row in rows if row.check.endswith(must))
