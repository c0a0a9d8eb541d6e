"""Tables that are no delimited text: sheets of xlsx, xls and ods files, and JSON. Written as plain CSV on the way."""

from __future__ import annotations

import csv
import datetime as dt
import itertools
import json
import math
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import python_calamine

import encodings_found
import given

_OTHER = (
    (b"%PDF", "a PDF file"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"SQLite format 3", "an SQLite database"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"{\\rtf", "a text document"),
)
_OLD_OFFICE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_WORKBOOKS = ("xl/workbook.xml", "xl/workbook.bin", "content.xml")


@dataclass(frozen=True)
class Converted:
    """How a file became plain CSV, whose first line names the columns where ``named``.

    ``text_columns`` are those that the file itself calls text.
    """

    format: str
    named: bool
    text_columns: frozenset[str]
    notes: tuple[str, ...]


def find_format(path: str) -> str:
    """Return ``sheet``, ``json`` or ``json lines``; empty for anything else. Raises Refusal for what is no table."""
    with Path(path).open("rb") as file:
        head = file.read(8)
    if what := next((name for mark, name in _OTHER if head.startswith(mark)), ""):
        raise given.Refusal(f"{given.shown(path)} is {what}, not a table of text: save it as CSV or xlsx")
    if head == _OLD_OFFICE or (head.startswith(b"PK\x03\x04") and _is_workbook(path)):
        return "sheet"
    start = next(encodings_found.pieces(path), b"").removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"{"):
        line = start.partition(b"\n")[0]
        return "json lines" if _is_object(line) else "json" if not line.strip().endswith(b"}") else ""
    return "json" if start.startswith(b"[") and start[1:].lstrip().startswith((b"{", b"]")) else ""


def write_csv(path: str, format_: str, options: dict[str, Any], target: Path) -> Converted:
    """Write the file's rows to ``target`` as CSV in UTF-8. Raises Refusal for a broken file, or one without rows."""
    if format_ == "sheet":
        return _sheet(path, options, target)
    return _json(path, format_, target)


def _is_workbook(path: str) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name in _WORKBOOKS for name in archive.namelist())
    except zipfile.BadZipFile:
        raise given.Refusal(f"{given.shown(path)} is a broken zip or xlsx file") from None


def _sheet(path: str, options: dict[str, Any], target: Path) -> Converted:
    name = given.shown(path)
    try:
        workbook = python_calamine.CalamineWorkbook.from_path(path)
    except python_calamine.CalamineError as error:
        raise given.Refusal(f"{name} cannot be opened as a workbook: {error}") from None
    names = workbook.sheet_names
    chosen = options.get("sheet")
    if chosen is not None and chosen not in names:
        raise given.Refusal(f"options.sheet names {chosen!r}, and {name} has the sheets {', '.join(names)}")
    for sheet in [chosen] if chosen is not None else names:
        rows = workbook.get_sheet_by_name(sheet).to_python(skip_empty_area=False)
        if any(cell != "" for row in rows for cell in row):
            break
    else:
        raise given.Refusal(f"{name} holds no rows")
    filled = [any(row[at] != "" for row in rows) for at in range(len(rows[0]))]
    first = filled.index(True)
    last = len(filled) - filled[::-1].index(True)
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\r\n")  # so that a line end within a cell is quoted
        for row in rows:
            writer.writerow([_cell(cell) for cell in row[first:last]])
    others = [other for other in names if other != sheet]
    notes = [
        f"the sheet {sheet!r} is read" + (f", not {', '.join(others)}: options.sheet names another" if others else "")
    ]
    return Converted("workbook", named=False, text_columns=frozenset(), notes=tuple(notes))


def _cell(cell: object) -> str:
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() and abs(cell) < 1e15 else repr(cell)
    if isinstance(cell, dt.datetime):
        return str(cell.date()) if cell.time() == dt.time() else str(cell)
    return str(cell)


def _json(path: str, format_: str, target: Path) -> Converted:
    names: dict[str, None] = {}
    texts: set[str] = set()
    nested: set[str] = set()
    for row in _objects(path, format_):
        names.update(dict.fromkeys(row))
        texts.update(name for name, value in row.items() if type(value) is str)
        nested.update(name for name, value in row.items() if isinstance(value, dict | list))
    if not names:
        raise given.Refusal(f"{given.shown(path)} holds no rows")
    with target.open("w", encoding="utf-8", newline="", errors="backslashreplace") as file:
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writerow(names)
        for row in _objects(path, format_):
            writer.writerow([_json_cell(row.get(name)) for name in names])
    notes = [f"column {name} holds lists or objects, which are kept as JSON text" for name in sorted(nested)]
    return Converted(format_, named=True, text_columns=frozenset(texts | nested), notes=tuple(notes))


def _objects(path: str, format_: str) -> Iterator[dict[str, Any]]:
    decoder = json.JSONDecoder()
    if format_ == "json lines":
        yield from _object_lines(path, decoder)
        return
    try:
        content = decoder.decode("".join(encodings_found.decoded(path, "utf-8-sig")))
    except (json.JSONDecodeError, RecursionError) as error:
        raise given.Refusal(f"{given.shown(path)} is broken JSON: {error}") from None
    if isinstance(content, dict):
        lists = [value for value in content.values() if isinstance(value, list) and value]
        content = lists[0] if len(lists) == 1 else [content]
    for number, row in enumerate(content, 1):
        if not isinstance(row, dict):
            raise given.Refusal(f"{given.shown(path)}: entry {number} is no object with names, as a row is")
        yield row


def _object_lines(path: str, decoder: json.JSONDecoder) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_lines(encodings_found.decoded(path, "utf-8-sig")), 1):
        if not line.strip():
            continue
        try:
            row = decoder.decode(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise given.Refusal(f"{given.shown(path)}, line {number}: broken JSON: {error}") from None
        if not isinstance(row, dict):
            raise given.Refusal(f"{given.shown(path)}, line {number}: no object with names, as a row is")
        yield row


def _lines(pieces: Iterable[str]) -> Iterator[str]:
    rest = ""
    for piece in pieces:
        *whole, rest = (rest + piece).split("\n")
        yield from whole
    yield from itertools.repeat(rest, 1 if rest else 0)


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _json_cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return "" if math.isnan(value) else str(value)
    return json.dumps(value, ensure_ascii=False)
