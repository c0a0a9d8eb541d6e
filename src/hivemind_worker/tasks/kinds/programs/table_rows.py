"""A delimited text read with care, record by record, and written as plain CSV; what does not fit is set aside."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import given
import table_dialect
import table_header
import table_layout

EXAMPLES = 20
"""Rows left out that the result shows."""

_QUOTES = "options.quote says which character quotes cells"
_FOOTER = 10
"""Lines of remarks below a table at most."""


@dataclass
class Rejected:
    """One record that does not fit the table."""

    line: int
    lines: int
    cells: int
    reason: str
    text: str


@dataclass
class Outcome:
    """What reading came to. ``left_out`` counts physical lines; ``examples`` are the first of them."""

    rows: int = 0
    left_out: int = 0
    examples: list[Rejected] = field(default_factory=list)
    comments: int = 0
    repeated_headers: int = 0
    padded: int = 0
    trimmed: int = 0
    blank_lines: int = 0
    footer: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """Return what a reader should know, as sentences."""
        counted = (
            (self.comments, "{} comment lines are left out"),
            (self.repeated_headers, "the header stands {} more times within the table, and is left out there"),
            (self.padded, "{} rows are short, and were filled up with missing values"),
            (self.trimmed, "{} rows have empty cells beyond the last column, which are left out"),
            (self.blank_lines, "{} blank lines are left out"),
        )
        notes = [sentence.format(f"{count:,}") for count, sentence in counted if count]
        if self.footer:
            notes.append(f"remarks below the table are left out: {' / '.join(self.footer)[:200]}")
        return notes


@dataclass(frozen=True)
class Part:
    """A file that gets some of the columns, by their places from 0; all of them where ``places`` is None."""

    path: Path
    places: tuple[int, ...] | None = None


def write_plain(lines: Iterable[str], layout: table_layout.Layout, parts: Sequence[Part], *, pad: bool) -> Outcome:
    """Write the rows of ``lines``, which begin at line 1, to ``parts``: UTF-8, commas, no header.

    Raises Refusal where a quote is opened and never closed.
    """
    outcome = Outcome()
    with contextlib.ExitStack() as stack:
        files = [
            stack.enter_context(part.path.open("w", encoding="utf-8", newline="", errors="surrogatepass"))
            for part in parts
        ]
        writers = [
            # With both letters in the line end, cells that hold either are quoted.
            (csv.writer(file, lineterminator="\r\n"), part.places)
            for file, part in zip(files, parts, strict=True)
        ]
        tail: list[Rejected] = []
        for row, text in _records(lines, layout, outcome):
            cells = _fitted(row, text, layout, outcome, tail, pad=pad)
            if cells is None:
                continue
            if tail:
                _reject(tail, outcome)
            outcome.rows += 1
            for writer, places in writers:
                writer.writerow(cells if places is None else [cells[place] for place in places])
    if tail and len(tail) <= _FOOTER and all(rejected.cells <= 1 for rejected in tail) and outcome.rows:
        outcome.footer = [rejected.text for rejected in tail]
    else:
        _reject(tail, outcome)
    return outcome


def _records(
    lines: Iterable[str], layout: table_layout.Layout, outcome: Outcome
) -> Iterator[tuple[table_dialect.Row, list[str]]]:
    """The records from the first row of data on, each with its physical lines."""
    numbered = iter(lines)
    for _ in range(layout.data_line - 1):
        if next(numbered, None) is None:
            return
    source = table_dialect.Lines(numbered, layout.comment, layout.data_line)
    records = table_dialect.rows(source, layout.dialect)
    opened = 0
    while True:
        try:
            row = next(records)
        except StopIteration:
            break
        except csv.Error as error:
            raise given.Refusal(f"line {source.record_start}: {error}; {_QUOTES}") from None
        yield row, source.text
        several = row.last_line > row.line
        opened = row.line if several and "".join(source.text).count(layout.dialect.quote) % 2 else 0
    if opened and not layout.dialect.escape:
        raise given.Refusal(f"the quote that is opened in line {opened} is never closed; {_QUOTES}")
    outcome.comments = source.comments


def _fitted(
    row: table_dialect.Row,
    text: list[str],
    layout: table_layout.Layout,
    outcome: Outcome,
    tail: list[Rejected],
    *,
    pad: bool,
) -> list[str] | None:
    """The cells of a record as many as there are columns; None for what is left out."""
    cells, width = row.cells, len(layout.columns)
    if not cells:
        outcome.blank_lines += width == 1
        return None
    if width > 1 and layout.repeated and table_header.is_repeated(cells, layout.repeated):
        outcome.repeated_headers += 1
        return None
    if len(cells) == width:
        return cells
    if len(cells) > width and not any(cell.strip() for cell in cells[width:]):
        outcome.trimmed += 1
        return cells[:width]
    if pad and len(cells) < width:
        outcome.padded += 1
        return cells + [""] * (width - len(cells))
    filled = sum(bool(cell.strip()) for cell in cells)
    reason = f"{len(cells)} {'cell' if len(cells) == 1 else 'cells'}, and the table has {width} columns"
    tail.append(Rejected(row.line, row.last_line - row.line + 1, filled, reason, "".join(text).rstrip("\r\n")[:200]))
    if len(tail) > EXAMPLES:
        _reject(tail, outcome)
    return None


def _reject(rejected: list[Rejected], outcome: Outcome) -> None:
    """Count what turned out to stand within the table."""
    outcome.left_out += sum(one.lines for one in rejected)
    outcome.examples += rejected[: max(0, EXAMPLES - len(outcome.examples))]
    rejected.clear()
