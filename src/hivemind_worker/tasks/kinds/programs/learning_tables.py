"""Tables to learn from: files by the reader of csv_analysis, Parquet as it is typed, rows and columns of the task."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

import given
import table_reading
from cell_formats import PLACEHOLDERS

SCRATCH = Path(given.PRIVATE, "scratch")

NULL_VALUES = (*table_reading.NULL_VALUES, "?")
"""What stands for a missing value in any column, unless ``options.null_values`` says otherwise."""

_EXACT = 2**53
"""Whole numbers beyond this are rounded as models take them, in double precision."""

_COUNTERS = re.compile(r"column_\d+|Unnamed: \d+|index|level_0|__index_level_\d+__")
"""Names that a column gets when a data frame is written with its index."""

_CLOCK = r"^\s*([01]?\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d+)?)?\s*$"
_DAY = re.compile(r"\d{4}-\d{1,2}-\d{1,2}")
_MOMENTS = ("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M:%S%.f")


@dataclass
class LearningTable:
    """A table that was read, and what was assumed on the way.

    ``assumptions`` are sentences about the files and columns; those among them that a reader of the result should
    notice are ``notes`` too. ``indexes`` are columns that number the rows, with the reason why nobody learns from them.
    """

    frame: pl.DataFrame
    assumptions: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)
    rejected: dict[str, Any] = field(default_factory=dict)
    indexes: dict[str, str] = field(default_factory=dict)


def read_file(path: str, options: Mapping[str, Any], columns: Sequence[str], target: str = "") -> LearningTable:
    """Read a file whose ``columns`` are needed. Raises Refusal for what is no table.

    A target of truth values comes as text where its words are others than true and false: they name the classes.
    """
    with Path(path).open("rb") as file:
        is_parquet = file.read(4) == b"PAR1"
    if is_parquet or path.lower().endswith(".parquet"):
        if options:
            raise given.Refusal(f"options: {', '.join(options)} are for tables of text, and {path} is Parquet")
        return _parquet(path)
    SCRATCH.mkdir(parents=True, exist_ok=True)
    try:
        return _by_reader(path, {"null_values": list(NULL_VALUES), **options}, columns, target)
    except duckdb.OutOfMemoryException:
        raise MemoryError from None
    finally:
        shutil.rmtree(SCRATCH, ignore_errors=True)


def read_inline(rows_or_columns: Mapping[str, Any]) -> LearningTable:
    """Read rows or columns that stand in the task itself."""
    if "rows" in rows_or_columns:
        rows = rows_or_columns["rows"]
        names = dict.fromkeys(name for row in rows for name in row)
        columns = {name: [row.get(name) for row in rows] for name in names}
    else:
        columns = dict(rows_or_columns["columns"])
    notes: list[str] = []
    series = [pl.Series(name, _one_type(name, values, notes), strict=False) for name, values in columns.items()]
    table = LearningTable(pl.DataFrame([_dates_found(column, notes) for column in series]))
    table.notes = notes
    table.assumptions = ["data inside the task: numbers, truth values and texts are what JSON says they are", *notes]
    return table


def _by_reader(path: str, options: dict[str, Any], columns: Sequence[str], target: str) -> LearningTable:
    header_note = ""
    table, frame = _read_typed(path, options)
    absent = [name for name in columns if name not in frame.columns]
    if absent and not table.files[0]["header"] and not {"header", "header_row"} & options.keys():
        again, named = _read_typed(path, {**options, "header": True})
        if not set(columns) - set(named.columns):
            table, frame = again, named
            header_note = f"line {table.files[0]['first_line']} names the columns, since {absent[0]!r} stands in it"
    if absent and not header_note:
        raise given.Refusal(
            f"{'target: ' if absent[0] == target else ''}the data have no column {absent[0]!r}; they have "
            f"{listed(frame.columns)} ({table.assumptions()[0]})"
        )
    remarks = [header_note] if header_note else []
    if target and frame.schema[target] == pl.Boolean:
        frame = frame.with_columns(_labels(path, options | _header(table), target, frame, remarks))
    frame = pl.DataFrame(
        [
            column if column.name == target or _declared(column.name, options) else _clocks(column, remarks)
            for column in frame.iter_columns()
        ]
    )
    assumptions = [*remarks, *table.assumptions()]
    plain = {f"{file['name']}: {file['format']}" for file in table.files}
    notes = [sentence for sentence in assumptions if not any(sentence.startswith(start) for start in plain)]
    notes += [
        f"{example['file']}, line {example['line']} is left out: {example['why']}"
        for example in table.rejected["examples"][:3]
    ]
    indexes = {
        name: "it numbers the rows; `features` can ask for it"
        for name in frame.columns
        if table.files[0]["header"] and _COUNTERS.fullmatch(name) and _counts_rows(frame[name])
    }
    return LearningTable(frame, assumptions, notes, table.files, table.rejected, indexes)


def _read_typed(path: str, options: Mapping[str, Any]) -> tuple[table_reading.Table, pl.DataFrame]:
    target = SCRATCH / "typed.parquet"
    for old in SCRATCH.iterdir():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    with table_reading.connect(SCRATCH) as connection:
        table = table_reading.read(connection, [path], options, SCRATCH, target)
    return table, pl.read_parquet(target)


def _header(table: table_reading.Table) -> dict[str, Any]:
    return {"header": True} if table.files[0]["header"] else {}


def _labels(path: str, options: dict[str, Any], target: str, frame: pl.DataFrame, remarks: list[str]) -> pl.Series:
    """The target's words as they stand in the file, if they are more than ways to write true and false."""
    types = {**options.get("types", {}), target: "text"}
    if "types" in options and target in options["types"]:
        return frame[target]
    _, words = _read_typed(path, {**options, "columns": [target], "types": types})
    column = words[target]
    if column.len() != frame.height or set(column.str.to_lowercase().drop_nulls().unique()) <= {"true", "false"}:
        return frame[target]
    small = column.str.to_lowercase()
    if column.n_unique() == small.n_unique():
        return column
    remarks.append(f"column {target}: words that differ in capital letters alone are one class")
    return small


def _parquet(path: str) -> LearningTable:
    try:
        frame = pl.read_parquet(path)
        metadata = pl.read_parquet_metadata(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise given.Refusal(f"{given.shown(path)} cannot be read: {str(error).splitlines()[0][:300]}") from None
    notes: list[str] = []
    frame = pl.DataFrame([_dates_found(column, notes) for column in frame.iter_columns()])
    indexes = {
        name: "it is the index of the data frame; `features` can ask for it"
        for name in _pandas_index(metadata)
        if name in frame.columns
    }
    assumptions = [f"{given.shown(path)}: Parquet, whose columns say their types", *notes]
    return LearningTable(frame, assumptions, notes, indexes=indexes)


def _pandas_index(metadata: Mapping[str, str]) -> list[str]:
    try:
        found = json.loads(metadata.get("pandas", "{}")).get("index_columns", [])
    except (ValueError, AttributeError):
        return []
    return [name for name in found if isinstance(name, str)]


def _dates_found(column: pl.Series, notes: list[str]) -> pl.Series:
    """Text all of whose values are days or moments as ISO 8601 writes them, as such; any other column as it is."""
    if column.dtype != pl.String or column.null_count() == column.len():
        return column
    filled = column.drop_nulls()
    if not _DAY.match(filled[0]):
        if filled.str.contains(r"^\s*[+-]?\d+([.,]\d+)?\s*$").all():
            notes.append(f"column {column.name}: numbers written as text, which are categories; write them as numbers")
        return _clocks(column, notes)
    plain = filled.str.replace("T", " ", literal=True).str.strip_suffix("Z")
    for form in _MOMENTS:
        moments = plain.str.to_datetime(form, strict=False, time_unit="us")
        if moments.null_count() == 0:
            notes.append(f"column {column.name}: text that holds dates, read as dates")
            whole = column.str.replace("T", " ", literal=True).str.strip_suffix("Z")
            return whole.str.to_datetime(form, strict=False, time_unit="us")
    return column


def _clocks(column: pl.Series, notes: list[str]) -> pl.Series:
    """Text all of whose values are times of day, as the seconds since midnight; any other column as it is."""
    if column.dtype != pl.String or column.null_count() == column.len():
        return column
    if not column.drop_nulls().str.contains(_CLOCK).all():
        return column
    notes.append(f"column {column.name}: times of day, read as the seconds since midnight")
    parts = column.str.strip_chars().str.split(":")
    hours, minutes = (parts.list.get(at).cast(pl.Float64) for at in range(2))
    seconds = parts.list.get(2, null_on_oob=True).cast(pl.Float64).fill_null(0.0)
    return (hours * 3_600 + minutes * 60 + seconds).alias(column.name)


def _declared(name: str, options: Mapping[str, Any]) -> bool:
    return name in options.get("types", {})


def _one_type(name: str, values: list[Any], notes: list[str]) -> list[Any]:
    """Values of a column of the task, of one type; where they are of several, numbers with gaps or else text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float}:
        return [float(value) if kinds != {int} and value is not None else value for value in values]
    if len(kinds) < 2:
        return values
    texts = {value for value in values if isinstance(value, str)}
    gaps = {text for text in texts if not text.strip() or text.strip().lower() in PLACEHOLDERS}
    if texts and gaps == texts and bool not in kinds:
        listing = ", ".join(map(repr, sorted(gaps)))
        notes.append(f"column {name}: among numbers these count as missing: {listing}")
        return [None if isinstance(value, str) else None if value is None else float(value) for value in values]
    notes.append(f"column {name}: values of different types, read as text")
    return [
        None if value is None else str(value).lower() if isinstance(value, bool) else str(value) for value in values
    ]


def is_rounded(column: pl.Series) -> bool:
    """Whether double precision does not tell some of the whole numbers apart."""
    if not column.dtype.is_integer() or column.null_count() == column.len():
        return False
    low, high = column.min(), column.max()
    return max(abs(int(low)), abs(int(high))) > _EXACT  # type: ignore[arg-type]


def _counts_rows(column: pl.Series) -> bool:
    if not column.dtype.is_integer() or column.null_count():
        return False
    first = column[0]
    return first in {0, 1} and bool((column == pl.arange(first, first + column.len(), eager=True)).all())


def listed(names: Sequence[str]) -> str:
    """Some names for a message."""
    return ", ".join(map(repr, names[:20])) + (", …" if len(names) > 20 else "")
