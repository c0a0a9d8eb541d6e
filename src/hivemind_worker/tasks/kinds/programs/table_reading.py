"""Tables of any usual file as one typed Parquet file, with what was assumed on the way. For csv_analysis and for ml.

::

    with table_reading.connect(scratch) as connection:
        table = table_reading.read(connection, paths, options, scratch, target)
    frame = polars.read_parquet(table.parquet)
    print(table.columns, table.assumptions())
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

import given
import table_files
import table_typing
import table_warnings
from cell_formats import identifier, literal

NULL_VALUES = ("", "NA", "N/A", "n/a", "NULL", "null", "NaN", "nan", r"\N")
"""What stands for a missing value in any column, unless ``options.null_values`` says otherwise."""

MAX_LEFT_OUT = 0.05
"""Share of a table's rows that may be left out without the task's word: more is another table than the file has."""

_THREAD = 64 * given.MIB
"""Memory below which one more thread does harm: each holds its buffers and the groups of rows that it writes."""

_FOR_DUCKDB = 0.7
"""Its share of the memory for data: what it takes beside its limit (CSV buffers, hash tables on their way to disk)
was measured at up to a third of it."""

_WIDE = 60
"""Columns that are read at once: the time to plan a query grows with the square of their number."""

_ORDERED = 50
"""Files up to which each is read by itself, so that the rows are in the order of the files."""

_FIELD_BYTES = 4 * given.MIB


@dataclass(frozen=True)
class Part:
    """Some columns of a table, as a Parquet file with all its rows: fewer columns are faster to ask."""

    parquet: Path
    columns: tuple[table_typing.Column, ...]


@dataclass
class Table:
    """A table that was read.

    ``parquet`` has its rows in the order of the files, each column in its type (BIGINT, DOUBLE, BOOLEAN, DATE,
    TIMESTAMP, VARCHAR), a missing value as NULL. ``columns`` say type, style and notes of each; ``files`` how each file
    was read; ``rejected`` how many rows were left out, and the first of them with their lines and reasons.
    ``parts`` have the same columns, in their order, in files that last as long as ``scratch``.
    """

    parquet: Path
    rows: int
    columns: list[table_typing.Column]
    files: list[dict[str, Any]]
    rejected: dict[str, Any]
    parts: list[Part]
    notes: list[str] = field(default_factory=list)

    def assumptions(self) -> list[str]:
        """Return in sentences what was assumed: of each file, then of each column that was not read the plain way."""
        found = list(self.notes)
        for file in self.files:
            delimiter = {"\t": "tab", " ": "blanks", "": "none"}.get(file["delimiter"], file["delimiter"])
            header = f"names in line {file['first_line']}" if file["header"] else "no row of names"
            found.append(f"{file['name']}: {file['format']}, {file['encoding']}, delimiter {delimiter}, {header}")
            found += [f"{file['name']}: {note}" for note in file["notes"]]
        for column in self.columns:
            found += [f"column {column.name}: {note}" for note in column.notes]
        return found


def connect(scratch: Path) -> duckdb.DuckDBPyConnection:
    """Return a connection within the task's own limits, with its temporary files in ``scratch``."""
    connection = duckdb.connect()
    memory = _memory()
    for name, setting in (
        ("memory_limit", f"'{memory // given.MIB}MiB'"),
        ("threads", str(min(given.threads(), max(1, memory // _THREAD)))),
        ("temp_directory", literal(str(scratch / "spill"))),
        ("autoinstall_known_extensions", "false"),
        ("enable_progress_bar", "false"),
        ("parquet_metadata_cache", "true"),
        ("TimeZone", "'UTC'"),
    ):
        connection.execute(f"SET {name} = {setting}")
    return connection


def read(
    connection: duckdb.DuckDBPyConnection,
    paths: Sequence[str],
    options: Mapping[str, Any],
    scratch: Path,
    target: Path,
) -> Table:
    """Read the files as one table, joined by the names of their columns, and write it typed to ``target``.

    ``options`` are those of csv_analysis (``delimiter``, ``encoding``, ``skip``, ``types``, …), none needed.
    ``scratch`` is a folder for files on the way. Raises given.Refusal, with the reason, for what is no table, for names
    of columns that it does not have, and where more than MAX_LEFT_OUT of its rows do not fit.
    """
    files = [table_files.prepare(path, dict(options), scratch) for path in paths]
    names = _wanted(files, options)
    if len(names) <= _WIDE:
        columns = _typed(connection, files, names, options, scratch, target)
        parts = [Part(target, tuple(columns))]
    else:
        parts = []
        for number, table in enumerate(table_files.cut(files, names, dict(options), _WIDE)):
            own = names[number * _WIDE : (number + 1) * _WIDE]
            path = scratch / f"part{number}.parquet"
            parts.append(Part(path, tuple(_typed(connection, table, own, options, scratch, path))))
            for file, cut in zip(files, table, strict=True):
                file.rows = cut.rows
        joined = " POSITIONAL JOIN ".join(f"read_parquet({literal(str(part.parquet))})" for part in parts)
        write(connection, f"SELECT * FROM {joined}", target, "zstd", len(names))
        columns = [column for part in parts for column in part.columns]
    rejected = _rejected(files)
    rows = sum(file.rows for file in files)
    return Table(target, rows, columns, [file.described() for file in files], rejected, parts)


def _typed(
    connection: duckdb.DuckDBPyConnection,
    files: Sequence[table_files.TableFile],
    names: Sequence[str],
    options: Mapping[str, Any],
    scratch: Path,
    target: Path,
) -> list[table_typing.Column]:
    """Write the columns ``names`` typed to ``target``, and count the rows of each file."""
    raw = scratch / "raw.parquet"
    _write_raw(connection, files, names, options, raw)
    if _rewrite_repeated(connection, files, names, options, raw):
        _write_raw(connection, files, names, options, raw)
    _refuse_lost(files, options)
    connection.execute(f"CREATE OR REPLACE VIEW raw AS SELECT * FROM read_parquet({literal(str(raw))})")
    for number, count in connection.execute("SELECT __file, count(*) FROM raw GROUP BY 1").fetchall():
        files[number].rows = count
    words = frozenset(name for file in files for name in file.text_columns)
    delimiters = frozenset(file.layout.dialect.delimiter for file in files)
    columns = table_typing.find(connection, names, options, delimiters, words)
    table_warnings.add(connection, columns, options)
    typed = ", ".join(table_typing.expression(column, options) for column in columns)
    write(connection, f"SELECT {typed} FROM raw", target, "zstd", len(columns))
    connection.execute("DROP VIEW raw")
    raw.unlink()
    return columns


def _rewrite_repeated(
    connection: duckdb.DuckDBPyConnection,
    files: Sequence[table_files.TableFile],
    names: Sequence[str],
    options: Mapping[str, Any],
    raw: Path,
) -> bool:
    """Read files with care whose header stands once more below the sample; whether there are any."""
    found = False
    for number, file in enumerate(files):
        pairs = list(zip(file.layout.columns, file.layout.repeated, strict=False))
        same = [f"lower({identifier(name)}) = {literal(cell)}" for name, cell in pairs if cell and name in names]
        if file.rewritten or len(same) < min(2, len(pairs)) or not same:
            continue
        where = f"__file = {number} AND {' AND '.join(same[:5])}"
        (repeats,) = connection.execute(
            f"SELECT count(*) FROM read_parquet({literal(str(raw))}) WHERE {where}"
        ).fetchone() or (0,)
        if repeats:
            table_files.rewrite(file, dict(options))
            found = True
    return found


def write(connection: duckdb.DuckDBPyConnection, sql: str, target: Path, packing: str, columns: int) -> None:
    """Write the answer to ``sql``, a table of so many columns, as Parquet."""
    connection.execute(
        f"COPY ({sql}) TO {literal(str(target))} "
        f"(FORMAT parquet, COMPRESSION {packing}, ROW_GROUP_SIZE {_row_group(columns)})"
    )


def _memory() -> int:
    return int(given.memory_for_data() * _FOR_DUCKDB)


def _row_group(columns: int) -> int:
    """Rows that are held in memory until they are written: fewer where there are many columns."""
    return max(2_048, min(122_880, 1_000_000 // max(1, columns) // 2_048 * 2_048))


def _wanted(files: Sequence[table_files.TableFile], options: Mapping[str, Any]) -> list[str]:
    found: dict[str, str] = {}
    for file in files:
        for name in file.layout.columns:
            found.setdefault(name.lower(), name)  # files are joined as SQL compares names
    chosen = options.get("columns")
    if chosen is None:
        return list(found.values())
    for name in chosen:
        if name not in found.values():
            raise given.Refusal(f"options.columns names {name!r}, and the table has {listed(list(found.values()))}")
    return list(dict.fromkeys(chosen))


def listed(names: Sequence[str]) -> str:
    """Some names for a message."""
    return ", ".join(names[:20]) + (", …" if len(names) > 20 else "")


def _write_raw(
    connection: duckdb.DuckDBPyConnection,
    files: Sequence[table_files.TableFile],
    names: Sequence[str],
    options: Mapping[str, Any],
    raw: Path,
) -> None:
    """Write all rows as text. A file that duckdb stumbles over is read again with care, which settles what fits."""
    parallel = True
    while True:
        try:
            relation = _relation(files, names, options, parallel=parallel)
            return write(connection, relation, raw, "lz4_raw", len(names))
        except duckdb.NotImplementedException:
            if not parallel:
                raise
            parallel = False  # its threads lose each other where a line ends at the end of a buffer, and it says so
        except duckdb.InvalidInputException as error:
            plain = [file for file in files if not file.rewritten]
            if not plain:
                reason = str(error).partition("\n")[0].removeprefix("Invalid Input Error: ")
                raise given.Refusal(f"the table cannot be read: {reason}") from None
            blamed = [file for file in plain if str(file.plain) in str(error)] or plain
            for file in blamed:
                table_files.rewrite(file, dict(options))


def _relation(
    files: Sequence[table_files.TableFile], names: Sequence[str], options: Mapping[str, Any], *, parallel: bool
) -> str:
    """SQL for every row of all files: the columns ``names`` as trimmed text, and the file's number, ``__file``."""
    # Of a file duckdb holds some eight buffers, each of which it clears first.
    largest = max((file.plain.stat().st_size if not file.compression else _FIELD_BYTES) for file in files)
    line = max(64 * 1024, min(_FIELD_BYTES, largest))
    buffer = max(2 * line, min(16 * given.MIB, _memory() // 16 // given.MIB * given.MIB, largest))
    alike: dict[tuple[object, ...], list[int]] = {}
    for number, file in enumerate(files):
        key = (table_files.duckdb_arguments(file), file.layout.columns, file.uncut)
        alike.setdefault(key if len(files) > _ORDERED else (key, number), []).append(number)
    nulls = list(options.get("null_values", NULL_VALUES)) or [""]
    sizes = (f"max_line_size={line}", f"buffer_size={buffer}", f"parallel={str(parallel).lower()}")
    groups = [_scan([(number, files[number]) for number in group], nulls, sizes) for group in alike.values()]
    wanted = [f"nullif(trim({identifier(name)}, ' \t\u00a0'), '') AS {identifier(name)}" for name in names]
    return f"SELECT {', '.join(wanted)}, __file FROM ({' UNION ALL BY NAME '.join(groups)})"


def _scan(group: Sequence[tuple[int, table_files.TableFile]], nulls: Sequence[str], sizes: Sequence[str]) -> str:
    file = group[0][1]
    columns = ", ".join(f"{literal(column)}: 'VARCHAR'" for column in file.layout.columns)
    paths = ", ".join(literal(str(member.plain)) for _, member in group)
    numbers = " ".join(f"WHEN {literal(str(member.plain))} THEN {number}" for number, member in group)
    arguments = (
        f"[{paths}]",
        f"columns={{{columns}}}",
        "auto_detect=false",
        "header=false",
        *table_files.duckdb_arguments(file),
        *sizes,
        "filename='__path'",
        f"nullstr=[{', '.join(map(literal, nulls))}]",
    )
    number = f"CAST(CASE __path {numbers} END AS INTEGER) AS __file"
    return f"SELECT * EXCLUDE (__path), {number} FROM read_csv({', '.join(arguments)})"


def _refuse_lost(files: Sequence[table_files.TableFile], options: Mapping[str, Any]) -> None:
    """Raise Refusal where rows do not fit and the task allows none, or where they are more than a small part."""
    bad_rows = options.get("bad_rows")
    for file in files:
        left_out = file.outcome.left_out
        total = left_out + file.outcome.rows
        if left_out and (bad_rows == "refuse" or (bad_rows is None and left_out > MAX_LEFT_OUT * total)):
            raise given.Refusal(_too_many(file, left_out, total, bad_rows))


def _rejected(files: Sequence[table_files.TableFile]) -> dict[str, Any]:
    """The rows that did not fit, the first of them with their reasons."""
    count = sum(file.outcome.left_out for file in files)
    examples = [
        {"file": file.name, "line": one.line, "why": one.reason, "text": one.text}
        for file in files
        for one in file.outcome.examples
    ]
    if count:
        print(f"{count:,} rows do not fit the table and are left out")
    return {"rows": count, "all_counted": True, "examples": examples[:20]}


def _too_many(file: table_files.TableFile, left_out: int, total: int, bad_rows: str | None) -> str:
    first = file.outcome.examples[0]
    reasons = "; ".join(f"line {one.line}: {one.reason}" for one in file.outcome.examples[:3])
    if bad_rows == "refuse":
        return f"{left_out:,} rows do not fit, the first in {file.name}, line {first.line}: {first.reason}"
    where = f"the table of {len(file.layout.columns)} columns that begins in line {file.layout.first_line}"
    return (
        f"{left_out:,} of {total:,} rows of {file.name} do not fit {where} ({reasons}). options.skip, header_row, "
        "comment and delimiter say where the table is; bad_rows says skip or pad"
    )
