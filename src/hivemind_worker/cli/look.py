"""How output looks: JSON lines for programs, tables on a terminal, plain lines anywhere else."""

from __future__ import annotations

import contextlib
import json as _json
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from hivemind_worker.telemetry import untrusted

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True)
class Look:
    """What the command line says about output; the options set it wherever they stand."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    debug: bool = False

    def object(self, said: Mapping[str, Any]) -> None:
        """Print one object as one line of JSON."""
        click.echo(_json.dumps(said))

    def line(self, text: str) -> None:
        """Print a line of what was asked for; should it have several, none but the first begins at the margin."""
        click.echo(untrusted.message(text))

    def note(self, text: str) -> None:
        """Say something beside it, on standard error; not with --quiet. Never fails."""
        if not self.quiet:
            report(text)

    def more(self, text: str) -> None:
        """Say something that only --verbose wants to know. Never fails."""
        if self.verbose:
            report(text)

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[str]], prose: Collection[str] = ()) -> None:
        """Print a table: fitted to a terminal, aligned columns elsewhere; with --quiet the first column alone.

        On a terminal the columns named in ``prose`` are wrapped. All others are whole or not there: an id cut short is
        no use to anybody. What lacks room is left out, and that is said; so is what is empty.
        """
        cleaned = [[untrusted.line(cell) for cell in row] for row in rows]
        if self.quiet:
            for row in cleaned:
                click.echo(row[0])
        elif sys.stdout.isatty():
            left_out = _draw(heads, cleaned, prose)
            if left_out:
                self.note(f"not shown, for want of width: {', '.join(left_out)} (--json tells all)")
        else:
            widths = [max(len(row[at]) for row in (list(heads), *cleaned)) for at in range(len(heads))]
            for row in (list(heads), *cleaned):
                click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

    @property
    def progress(self) -> bool:
        """Whether somebody watches who would like to see bars."""
        return sys.stderr.isatty() and not self.quiet and not self.json


def options(*, json: bool = True) -> Callable[[F], F]:
    """Add the options that every verb takes; without ``json`` where it would mean nothing."""

    def add(function: F) -> F:
        function = _switch("--debug", "debug", "Show the trace of an error.")(function)
        function = _switch("-v", "verbose", "Say more.", "--verbose")(function)
        function = _switch("-q", "quiet", "Say only what was asked for.", "--quiet")(function)
        return _switch("--json", "json", "One JSON object per line.")(function) if json else function

    return add


def current() -> Look:
    """Return the look of the command that runs."""
    found = click.get_current_context().find_object(Look)
    if found is None:
        raise RuntimeError("commands run through cli.root.run")
    return found


def report(text: str) -> None:
    """Write a line on standard error. It is lost where that cannot take it: its terminal has gone, its disk is full.

    What is under way must not end by that, or never end: the note of a signal is one of these lines.
    """
    with contextlib.suppress(OSError):
        click.echo(untrusted.message(text), err=True)


def _switch(flag: str, field: str, text: str, *more: str) -> Callable[[F], F]:
    def told(ctx: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001  (click's own signature)
        found = ctx.find_object(Look)
        if value and found is not None:
            setattr(found, field, True)

    return click.option(flag, *more, is_flag=True, expose_value=False, callback=told, is_eager=True, help=text)


GAP = 2
PROSE_LEAST = 16
"""Characters between two columns; and that a column of prose needs, not to become a pillar of single words."""


def fitting(widths: Sequence[int], prose: Collection[int], room: int) -> list[int]:
    """Return the numbers of those columns that stand in ``room`` characters.

    ``widths`` is what each needs whole, 0 where it is empty and not to be shown. The first column always stands, and so
    does prose, which can be made narrow; of the others each that still has room, from the left.
    """
    needed = {at: min(width, PROSE_LEAST) if at in prose else width for at, width in enumerate(widths) if width}
    shown = {at for at in needed if at == 0 or at in prose}
    for at in needed:
        if sum(needed[each] + GAP for each in shown | {at}) - GAP <= room:
            shown.add(at)
    return sorted(shown)


def _draw(heads: Sequence[str], rows: Sequence[Sequence[str]], prose: Collection[str]) -> list[str]:
    """Draw a table on the terminal; return the heads of those columns that had no room."""
    # Both cost 70 ms to import: only where a table is drawn. They see to NO_COLOR themselves.
    from rich import cells, console, markup, table  # noqa: PLC0415  (slow to import)

    screen = console.Console()
    filled = [at == 0 or not rows or any(row[at] for row in rows) for at in range(len(heads))]
    widths = [max(cells.cell_len(row[at]) for row in (heads, *rows)) if filled[at] else 0 for at in range(len(heads))]
    flowing = {at for at, head in enumerate(heads) if head in prose}
    shown = fitting(widths, flowing, screen.width)
    drawn = table.Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    for at in shown:
        whole = at not in flowing and widths[at] <= screen.width
        drawn.add_column(heads[at], no_wrap=whole, overflow="fold", min_width=widths[at] if whole else None)
    for row in rows:
        drawn.add_row(*(markup.escape(row[at]) for at in shown))
    screen.print(drawn)
    return [head for at, head in enumerate(heads) if widths[at] and at not in shown]
