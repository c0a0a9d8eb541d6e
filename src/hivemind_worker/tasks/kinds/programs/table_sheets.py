"""Tables that are no delimited text: sheets of xlsx, xls and ods files, and JSON. Written as plain CSV on the way."""

from __future__ import annotations

import codecs
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
    start = next(encodings_found.pieces(path), b"").removeprefix(b"\xef\xbb\xbf")
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        start = start.decode("utf-16", "replace").encode("utf-8", "replace")
    start = start.lstrip()
    line, _, rest = start.partition(b"\n")
    if start.startswith(b"{"):
        if _is_object(line):
            return "json lines" if rest.strip() else "json"
        return "json" if not line.strip().endswith(b"}") or start.startswith(b'{"') else ""
    if start.startswith(b"[") and start[1:].lstrip().startswith((b"{", b"]", b"[")):
        return "json"
    if start.startswith(b"[") and rest.strip() and isinstance(_json_value(line), list):
        raise given.Refusal(f"{given.shown(path)} is lists as lines of JSON, without names: send objects, or CSV")
    return ""


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
    survey = encodings_found.survey(path)
    packing: list[str] = []
    for row in _objects(path, format_, survey.encoding, packing):
        names.update(dict.fromkeys(row))
        texts.update(name for name, value in row.items() if type(value) is str)
        nested.update(name for name, value in row.items() if isinstance(value, dict | list))
    if not names:
        raise given.Refusal(f"{given.shown(path)} holds no rows")
    with target.open("w", encoding="utf-8", newline="", errors="backslashreplace") as file:
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writerow(names)
        for row in _objects(path, format_, survey.encoding, []):
            writer.writerow([_json_cell(row.get(name)) for name in names])
    notes = [f"column {name} holds lists or objects, which are kept as JSON text" for name in sorted(nested)]
    notes = [*packing, *notes]
    if survey.encoding not in {"utf-8", "utf-8-sig"}:
        notes.insert(0, f"the encoding is taken for {survey.encoding} ({survey.confidence:.0%} sure)")
    return Converted(format_, named=True, text_columns=frozenset(texts | nested), notes=tuple(notes))


def _objects(path: str, format_: str, encoding: str, notes: list[str]) -> Iterator[dict[str, Any]]:
    decoder = json.JSONDecoder()
    encoding = "utf-8-sig" if encoding == "utf-8" else encoding
    if format_ == "json lines":
        yield from _object_lines(path, decoder, encoding)
        return
    try:
        content = decoder.decode("".join(encodings_found.decoded(path, encoding)))
    except (json.JSONDecodeError, RecursionError) as error:
        raise given.Refusal(f"{given.shown(path)} is broken JSON: {error}") from None
    if isinstance(content, dict):
        content = _rows_of_object(content, notes)
    elif isinstance(content, list) and content and all(isinstance(row, list) for row in content):
        content = _rows_of_lists(content[0], content[1:])
    for number, row in enumerate(content, 1):
        if not isinstance(row, dict):
            raise given.Refusal(f"{given.shown(path)}: entry {number} is no object with names, as a row is")
        yield row


def _rows_of_object(content: dict[str, Any], notes: list[str]) -> list[Any]:
    """The rows of an object: a list of records within it, columns as lists, as pandas writes them, or one row."""
    names, data = content.get("columns"), content.get("data")
    if isinstance(names, list) and isinstance(data, list) and all(isinstance(row, list) for row in data):
        return _rows_of_lists(names, data)
    values = list(content.values())
    records = [
        name for name, value in content.items() if isinstance(value, list) and value and isinstance(value[0], dict)
    ]
    if len(records) == 1:
        notes.append(f"the rows are the objects in the list {records[0]!r}: what stands outside of it is left out")
        return list(content[records[0]])
    if len({_plain_length(value) for value in values} - {0}) == 1 and all(map(_plain_length, values)):
        return [dict(zip(content, row, strict=True)) for row in zip(*values, strict=True)]
    if values and all(isinstance(value, dict) and value for value in values):
        if all(key.isdigit() for value in values for key in value):
            numbers = dict.fromkeys(key for value in values for key in value)
            return [{name: value.get(number) for name, value in content.items()} for number in numbers]
        if all(key.isdigit() for key in content):
            return values
    return [content]


def _plain_length(value: object) -> int:
    """The length of a list of plain values; 0 for anything else."""
    is_plain = isinstance(value, list) and not any(isinstance(item, list | dict) for item in value)
    return len(value) if isinstance(value, list) and is_plain else 0


def _rows_of_lists(names: list[Any], rows: list[list[Any]]) -> list[dict[str, Any]]:
    """Rows whose names stand in a list. Raises Refusal where they are no names, or do not fit the rows."""
    if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise given.Refusal(
            "lists in JSON are a table where the first one holds names, each once: send objects, or CSV"
        )
    if any(len(row) != len(names) for row in rows):
        raise given.Refusal(f"lists in JSON of another length than the {len(names)} names: send objects, or CSV")
    return [dict(zip(names, row, strict=True)) for row in rows]


def _object_lines(path: str, decoder: json.JSONDecoder, encoding: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_lines(encodings_found.decoded(path, encoding)), 1):
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
    return isinstance(_json_value(line), dict)


def _json_value(line: bytes) -> object:
    try:
        return json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


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
