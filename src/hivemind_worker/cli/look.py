"""How output looks: JSON lines for programs, tables on a terminal, plain lines anywhere else."""

from __future__ import annotations

import json as _json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click

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
        """Print a line of what was asked for."""
        click.echo(printable(text))

    def note(self, text: str) -> None:
        """Say something beside it, on standard error; not with --quiet."""
        if not self.quiet:
            click.echo(printable(text), err=True)

    def more(self, text: str) -> None:
        """Say something that only --verbose wants to know."""
        if self.verbose:
            click.echo(printable(text), err=True)

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Print a table: drawn on a terminal, aligned columns elsewhere; with --quiet the first column alone."""
        cleaned = [[printable(cell) for cell in row] for row in rows]
        if self.quiet:
            for row in cleaned:
                click.echo(row[0])
        elif sys.stdout.isatty():
            _draw(heads, cleaned)
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


def printable(text: str) -> str:
    """Return text that cannot move the cursor or colour the terminal: names and errors come from tasks."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each in "\n\t" else each.encode("unicode_escape").decode() for each in text
    )


def _switch(flag: str, field: str, text: str, *more: str) -> Callable[[F], F]:
    def told(ctx: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001  (click's own signature)
        found = ctx.find_object(Look)
        if value and found is not None:
            setattr(found, field, True)

    return click.option(flag, *more, is_flag=True, expose_value=False, callback=told, is_eager=True, help=text)


def _draw(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    # Both cost 70 ms to import: only where a table is drawn. They see to NO_COLOR themselves.
    from rich import box, console, markup, table  # noqa: PLC0415  (slow to import)

    drawn = table.Table(*heads, box=box.SIMPLE)
    for row in rows:
        drawn.add_row(*(markup.escape(cell) for cell in row))
    console.Console().print(drawn)
