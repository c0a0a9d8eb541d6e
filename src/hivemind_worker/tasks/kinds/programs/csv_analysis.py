"""A table analysed: its files read whole, typed, written as Parquet, measured, grouped and queried, and a report.

Results: ``summary.json``, ``report.html``, ``data.parquet``, ``group_by.csv``, and a file for each query.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import duckdb

import csv_report
import csv_statistics
import given
import table_reading
from cell_formats import literal

SCRATCH = Path(given.PRIVATE, "scratch")
SHOWN_ROWS = 50
"""Rows of a group-by or a query that the report shows; the file beside it has all."""

_PRINTED = 20
"""Assumptions that the log shows; the summary has all."""


def main() -> int:
    """Analyse; 1 where a query failed and the rest is there."""
    said = given.settings()
    SCRATCH.mkdir(parents=True, exist_ok=True)
    try:
        with table_reading.connect(SCRATCH) as connection:
            return _analyse(connection, said)
    except duckdb.OutOfMemoryException:
        raise MemoryError from None
    finally:
        shutil.rmtree(SCRATCH, ignore_errors=True)


def _analyse(connection: duckdb.DuckDBPyConnection, said: dict[str, Any]) -> int:
    options = said["options"]
    began = time.monotonic()
    print(f"reading {_count(len(said['files']), 'file')}, {given.size(sum(map(os.path.getsize, said['files'])))}")
    target = Path(given.RESULTS if options.get("parquet", True) else SCRATCH, "data.parquet")
    table = table_reading.read(connection, said["files"], options, SCRATCH, target)
    for assumption in table.assumptions()[:_PRINTED]:
        print(assumption)
    columns, rows = table.columns, table.rows
    connection.execute(f"CREATE VIEW data AS SELECT * FROM read_parquet({literal(str(target))})")
    print(f"{rows:,} rows, {_count(len(columns), 'column')}, {time.monotonic() - began:.1f} s")
    summary: dict[str, Any] = {
        "title": options.get("title", ""),
        "rows": rows,
        "files": table.files,
        "rejected": table.rejected,
        "assumptions": table.assumptions(),
        "duplicate_rows": csv_statistics.duplicates(connection, columns, rows),
    }

    def progress(count: int) -> None:
        print(f"measured {count} of {_count(len(columns), 'column')}, {time.monotonic() - began:.1f} s")

    summary["columns"] = csv_statistics.measure(connection, table, options, progress)
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
    connection.close()  # what it holds is needed for the plots
    csv_report.write(summary, shown, said["queries"])
    print(f"done in {time.monotonic() - began:.1f} s")
    return 1 if any("error" in query for query in summary["queries"].values()) else 0


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
        f"COPY (\n{sql}\n) TO {literal(str(target))} "
        f"({'FORMAT csv, HEADER' if form == 'csv' else 'FORMAT parquet, COMPRESSION zstd'})"
    ).fetchone() or (0,)
    reader = "read_parquet" if form == "parquet" else "read_csv"
    more = "" if form == "parquet" else ", header=true, all_varchar=true, delim=',', quote='\"', escape='\"'"
    shown = connection.execute(f"SELECT * FROM {reader}({literal(str(target))}{more}) LIMIT {SHOWN_ROWS}")
    names = [each[0] for each in shown.description or ()]
    rows = csv_report.Rows(names, shown.fetchall(), count)
    return {"file": target.name, "rows": count, "columns": names}, rows


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


if __name__ == "__main__":
    given.run(main)
