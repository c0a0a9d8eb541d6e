"""`hivemind clean`: one round of tidying by hand, or what it would remove, what it keeps, and why."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import click

from hivemind_worker.cli import exit_codes, look, options, words
from hivemind_worker.settings import schema
from hivemind_worker.wiring import housekeeping

if TYPE_CHECKING:
    from hivemind_worker.worker.housekeeping import sweep


@click.command("clean")
@options.of(
    *("docker_enabled", "docker_host", "isolation", "preload_images"),
    groups=("storage", "cleanup"),
)
@click.option("--dry-run", is_flag=True, help="Remove nothing; tell what would go, what stays, and why.")
@look.options()
def command(dry_run: bool, **given: Any) -> None:  # noqa: FBT001  (click's own signature)
    """Tidy this machine, or tell what would go and why.

    It is what the worker does by itself every few minutes: images and environments of ours go that have been unused for
    longest, workspaces of workers that died, old logs. Nothing of anybody else is removed.

    A worker may be running meanwhile. The exit code is 1 where something that should go could not be removed, or a
    place could not be looked into.
    """
    shown = look.current()
    settings = options.load(given)
    house = housekeeping.build(settings)
    if not settings.cleanup.cleanup_enabled and not dry_run:
        shown.note("cleanup_enabled is false: nothing is removed")
    report = asyncio.run(house.look() if dry_run else house.round())
    rows = [_row(each, dry_run=dry_run) for each in report.done]
    if shown.json:
        for row in rows:
            shown.object(row)
    elif rows:
        shown.table(
            ("what", "kind", "size", "fate", "why"),
            [(row["name"], row["kind"], words.size(row["bytes"]), row["fate"], row["why"]) for row in rows],
            prose=("what", "why"),
        )
    for where, trouble in report.troubles.items():
        shown.note(f"{where}: {trouble}")
    for disk in report.disks.values():
        shown.note(f"{disk.name or '/'} is {disk.percent:.1f} % full")
    shown.note(_summary(report, dry_run=dry_run))
    # An engine that may be absent is no failure; one that the owner counts on is.
    optional = {"images", "packages"} if settings.docker.isolation is schema.Isolation.AUTO else set()
    failed = any(each.trouble and each.decision.goes and not each.decision.for_room for each in report.done)
    sys.exit(exit_codes.FAILURE if failed or report.troubles.keys() - optional else exit_codes.OK)


def _row(each: sweep.Done, *, dry_run: bool) -> dict[str, Any]:
    thing, decision = each.decision.thing, each.decision
    if each.removed:
        fate = "removed"
    elif decision.goes and dry_run:
        fate = "would go"
    else:
        fate = "kept"
    why = f"{each.trouble}; it was to go: {decision.why}" if each.trouble else decision.why
    return {
        "name": thing.name,
        "kind": str(thing.kind),
        "bytes": thing.size_bytes,
        "last_used": thing.last_used,
        "fate": fate,
        "why": why,
    }


def _summary(report: sweep.Report, *, dry_run: bool) -> str:
    if dry_run:
        would = [each.decision.thing for each in report.done if each.decision.goes]
        size = words.size(sum(thing.size_bytes for thing in would))
        return f"{words.count(len(would), 'thing')} would go, {size}; nothing was removed"
    return f"{words.count(len(report.removed), 'thing')} removed, {words.size(report.freed_bytes)} freed"
