"""Table files as they are: encoding, delimiter, header; then rows for duckdb, with those that do not fit set aside."""

from __future__ import annotations

import csv
import io
import itertools
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import encodings_found
import given

DELIMITERS = ",\t;|"
_SAMPLE_CHARACTERS = 256 * 1024
_SAMPLE_ROWS = 200
_FIELD_BYTES = 4 * given.MIB
REJECTS = 10_000
"""Most rejected rows that are told one by one; they are kept in memory."""


@dataclass(frozen=True)
class Table:
    """One file, ready to be read: ``path`` is UTF-8, ``said`` is what the task calls it."""

    said: str
    path: str
    size: int
    encoding: str
    compressed: bool
    delimiter: str
    quote: str
    header: bool
    columns: tuple[str, ...]


def look(path: str, options: dict[str, Any], scratch: Path) -> Table:
    """Find out how a file is written; one that is not UTF-8 is written anew into ``scratch``.

    Each file gets a plain name there: duckdb would take a * in a path for a pattern.
    """
    encoding = encodings_found.find(path, options.get("encoding", ""))
    compressed = encodings_found.is_gzip(path)
    size = Path(path).stat().st_size
    plain = scratch / f"{sum(1 for _ in scratch.iterdir())}.csv"
    if encoding.replace("_", "-").lower() in {"utf-8", "utf8", "ascii", "utf-8-sig"}:
        plain.symlink_to(Path(path).resolve())
    else:
        compressed = False
        _transcode(path, encoding, plain)
    readable = str(plain)
    sample = _sample(readable)
    if not sample.strip():
        raise given.Refusal(f"{given.shown(path)} is empty")
    quote = options.get("quote", '"')
    delimiter = options.get("delimiter") or _delimiter(sample, quote)
    rows = _rows(sample, delimiter, quote)
    if not rows:
        raise given.Refusal(f"{given.shown(path)} holds no rows")
    header = options["header"] if "header" in options else _has_header(rows)
    columns = _names(rows[0] if header else [""] * _width(rows))
    return Table(given.shown(path), readable, size, encoding, compressed, delimiter, quote, header, columns)


def relation(tables: list[Table], names: list[str], options: dict[str, Any], memory: int) -> str:
    """SQL that gives every row of all files: the columns ``names`` as trimmed text, and the file's number, ``__file``.

    Files of different columns are joined by name. Rows that do not fit are left out, and told in ``reject_errors``.
    ``memory`` are the bytes that reading may take: of a file it holds some eight buffers.
    """
    buffer = min(32 * given.MIB, max(2 * _FIELD_BYTES, memory // 16))
    alike: dict[tuple[object, ...], list[tuple[int, Table]]] = {}
    for at, table in enumerate(tables):
        key = (table.compressed, table.delimiter, table.quote, table.header, table.columns)
        alike.setdefault(key, []).append((at, table))
    rows = " UNION ALL BY NAME ".join(_read(group, options, buffer) for group in alike.values())
    trimmed = ", ".join(f"nullif(trim({name(each)}), '') AS {name(each)}" for each in names)
    return f"SELECT {trimmed}, __file FROM ({rows})"


def literal(text: str) -> str:
    """Text as SQL has it."""
    return "'" + text.replace("'", "''") + "'"


def name(column: str) -> str:
    """A column's name as SQL has it."""
    return '"' + column.replace('"', '""') + '"'


def _read(group: list[tuple[int, Table]], options: dict[str, Any], buffer: int) -> str:
    table = group[0][1]
    columns = ", ".join(f"{literal(column)}: 'VARCHAR'" for column in table.columns)
    nulls = options.get("null_values", ["", "NA", "N/A", "n/a", "NULL", "null", "NaN", "nan"])
    paths = ", ".join(literal(each.path) for _, each in group)
    bad = options.get("bad_rows", "skip")
    numbers = " ".join(f"WHEN {literal(each.path)} THEN {at}" for at, each in group)
    said = (
        f"[{paths}]",
        f"columns={{{columns}}}",
        "auto_detect=false",
        f"delim={literal(table.delimiter)}",
        f"quote={literal(table.quote)}",
        f"escape={literal(table.quote)}",
        f"header={str(table.header).lower()}",
        f"nullstr=[{', '.join(literal(null) for null in (nulls or ['']))}]",
        f"compression='{'gzip' if table.compressed else 'none'}'",
        f"max_line_size={_FIELD_BYTES}",
        f"buffer_size={buffer}",
        "filename='__path'",
        f"null_padding={str(bad == 'pad').lower()}",
        "ignore_errors=true",
        "store_rejects=true",
        f"rejects_limit={REJECTS}",
        *(("parallel=false",) if bad == "pad" else ()),  # with quoted line breaks, padding cannot be split
    )
    number = f"CAST(CASE __path {numbers} END AS INTEGER) AS __file"
    return f"SELECT * EXCLUDE (__path), {number} FROM read_csv({', '.join(said)})"


def _transcode(path: str, encoding: str, target: Path) -> None:
    with target.open("w", encoding="utf-8", newline="") as file:
        for text in encodings_found.decoded(path, encoding):
            file.write(text)


def _sample(path: str) -> str:
    text = ""
    for piece in encodings_found.decoded(path, "utf-8-sig"):
        text += piece
        if len(text) >= _SAMPLE_CHARACTERS:
            return text[: text.rfind("\n", 0, _SAMPLE_CHARACTERS) + 1] or text
    return text


def _rows(sample: str, delimiter: str, quote: str) -> list[list[str]]:
    csv.field_size_limit(_FIELD_BYTES)
    reader = csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter, quotechar=quote)
    return [row for row in itertools.islice(reader, _SAMPLE_ROWS) if row]


def _delimiter(sample: str, quote: str) -> str:
    """The one that gives most rows one same number of columns, of at least two; a comma where none does."""
    best, most = ",", (0.0, 0)
    for delimiter in DELIMITERS:
        widths = [len(row) for row in _rows(sample, delimiter, quote)]
        if not widths:
            continue
        width = statistics.mode(widths)
        if width < 2:
            continue
        score = (round(widths.count(width) / len(widths), 1), width)
        if score > most:
            best, most = delimiter, score
    return best


def _width(rows: list[list[str]]) -> int:
    return statistics.mode(len(row) for row in rows)


def _has_header(rows: list[list[str]]) -> bool:
    """Whether the first row names columns: all different, no numbers, and of another form than what is beneath."""
    first, rest = rows[0], rows[1:]
    if any(_number(cell) for cell in first) or len(set(first)) < len(first):
        return False
    if not rest or any(not cell.strip() for cell in first):
        return any(cell.strip() for cell in first)
    below = [[row[at] for row in rest if at < len(row) and row[at]] for at in range(len(first))]
    if any(cells and all(_number(cell) for cell in cells) for cells in below):
        return True
    repeated = any(cell in cells for cell, cells in zip(first, below, strict=True))
    return not repeated


def _number(cell: str) -> bool:
    try:
        float(cell.replace(",", "."))
    except ValueError:
        return False
    return True


def _names(first: list[str]) -> tuple[str, ...]:
    """Each column has a name, and each name one column, capital letters or not: as SQL needs it."""
    found: list[str] = []
    taken = {"__file", "__path"}
    for number, cell in enumerate(first, 1):
        plain = " ".join(cell.replace("\0", "").split()) or f"column_{number}"
        unique, again = plain, 2
        while unique.lower() in taken:
            unique, again = f"{plain}_{again}", again + 1
        taken.add(unique.lower())
        found.append(unique)
    return tuple(found)
