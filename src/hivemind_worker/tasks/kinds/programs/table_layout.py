"""Where the table of a delimited text is, and how it is written: all that reading it needs. Judged by a sample."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, replace
from typing import Any

import cell_kinds
import given
import table_dialect
import table_header

RESERVED = frozenset({"__file", "__path"})
"""Names that reading needs for itself."""

_SAMPLE_LINES = 1_000
_MAX_LOST = 0.05
"""Share of rows of values that may stand above the table."""

_MARKUP = re.compile(
    r"\s*(<!--.*?-->\s*)*<(!doctype|\?xml|(html|head|title|body|meta|link|style|script|div|center|p|h[1-6]|font|"
    r"table|thead|tbody|tr|td)\b)",
    re.IGNORECASE | re.DOTALL,
)
_DELIMITER_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar", " ": "blanks", "": "none: one column"}


@dataclass(frozen=True)
class Layout:
    """How one file is written. Lines are counted from 1, as an editor shows them.

    ``data_line`` is the first line below the names and units; ``repeated`` the cells of the header as
    table_header.plain_names has them, which may stand again in the middle of the file; ``notes`` say what was assumed
    beyond the ordinary.
    """

    dialect: table_dialect.Dialect
    comment: str
    first_line: int
    data_line: int
    header: bool
    columns: tuple[str, ...]
    repeated: tuple[str, ...]
    units: tuple[str, ...]
    reason: str
    notes: tuple[str, ...]
    unusual: bool
    """Whether the sample already shows what a plain reader would stumble over."""


def detect(lines: list[str], options: dict[str, Any], name: str) -> Layout:
    """Find the table in the first ``lines`` of a file called ``name``. Raises Refusal where there is none."""
    if _MARKUP.match("".join(lines[:5])):
        raise given.Refusal(f"{name} is a web page or XML, not a table of delimited text: save it as CSV or xlsx")
    skipped = max(int(options.get("skip", 0)), int(options.get("header_row", 1)) - 1)
    delimiter = str(options.get("delimiter", ""))
    notes: list[str] = []
    at = skipped
    if not skipped:
        at, declared = _separator(lines)
        if declared:
            delimiter = delimiter or declared
            notes.append(f"line {at} says that the delimiter is {_DELIMITER_NAMES.get(declared, declared)}")
    comment, comment_names = _comment(lines[at:], options)
    body = lines[at : at + _SAMPLE_LINES] if len(lines[at:]) > _SAMPLE_LINES else lines[at:]
    plain = [line for line in body if line.strip() and not (comment and line.startswith(comment))]
    if not plain:
        raise given.Refusal(f"{name} holds no rows" if any(map(str.strip, lines)) else f"{name} is empty")
    dialect = table_dialect.detect(plain, delimiter=delimiter, quote=options.get("quote"))
    if options.get("escape"):
        dialect = table_dialect.Dialect(dialect.delimiter, dialect.quote, options["escape"], dialect.space_after)
    try:
        rows = table_dialect.sample_rows(body, dialect, comment, at + 1)
    except csv.Error as error:
        raise given.Refusal(f"{name} cannot be cut into cells: {error}") from None
    return _layout(rows, dialect, comment, comment_names, options, notes, name)


def _layout(
    rows: list[table_dialect.Row],
    dialect: table_dialect.Dialect,
    comment: str,
    comment_names: list[str],
    options: dict[str, Any],
    notes: list[str],
    name: str,
) -> Layout:
    width = table_header.table_width(rows)
    start = _start(rows, width, options)
    first = rows[start.first]
    if start.header and len(first.cells) > width and not any(map(str.strip, first.cells[width:])):
        first = replace(first, cells=first.cells[:width])
    if len(first.cells) > width or (len(first.cells) != width and not start.header):
        width = len(first.cells)
    elif len(first.cells) < width:
        width = _width_of_short_header(rows, start.first, width, notes)
    _refuse_two_tables(rows, start.first, name)
    names = list(first.cells) if start.header else []
    if len(names) == width - 1 and start.header:
        names = ["row", *names]
    reason, header_line = start.reason, first.line
    if not start.header and comment_names and len(comment_names) == width and "header" not in options:
        names, reason = comment_names, "the last comment names the columns"
        notes.append("the names of the columns are those of the last comment above the table")
    columns, changed = table_header.column_names(names, width, RESERVED)
    if start.first or (header_line > 1 and not options.get("skip") and "header_row" not in options and not comment):
        notes.append(f"the table begins in line {header_line}: what stands above it is left out")
    below = start.first + (1 if start.header else 0) + (1 if start.units else 0)
    units = tuple(cell.strip() for cell in rows[start.first + 1].cells) if start.units else ()
    if units:
        notes.append(
            f"line {rows[start.first + 1].line} has the units of the columns: {', '.join(filter(None, units))}"
        )
    data = rows[below:]
    repeated = table_header.plain_names(first.cells) if start.header else ()
    return Layout(
        dialect,
        comment,
        header_line,
        data[0].line if data else rows[below - 1].last_line + 1,
        bool(names),
        columns,
        repeated,
        units,
        reason,
        (*notes, *changed),
        _unusual(dialect, data, repeated, width),
    )


def _refuse_two_tables(rows: list[table_dialect.Row], first: int, name: str) -> None:
    """Raise Refusal where rows of values stand above the table, as of another one; a remark with a number is none."""
    values = [
        row
        for row in rows[:first]
        if len(row.cells) > 1 and all(cell_kinds.is_typed(cell) for cell in row.cells if cell.strip())
    ]
    values = [row for row in values if sum(bool(cell.strip()) for cell in row.cells) > 1]
    if len(values) > 1 and len(values) > _MAX_LOST * len(rows):
        raise given.Refusal(
            f"{name} holds two tables: values stand in line {values[0].line}, and another table begins in line "
            f"{rows[first].line}. options.header_row or options.skip says which one is meant; or send them as two files"
        )


def _start(rows: list[table_dialect.Row], width: int, options: dict[str, Any]) -> table_header.Start:
    if "header_row" in options:
        return table_header.Start(0, header=True, units=False, reason="the task says so")
    if "header" in options:
        begin = table_header.find_start(rows, width)
        first = 0 if options.get("skip") or not options["header"] else begin.first
        return table_header.Start(first, bool(options["header"]), begin.units and options["header"], "the task says so")
    return table_header.find_start(rows, width)


def _width_of_short_header(rows: list[table_dialect.Row], first: int, width: int, notes: list[str]) -> int:
    """The width of a table whose names are fewer than its cells: the last cells are empty, or the first names rows."""
    names = len(rows[first].cells)
    below = [row.cells for row in rows[first + 1 :] if len(row.cells) == width]
    if all(not cell.strip() for cells in below for cell in cells[names:]):
        return names
    keys = [cells[0].strip() for cells in below]
    numbered = all(key.isdigit() for key in keys) and keys == [str(int(keys[0]) + at) for at in range(len(keys))]
    if names == width - 1 and len(set(keys)) == len(keys) and (numbered or not any(key.isdigit() for key in keys)):
        notes.append("the rows have one cell more than there are names: the first cell names the row, as R writes it")
        return width
    return names


def _unusual(
    dialect: table_dialect.Dialect, data: list[table_dialect.Row], repeated: tuple[str, ...], width: int
) -> bool:
    odd_dialect = (
        dialect.delimiter in {"", " "} or dialect.space_after or bool(dialect.escape) or len(dialect.delimiter) > 1
    )
    return odd_dialect or any(len(row.cells) != width or table_header.is_repeated(row.cells, repeated) for row in data)


def _separator(lines: list[str]) -> tuple[int, str]:
    """How many lines Excel's ``sep=`` line takes, and the delimiter that it names."""
    if lines and (mark := table_dialect.separator_line(lines[0].removeprefix("\ufeff"))):
        return 1, mark
    return 0, ""


def _comment(lines: list[str], options: dict[str, Any]) -> tuple[str, list[str]]:
    """What begins a comment, and the words of the last one above the table, which may name its columns.

    Only ``#`` is found out, and only where the file begins with it; elsewhere it may begin a value.
    """
    declared = options.get("comment")
    if declared is not None:
        return str(declared), []
    filled = [line for line in lines if line.strip()]
    leading = 0
    while leading < len(filled) and filled[leading].startswith("#"):
        leading += 1
    body = filled[leading:]
    if not leading or not body or sum(line.startswith("#") for line in body) > 0.2 * len(body):
        return "", []
    dialect = table_dialect.detect([line for line in body if not line.startswith("#")][:_SAMPLE_LINES])
    try:
        words = table_dialect.sample_rows([filled[leading - 1].lstrip("# \t")], dialect)
    except csv.Error:
        words = []
    return "#", words[0].cells if words and dialect.delimiter else []
