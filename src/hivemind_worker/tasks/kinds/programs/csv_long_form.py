"""Figures of short tables of many columns, by one query for all of them: the cells as rows of column and value.

A query over thousands of columns takes longer to plan than the cells to read; one over three columns does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import duckdb

import csv_figures
import table_reading
import table_typing
from cell_formats import SQL_TYPES, identifier, literal

ROWS = 5_000
"""Rows up to which this is faster than a query by column."""

_CELLS = 4_000_000
"""Cells that are measured at once: some 100 MB."""

_NAMES = 100
"""Columns that one query turns into rows."""


def measure(
    connection: duckdb.DuckDBPyConnection,
    table: table_reading.Table,
    options: dict[str, Any],
    on_progress: Callable[[int], None],
) -> list[dict[str, Any]]:
    """Return everything about each column of a table that has rows, in their order."""
    found: list[dict[str, Any]] = []
    for parts in _batches(table):
        columns = [column for part in parts for column in part.columns]
        measured: dict[int, dict[str, Any]] = {}
        for type_ in dict.fromkeys(column.type for column in columns):
            _unpivot(connection, parts, type_)
            measured |= _measured(connection, type_, columns, table.rows, options)
            connection.execute("DROP TABLE long")
        found += [measured[at] for at in range(len(columns))]
        on_progress(len(found))
    return found


def _batches(table: table_reading.Table) -> Iterator[list[table_reading.Part]]:
    batch: list[table_reading.Part] = []
    for part in table.parts:
        if batch and table.rows * sum(len(one.columns) for one in (*batch, part)) > _CELLS:
            yield batch
            batch = []
        batch.append(part)
    yield batch


def _unpivot(connection: duckdb.DuckDBPyConnection, parts: Sequence[table_reading.Part], type_: str) -> None:
    """Make the table ``long`` of all cells of this type: ``k``, the number of the column, and ``v``."""
    connection.execute(f"CREATE TEMP TABLE long (k INTEGER, v {SQL_TYPES[type_]})")
    first = 0
    for part in parts:
        own = [at for at, column in enumerate(part.columns) if column.type == type_]
        for start in range(0, len(own), _NAMES):
            some = own[start : start + _NAMES]
            numbers = ", ".join(str(first + at) for at in some)
            values = ", ".join(identifier(part.columns[at].name) for at in some)
            connection.execute(
                f"INSERT INTO long SELECT unnest([{numbers}]), unnest([{values}]) "
                f"FROM read_parquet({literal(str(part.parquet))})"
            )
        first += len(part.columns)


def _measured(
    connection: duckdb.DuckDBPyConnection,
    type_: str,
    columns: Sequence[table_typing.Column],
    rows: int,
    options: dict[str, Any],
) -> dict[int, dict[str, Any]]:
    """The columns of one type, by their numbers."""
    fields = csv_figures.fields(table_typing.Column("v", type_), exact=True)
    answer = connection.execute(f"SELECT k, {', '.join(sql for _, sql in fields)} FROM long GROUP BY k").fetchall()
    measured = {
        k: csv_figures.described(
            columns[k], dict(zip((label for label, _ in fields), values, strict=True)), rows, exact=True
        )
        for k, *values in answer
    }
    filled = {k: column for k, column in measured.items() if column["values"]}
    if type_ in csv_figures.NUMERIC | csv_figures.DATES:
        _histograms(connection, type_, filled, options.get("bins", 20))
    else:
        _tops(connection, filled, options.get("top", 10))
    return measured


def _histograms(
    connection: duckdb.DuckDBPyConnection, type_: str, columns: dict[int, dict[str, Any]], count: int
) -> None:
    numbers = type_ in csv_figures.NUMERIC
    drawn = {
        k: (csv_figures.bins if numbers else csv_figures.time_bins)(column, count) for k, column in columns.items()
    }
    counts: dict[int, dict[int, int]] = {k: {} for k in columns}
    value = "v" if numbers else "epoch(v)"
    bar = csv_figures.bin_of(value, "start", "width", "bars")
    if numbers:
        bar = f"CASE WHEN v < low THEN -1 WHEN v > high THEN -2 ELSE {bar} END"
    ends = [list(drawn), *([getattr(bins, name) for bins in drawn.values()] for name in ("start", "width", "count"))]
    ends += [[bins.edges[at] for bins in drawn.values()] for at in (0, -1)]
    answer = connection.execute(
        f"SELECT k, {bar} AS bar, count(*) FROM long JOIN (SELECT unnest(?) AS k, unnest(?::DOUBLE[]) AS start, "
        "unnest(?::DOUBLE[]) AS width, unnest(?::INTEGER[]) AS bars, unnest(?::DOUBLE[]) AS low, "
        "unnest(?::DOUBLE[]) AS high) USING (k) WHERE v IS NOT NULL GROUP BY 1, 2",
        ends,
    ).fetchall()
    for k, at, cells in answer:
        counts[k][at] = cells
    for k, column in columns.items():
        bins = drawn[k]
        column["histogram"] = {
            "edges": csv_figures.labels(column, bins.edges),
            "counts": [counts[k].get(at, 0) for at in range(len(bins.edges) - 1)],
            "below": counts[k].get(-1, 0),
            "above": counts[k].get(-2, 0),
        }
        column.pop("start", None)
        column.pop("end", None)


def _tops(connection: duckdb.DuckDBPyConnection, columns: dict[int, dict[str, Any]], top: int) -> None:
    for column in columns.values():
        column["top"] = []
    answer = connection.execute(
        "SELECT k, v, count(*) AS n FROM long WHERE v IS NOT NULL GROUP BY 1, 2 "
        f"QUALIFY row_number() OVER (PARTITION BY k ORDER BY n DESC, v) <= {top} ORDER BY k, n DESC, v"
    ).fetchall()
    for k, value, count in answer:
        if not csv_figures.all_different(columns[k]):
            columns[k]["top"].append({"value": str(value)[:500], "count": count})
