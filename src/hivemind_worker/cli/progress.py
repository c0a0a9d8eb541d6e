"""Progress bars of files on their way, for whoever watches a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from hivemind_worker.cli import look
from hivemind_worker.telemetry import untrusted

LARGE = 8 * 1024 * 1024
"""Bytes from which on a file gets a bar: smaller ones are over before one could read it."""


@contextlib.contextmanager
def bars(shown: look.Look) -> Iterator[Callable[[str, int, int], None]]:
    """Give a function to be told (what, bytes done, bytes in all), which draws where that is wanted."""
    if not shown.progress:
        yield lambda _what, _done, _of: None
        return
    from rich import console, progress  # noqa: PLC0415  (70 ms that only a terminal needs)

    drawn = progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.DownloadColumn(binary_units=True),
        progress.TransferSpeedColumn(),
        console=console.Console(stderr=True),
        transient=True,
    )
    known: dict[str, progress.TaskID] = {}

    def told(what: str, done: int, of: int) -> None:
        if of < LARGE:
            return
        if what not in known:
            known[what] = drawn.add_task(untrusted.line(what), total=of)
        drawn.update(known[what], completed=done)

    with drawn:
        yield told
