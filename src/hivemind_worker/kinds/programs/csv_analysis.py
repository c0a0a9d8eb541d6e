"""A table analysed: its files read whole, typed, written as Parquet, measured, grouped and queried, and a report.

Results: ``summary.json``, ``report.html``, ``data.parquet``, ``group_by.csv``, and a file for each query.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import Any

import duckdb

import csv_reading
import csv_report
import csv_statistics
import csv_typing
import given

SCRATCH = Path(given.PRIVATE, "scratch")
SHOWN_ROWS = 50
"""Rows of a group-by or a query that the report shows; the file beside it has all."""

_EXAMPLES = 20
_THREAD = 64 * given.MIB
"""Memory below which one more thread does harm: each holds its buffers and the groups of rows that it writes."""

_FOR_DUCKDB = 0.7
"""Its share of the memory for data: what it takes beside its limit (CSV buffers, hash tables on their way to disk)
was measured at up to a third of it."""


def main() -> int:
    """Analyse; 1 where a query failed and the rest is there."""
    said = given.settings()
    options = said["options"]
    SCRATCH.mkdir(parents=True, exist_ok=True)
    try:
        tables = [csv_reading.look(path, options, SCRATCH) for path in said["files"]]
        print(f"reading {_count(len(tables), 'file')}, {given.size(sum(table.size for table in tables))}")
        with duckdb.connect() as connection:
            _limit(connection)
            return _analyse(connection, tables, said)
    except duckdb.OutOfMemoryException:
        raise MemoryError from None
    except duckdb.InvalidInputException as error:
        why = str(error).partition("\n")[0]
        raise given.Refusal(f"the table cannot be read: {why.removeprefix('Invalid Input Error: ')}") from None
    finally:
        shutil.rmtree(SCRATCH, ignore_errors=True)


def _analyse(connection: duckdb.DuckDBPyConnection, tables: list[csv_reading.Table], said: dict[str, Any]) -> int:
    options = said["options"]
    began = time.monotonic()
    columns, per_file, rejected = _stored(connection, tables, options)
    (rows,) = connection.execute("SELECT count(*) FROM data").fetchone() or (0,)
    print(f"{rows:,} rows, {_count(len(columns), 'column')}, {time.monotonic() - began:.1f} s")
    summary: dict[str, Any] = {
        "title": options.get("title", ""),
        "rows": rows,
        "files": [_file(table, per_file.get(at, 0)) for at, table in enumerate(tables)],
        "rejected": rejected,
        "duplicate_rows": csv_statistics.duplicates(connection, columns, rows),
    }
    summary["columns"] = []
    for at, column in enumerate(columns, 1):
        summary["columns"].append(csv_statistics.column(connection, column, rows, options))
        if at % 20 == 0 or at == len(columns):
            print(f"measured {at} of {_count(len(columns), 'column')}, {time.monotonic() - began:.1f} s")
    summary["correlations"] = csv_statistics.correlations(connection, summary["columns"])
    shown: dict[str, csv_report.Rows] = {}
    if said["group_by"]:
        sql, measured = csv_statistics.groups(said["group_by"], columns)
        summary["group_by"], shown["group_by"] = _answer(connection, "group_by", sql, "csv")
        summary["group_by"] |= {"by": said["group_by"], "measured": measured}
    summary["queries"] = {}
    for name, sql in sorted(said["queries"].items()):
        summary["queries"][name], rows_of_it = _query(connection, name, sql, options.get("query_format", "csv"))
        if rows_of_it is not None:
            shown[name] = rows_of_it
    if not options.get("parquet", True):
        Path(SCRATCH, "data.parquet").unlink()
    given.write_json("summary.json", summary)
    csv_report.write(summary, shown, said["queries"])
    print(f"done in {time.monotonic() - began:.1f} s")
    return 1 if any("error" in query for query in summary["queries"].values()) else 0


def _limit(connection: duckdb.DuckDBPyConnection) -> None:
    """Within the task's own limits, with its temporary files beside the data; and nothing fetched from elsewhere."""
    for name, value in (
        ("memory_limit", f"'{_memory() // given.MIB}MiB'"),
        ("threads", str(min(given.threads(), max(1, _memory() // _THREAD)))),
        ("temp_directory", csv_reading.literal(str(SCRATCH / "spill"))),
        ("autoinstall_known_extensions", "false"),
        ("enable_progress_bar", "false"),
        ("parquet_metadata_cache", "true"),
        ("TimeZone", "'UTC'"),
    ):
        connection.execute(f"SET {name} = {value}")


def _memory() -> int:
    return int(given.memory_for_data() * _FOR_DUCKDB)


def _stored(
    connection: duckdb.DuckDBPyConnection, tables: list[csv_reading.Table], options: dict[str, Any]
) -> tuple[list[csv_typing.Column], dict[int, int], dict[str, Any]]:
    """Read the files once, into columns of text; judge these, and write them typed. All else is asked of that."""
    names = _wanted(tables, options)
    raw = SCRATCH / "raw.parquet"
    _write(connection, csv_reading.relation(tables, names, options, _memory()), raw, "lz4_raw", len(names))
    rejected = _rejected(connection, tables)
    if rejected["rows"] and options.get("bad_rows") == "refuse":
        first = rejected["examples"][0]
        raise given.Refusal(
            f"{rejected['rows']:,} rows do not fit, the first in {first['file']}, line {first['line']}: {first['why']}"
        )
    connection.execute(f"CREATE VIEW raw AS SELECT * FROM read_parquet({csv_reading.literal(str(raw))})")
    per_file = dict(connection.execute("SELECT __file, count(*) FROM raw GROUP BY 1").fetchall())
    columns = csv_typing.find(connection, names, options)
    target = Path(given.RESULTS if options.get("parquet", True) else SCRATCH, "data.parquet")
    typed = ", ".join(csv_typing.expression(column, options) for column in columns)
    _write(connection, f"SELECT {typed} FROM raw", target, "zstd", len(columns))
    raw.unlink()
    connection.execute(f"CREATE VIEW data AS SELECT * FROM read_parquet({csv_reading.literal(str(target))})")
    return columns, per_file, rejected


def _write(connection: duckdb.DuckDBPyConnection, sql: str, target: Path, packing: str, columns: int) -> None:
    connection.execute(
        f"COPY ({sql}) TO {csv_reading.literal(str(target))} "
        f"(FORMAT parquet, COMPRESSION {packing}, ROW_GROUP_SIZE {_row_group(columns)})"
    )


def _row_group(columns: int) -> int:
    """Rows that are held in memory until they are written: fewer where there are many columns."""
    return max(2_048, min(122_880, 1_000_000 // max(1, columns) // 2_048 * 2_048))


def _wanted(tables: list[csv_reading.Table], options: dict[str, Any]) -> list[str]:
    found: dict[str, str] = {}
    for table in tables:
        for name in table.columns:
            found.setdefault(name.lower(), name)  # files are joined as SQL compares names
    asked = options.get("columns")
    if asked is None:
        return list(found.values())
    for name in asked:
        if name not in found.values():
            raise given.Refusal(
                f"options.columns names {name!r}, and the table has {csv_statistics.listed(list(found.values()))}"
            )
    return list(dict.fromkeys(asked))


def _rejected(connection: duckdb.DuckDBPyConnection, tables: list[csv_reading.Table]) -> dict[str, Any]:
    """The rows that did not fit, of which a table of millions may have some."""
    (count,) = connection.execute("SELECT count(DISTINCT (file_id, line)) FROM reject_errors").fetchone() or (0,)
    found = connection.execute(
        "SELECT file_path, line, min(error_type::VARCHAR), min(error_message), min(csv_line) FROM reject_errors "
        f"JOIN reject_scans USING (scan_id, file_id) GROUP BY ALL ORDER BY 1, 2 LIMIT {_EXAMPLES}"
    ).fetchall()
    names = {table.path: table.said for table in tables}
    examples = [
        {
            "file": names.get(path, path),
            "line": line,
            "why": f"{str(kind).lower().replace('_', ' ')}: {why}",
            "text": (text or "")[:200],
        }
        for path, line, kind, why, text in found
    ]
    if count:
        print(f"{count:,} rows do not fit the table and are left out")
    return {"rows": count, "all_counted": count < csv_reading.REJECTS, "examples": examples}


def _query(
    connection: duckdb.DuckDBPyConnection, name: str, sql: str, form: str
) -> tuple[dict[str, Any], csv_report.Rows | None]:
    """One query's answer, or why there is none: the others, and the report, are there nevertheless."""
    began = time.monotonic()
    try:
        told, rows = _answer(connection, name, _one_select(connection, sql), form)
    except duckdb.OutOfMemoryException:
        told, rows = {"error": "does not fit into the task's memory: give it a larger memory_limit"}, None
    except (duckdb.Error, given.Refusal) as error:
        told, rows = {"error": str(error).strip()}, None
    if rows is None:
        print(f"query {name}: {' '.join(told['error'].split())[:500]}", file=sys.stderr)
    else:
        print(f"query {name}: {_count(told['rows'], 'row')}, {time.monotonic() - began:.1f} s")
    return told, rows


def _one_select(connection: duckdb.DuckDBPyConnection, sql: str) -> str:
    statements = connection.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise given.Refusal("must be one SELECT")
    return str(statements[0].query).rstrip().rstrip(";")


def _answer(
    connection: duckdb.DuckDBPyConnection, name: str, sql: str, form: str
) -> tuple[dict[str, Any], csv_report.Rows]:
    target = given.RESULTS / f"{name}.{form}"
    # On a line of its own: a query may end in a comment.
    (count,) = connection.execute(
        f"COPY (\n{sql}\n) TO {csv_reading.literal(str(target))} "
        f"({'FORMAT csv, HEADER' if form == 'csv' else 'FORMAT parquet, COMPRESSION zstd'})"
    ).fetchone() or (0,)
    reader = "read_parquet" if form == "parquet" else "read_csv"
    more = "" if form == "parquet" else ", header=true, all_varchar=true, delim=',', quote='\"', escape='\"'"
    shown = connection.execute(f"SELECT * FROM {reader}({csv_reading.literal(str(target))}{more}) LIMIT {SHOWN_ROWS}")
    names = [each[0] for each in shown.description or ()]
    rows = csv_report.Rows(names, shown.fetchall(), count)
    return {"file": target.name, "rows": count, "columns": names}, rows


def _file(table: csv_reading.Table, rows: int) -> dict[str, Any]:
    return {
        "name": table.said,
        "bytes": table.size,
        "rows": rows,
        "columns": list(table.columns),
        "encoding": table.encoding,
        "compressed": table.compressed,
        "delimiter": table.delimiter,
        "header": table.header,
    }


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


if __name__ == "__main__":
    given.run(main)
