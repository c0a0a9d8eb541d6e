"""What is told of a table: each column's numbers, how columns go together, groups. Asked of duckdb."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import duckdb

import csv_figures
import csv_long_form
import given
import table_reading
import table_typing
from cell_formats import identifier, literal
from csv_figures import DATES, NUMERIC

EXACT_ROWS = 1_000_000
"""Up to here distinct values and quantiles are exact; beyond, they are estimates in bounded memory, and said to be."""

CORRELATED = 40
"""Most columns that are compared with each other: 780 pairs."""

_AT_ONCE = 50
"""Columns in one query at most: a query of more takes longer to plan than to answer."""

_REMEMBERED = 64
"""Bytes that exact figures remember of a value, all in all."""

_SHORT = 100_000
"""Rows up to which the commonest words of many columns are counted at once, in memory."""


def measure(
    connection: duckdb.DuckDBPyConnection,
    table: table_reading.Table,
    options: dict[str, Any],
    on_progress: Callable[[int], None],
) -> list[dict[str, Any]]:
    """Everything about each column. Many are measured in one query: each query reads the file's description anew."""
    found: list[dict[str, Any]] = []
    at_once = _at_once(table.rows)
    if len(table.columns) > _AT_ONCE and 0 < table.rows <= csv_long_form.ROWS:
        found = csv_long_form.measure(connection, table, options, on_progress)
    for part in () if found else table.parts:
        source = f"read_parquet({literal(str(part.parquet))})"
        for start in range(0, len(part.columns), at_once):
            batch = part.columns[start : start + at_once]
            measured = _aggregates(connection, source, batch, table.rows)
            _shapes(connection, source, measured, table.rows, options)
            found += measured
            on_progress(len(found))
    for column in found:
        if column["distinct"] == 1:
            column["notes"].append("the same value everywhere")
    return found


def _at_once(rows: int) -> int:
    """How many columns are measured in one query: exact figures remember each value of each."""
    if rows > EXACT_ROWS:
        return _AT_ONCE
    return max(1, min(_AT_ONCE, given.memory_for_data() // 8 // (_REMEMBERED * max(1, rows))))


def _aggregates(
    connection: duckdb.DuckDBPyConnection, source: str, batch: Sequence[table_typing.Column], rows: int
) -> list[dict[str, Any]]:
    """What one pass over the batch tells."""
    exact = rows <= EXACT_ROWS
    fields = [csv_figures.fields(column, exact=exact) for column in batch]
    values = iter(_one(connection, f"SELECT {', '.join(sql for row in fields for _, sql in row)} FROM {source}"))
    measured = []
    for column, row in zip(batch, fields, strict=True):
        figures = {label: next(values) for label, _ in row}
        measured.append(csv_figures.described(column, figures, rows, exact=exact))
    return measured


def _shapes(
    connection: duckdb.DuckDBPyConnection,
    source: str,
    measured: list[dict[str, Any]],
    rows: int,
    options: dict[str, Any],
) -> None:
    """Histograms and the commonest values, of all columns of the batch in one query where the table is short."""
    bins, top = options.get("bins", 20), options.get("top", 10)
    queries: list[tuple[dict[str, Any], str, str, Any]] = []
    for column in measured:
        name = identifier(column["name"])
        if not column["values"]:
            continue
        if column["type"] in NUMERIC:
            drawn = csv_figures.bins(column, bins)
            inside = f"{name} BETWEEN ({drawn.edges[0]!r}::DOUBLE) AND ({drawn.edges[-1]!r}::DOUBLE)"
            queries.append((column, "histogram", f"CASE WHEN {inside} THEN {_bin_of(name, drawn)} END", drawn.edges))
        elif column["type"] in DATES:
            drawn = csv_figures.time_bins(column, bins)
            queries.append((column, "histogram", _bin_of(f"epoch({name})", drawn), drawn.edges))
        elif rows <= _SHORT and not csv_figures.all_different(column):
            queries.append((column, "top", name, None))
        else:
            exact = rows <= EXACT_ROWS
            column["top"] = _top(connection, name, column["distinct"], column["values"], top, exact=exact)
    if not queries:
        return
    counts = _one(connection, f"SELECT {', '.join(f'histogram({sql})' for _, _, sql, _ in queries)} FROM {source}")
    outside = [column for column, _, _, edges in queries if column["type"] in NUMERIC]
    beyond = iter(
        _beyond(connection, source, outside, [edges for column, _, _, edges in queries if column["type"] in NUMERIC])
    )
    for (column, what, _, edges), counted in zip(queries, counts, strict=True):
        if what == "top":
            common = sorted(counted.items(), key=lambda pair: (-pair[1], _order(pair[0])))[:top]
            column["top"] = [{"value": str(value)[:500], "count": count} for value, count in common]
            continue
        bars = [int((counted or {}).get(at, 0)) for at in range(len(edges) - 1)]
        below, above = next(beyond) if column["type"] in NUMERIC else (0, 0)
        column["histogram"] = {
            "edges": csv_figures.labels(column, edges),
            "counts": bars,
            "below": below,
            "above": above,
        }
    for column in measured:
        column.pop("start", None)
        column.pop("end", None)


def _bin_of(value: str, drawn: csv_figures.Bins) -> str:
    return csv_figures.bin_of(value, f"({drawn.start!r}::DOUBLE)", f"({drawn.width!r}::DOUBLE)", str(drawn.count))


def _beyond(
    connection: duckdb.DuckDBPyConnection, source: str, columns: list[dict[str, Any]], edges: list[list[float]]
) -> list[tuple[int, int]]:
    """How many values of each column lie below and above its histogram."""
    if not columns:
        return []
    sql = [
        f"count(*) FILTER ({identifier(column['name'])} {sign} ({edge!r}::DOUBLE))"
        for column, own in zip(columns, edges, strict=True)
        for sign, edge in (("<", own[0]), (">", own[-1]))
    ]
    counts = _one(connection, f"SELECT {', '.join(sql)} FROM {source}")
    return list(zip(counts[::2], counts[1::2], strict=True))


def _order(value: object) -> bytes | bool:
    return value if isinstance(value, bool) else str(value).encode("utf-8", "surrogatepass")


def correlations(connection: duckdb.DuckDBPyConnection, columns: list[dict[str, Any]]) -> dict[str, Any]:
    """Pearson's coefficient of every pair of number columns, over rows that have both; null where one is constant."""
    able = [each["name"] for each in columns if each["type"] in NUMERIC and each.get("std")]
    names = able[:CORRELATED]
    pairs = [(one, other) for one in range(len(names)) for other in range(one + 1, len(names))]
    matrix: list[list[float | None]] = [[1.0 if one == other else None for other in names] for one in names]
    for start in range(0, len(pairs), 100):
        batch = pairs[start : start + 100]
        said = ", ".join(f"corr({_double(names[one])}, {_double(names[other])})" for one, other in batch)
        for (one, other), value in zip(batch, _one(connection, f"SELECT {said} FROM data"), strict=True):
            matrix[one][other] = matrix[other][one] = value if value is not None and abs(value) <= 1.001 else None
    return {"method": "pearson", "columns": names, "matrix": matrix, "left_out": able[CORRELATED:]}


def duplicates(connection: duckdb.DuckDBPyConnection, columns: list[table_typing.Column], rows: int) -> int | None:
    """How many rows repeat an earlier one; None where the table is too long to remember every row's hash."""
    if rows > EXACT_ROWS or not columns:
        return None
    (different,) = _one(connection, "SELECT count(DISTINCT hash(__row)) FROM data AS __row")
    return rows - int(different)


def groups(by: list[str], columns: list[table_typing.Column]) -> tuple[str, list[str]]:
    """SQL for the groups, largest first, and the columns that are measured in each."""
    known = [each.name for each in columns]
    for name in by:
        if name not in known:
            raise given.Refusal(
                f"group_by names {name!r}, and the table has no such column; it has {table_reading.listed(known)}"
            )
    measured = [each.name for each in columns if each.type in NUMERIC and each.name not in by]
    queries = [identifier(name) for name in by] + ['count(*) AS "count"']
    for name in measured:
        for label, function in (("mean", "avg"), ("sum", "sum"), ("min", "min"), ("max", "max")):
            queries.append(f"{function}({identifier(name)}) AS {identifier(f'{name}_{label}')}")
    keys = ", ".join(str(at) for at in range(1, len(by) + 1))
    return f'SELECT {", ".join(queries)} FROM data GROUP BY {keys} ORDER BY "count" DESC, {keys}', measured


def _top(
    connection: duckdb.DuckDBPyConnection, name: str, distinct: int, filled: int, top: int, *, exact: bool
) -> list[dict[str, Any]]:
    """The commonest values with their exact counts; candidates are estimated where the table is long."""
    if csv_figures.all_different({"distinct": distinct, "values": filled}):
        return []
    where = f"{name} IS NOT NULL"
    if not exact and distinct > EXACT_ROWS // 10:
        (candidates,) = _one(connection, f"SELECT approx_top_k({name}, {3 * top}) FROM data")
        where = f"{name} IN ({', '.join(literal(str(each)) for each in candidates)})"
    rows = connection.execute(
        f"SELECT {name}, count(*) FROM data WHERE {where} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {top}"
    ).fetchall()
    return [{"value": str(value)[:500], "count": count} for value, count in rows]


def _one(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[Any, ...]:
    row = connection.execute(sql).fetchone()
    assert row is not None  # an aggregate without groups has one row
    return row


def _double(name: str) -> str:
    return f"CAST({identifier(name)} AS DOUBLE)"
