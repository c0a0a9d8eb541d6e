"""`hivemind config show`: every setting, its value and where that came from."""

from __future__ import annotations

import os
from typing import Any

import click

from hivemind_worker.cli import look, options
from hivemind_worker.settings import reference, sources


@click.group("config")
def command() -> None:
    """Show the settings and where they come from."""


@command.command("show")
@options.of(groups=reference.groups())
@look.options()
def show(**given: Any) -> None:
    """Show every setting: its value, and where that came from."""
    shown = look.current()
    rows = sources.explain(options.flags(given), os.environ, options.file(given))
    for doubt in sources.doubts(os.environ):
        shown.note(doubt)
    if shown.json:
        for row in rows:
            shown.object({"setting": row.setting.key, "value": row.value, "source": row.source})
        return
    shown.table(
        ("setting", "value", "source"),
        [(row.setting.key, row.value, row.source) for row in rows],
        prose=("value", "source"),
    )
