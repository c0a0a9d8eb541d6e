"""`hivemind images`: the images and environments on this machine, their size, their last use, and what keeps them."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import click

from hivemind_worker import errors
from hivemind_worker.cli import exit_codes, look, options, words
from hivemind_worker.settings import schema
from hivemind_worker.wiring import housekeeping

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hivemind_worker.worker.housekeeping import place, policy


@click.command("images")
@options.of(
    *("docker_enabled", "docker_host", "isolation", "preload_images", "keep_images"),
    groups=("storage",),
)
@look.options()
def command(**given: Any) -> None:
    """List the images and environments on this machine.

    Those used last first, with their size and why they stay. Environments are made of tasks' requirements, caches hold
    packages for the next one. Only what this worker has fetched or made is ever removed, by `hivemind clean` or by
    itself.
    """
    shown = look.current()
    settings = options.load(given)
    things, troubles = asyncio.run(_look(housekeeping.build_stock(settings)))
    rows = [_row(thing) for thing in sorted(things, key=lambda each: -each.last_used)]
    if shown.json:
        for row in rows:
            shown.object(row)
    else:
        shown.table(
            ("name", "kind", "size", "last used", "kept because"),
            [
                (
                    _short(row),
                    row["kind"],
                    words.size(row["bytes"]),
                    words.moment(row["last_used"]),
                    row["kept_because"],
                )
                for row in rows
            ],
            prose=("name", "kept because"),
        )
    for where, trouble in troubles.items():
        shown.note(f"{where}: {trouble}")
    # An engine that may be absent is no failure; one that the owner counts on is.
    optional = settings.docker.isolation is schema.Isolation.AUTO
    sys.exit(exit_codes.FAILURE if troubles and not optional else exit_codes.OK)


async def _look(places: Sequence[place.Place]) -> tuple[list[policy.Thing], dict[str, str]]:
    found: list[policy.Thing] = []
    troubles: dict[str, str] = {}
    for where in places:
        try:
            found += await where.look()
        except (errors.HiveMindError, OSError) as error:
            troubles[where.name] = str(error)
    return found, troubles


def _short(row: dict[str, Any]) -> str:
    """An environment by the packages in it, all else by its name."""
    contents = row["contents"]
    more = f" and {len(contents) - 3} more" if contents[3:] else ""
    return f"{', '.join(contents[:3])}{more}" or row["name"]


def _row(thing: policy.Thing) -> dict[str, Any]:
    ours = not thing.held.startswith("not ours")
    return {
        "name": thing.name,
        "kind": str(thing.kind),
        "contents": list(thing.contents),
        "bytes": thing.size_bytes,
        "last_used": thing.last_used if ours else 0.0,  # who else uses an image, and when, nobody writes down
        "ours": ours,
        "kept_because": thing.held,
    }
