"""What is told of a table: each column's numbers, how columns go together, groups. Asked of duckdb."""

from __future__ import annotations

import datetime as dt
from typing import Any

import duckdb

import given
import table_typing
from cell_formats import identifier, literal

EXACT_ROWS = 1_000_000
"""Up to here distinct values and quantiles are exact; beyond, they are estimates in bounded memory, and said to be."""

CORRELATED = 40
"""Most columns that are compared with each other: 780 pairs."""

_QUANTILES = {"p01": 0.01, "p05": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95, "p99": 0.99}
_LARGE = 1e150  # its square is still a number
NUMERIC = frozenset({"integer", "number"})
_DATES = frozenset({"date", "timestamp"})


def column(
    connection: duckdb.DuckDBPyConnection, of: table_typing.Column, rows: int, options: dict[str, Any]
) -> dict[str, Any]:
    """Everything about one column."""
    name = identifier(of.name)
    exact = rows <= EXACT_ROWS
    distinct = f"count(DISTINCT {name})" if exact else f"approx_count_distinct({name})"
    filled, different = _one(connection, f"SELECT count({name}), {distinct} FROM data")
    found: dict[str, Any] = {
        "name": of.name,
        "type": of.type,
        "values": filled,
        "missing": rows - filled,
        "missing_percent": round(100 * (rows - filled) / rows, 4) if rows else 0.0,
        "distinct": min(different, filled),
        "distinct_exact": exact,
        "notes": list(of.notes),
    }
    if not filled:
        return found
    if of.type in NUMERIC:
        found |= _numeric(connection, name, of.type, options.get("bins", 20), exact=exact)
    elif of.type in _DATES:
        found |= _times(connection, name, options.get("bins", 20))
    else:
        if of.type == "text":
            said = f"min(length({name})), max(length({name})), avg(length({name})), min({name}), max({name})"
            shortest, longest, mean, first, last = _one(connection, f"SELECT {said} FROM data")
            found |= {"shortest": shortest, "longest": longest, "mean_length": mean}
            found |= {"first": first[:200], "last": last[:200]}
        found["top"] = _top(connection, name, found["distinct"], filled, options.get("top", 10), exact=exact)
    if found["distinct"] == 1:
        found["notes"].append("the same value everywhere")
    return found


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
    names = ", ".join(identifier(each.name) for each in columns)
    (different,) = _one(connection, f"SELECT count(DISTINCT hash({names})) FROM data")
    return rows - int(different)


def groups(by: list[str], columns: list[table_typing.Column]) -> tuple[str, list[str]]:
    """SQL for the groups, largest first, and the columns that are measured in each."""
    known = [each.name for each in columns]
    for name in by:
        if name not in known:
            raise given.Refusal(f"group_by names {name!r}, and the table has no such column; it has {listed(known)}")
    measured = [each.name for each in columns if each.type in NUMERIC and each.name not in by]
    wanted = [identifier(name) for name in by] + ['count(*) AS "count"']
    for name in measured:
        for label, function in (("mean", "avg"), ("sum", "sum"), ("min", "min"), ("max", "max")):
            wanted.append(f"{function}({identifier(name)}) AS {identifier(f'{name}_{label}')}")
    keys = ", ".join(str(at) for at in range(1, len(by) + 1))
    return f'SELECT {", ".join(wanted)} FROM data GROUP BY {keys} ORDER BY "count" DESC, {keys}', measured


def _numeric(connection: duckdb.DuckDBPyConnection, name: str, kind: str, bins: int, *, exact: bool) -> dict[str, Any]:
    quantile = "quantile_cont" if exact else "approx_quantile"
    least, most, mean, zeros, negative, total, quantiles = _one(
        connection,
        f"SELECT min({name}), max({name}), avg({name}), count(*) FILTER ({name} = 0), count(*) FILTER ({name} < 0), "
        f"sum({name}), {quantile}({name}, {list(_QUANTILES.values())}) FROM data",
    )
    std = None
    if max(abs(least), abs(most)) < _LARGE:
        (std,) = _one(connection, f"SELECT stddev_samp({name}) FROM data")
    found = {"min": least, "max": most, "mean": mean, "std": std, "sum": total, "zeros": zeros, "negative": negative}
    found["quantiles"] = dict(zip(_QUANTILES, quantiles, strict=True))
    found["quantiles_exact"] = exact
    found["histogram"] = _histogram(connection, name, kind, bins, found)
    return found


def _histogram(
    connection: duckdb.DuckDBPyConnection, name: str, kind: str, bins: int, of: dict[str, Any]
) -> dict[str, Any]:
    """Counts in bins of equal width; where few far-off values would leave one bar, over the middle 98 of 100."""
    low, high = float(of["min"]), float(of["max"])
    inner_low, inner_high = float(of["quantiles"]["p01"]), float(of["quantiles"]["p99"])
    if inner_low < inner_high and high - low > 5 * (inner_high - inner_low):
        low, high = inner_low, inner_high
    if kind == "integer" and high - low < bins:
        low, high = round(low), round(high)
        bins, width = int(high - low) + 1, 1.0
        edges = [low - 0.5 + at for at in range(bins + 1)]
    else:
        width = (high - low) / bins or 1.0
        edges = [low + width * at for at in range(bins)] + [high if high > low else low + width * bins]
    start = edges[0]
    bin_of = f"least({bins - 1}, greatest(0, floor(({name} - ({start!r}::DOUBLE)) / ({width!r}::DOUBLE))))::INTEGER"
    inside = f"{name} BETWEEN ({edges[0]!r}::DOUBLE) AND ({edges[-1]!r}::DOUBLE)"
    counts = [0] * bins
    for at, count in connection.execute(f"SELECT {bin_of}, count(*) FROM data WHERE {inside} GROUP BY 1").fetchall():
        counts[at] = count
    (below, above) = _one(
        connection,
        f"SELECT count(*) FILTER ({name} < ({edges[0]!r}::DOUBLE)), count(*) FILTER ({name} > ({edges[-1]!r}::DOUBLE)) "
        "FROM data",
    )
    return {"edges": edges, "counts": counts, "below": below, "above": above}


def _times(connection: duckdb.DuckDBPyConnection, name: str, bins: int) -> dict[str, Any]:
    first, last, start, end = _one(
        connection, f"SELECT min({name}), max({name}), epoch(min({name})), epoch(max({name})) FROM data"
    )
    width = (end - start) / bins or 1.0
    bin_of = f"least({bins - 1}, floor((epoch({name}) - ({start!r}::DOUBLE)) / ({width!r}::DOUBLE)))::INTEGER"
    counts = [0] * bins
    for at, count in connection.execute(
        f"SELECT {bin_of}, count(*) FROM data WHERE {name} IS NOT NULL GROUP BY 1"
    ).fetchall():
        counts[at] = count
    edges = [start + width * at for at in range(bins + 1)]
    words = [str(dt.datetime(1970, 1, 1) + dt.timedelta(seconds=edge)) for edge in edges]  # noqa: DTZ001 - as the table has them, without a zone
    return {
        "min": str(first),
        "max": str(last),
        "histogram": {"edges": words, "counts": counts, "below": 0, "above": 0},
    }


def _top(
    connection: duckdb.DuckDBPyConnection, name: str, distinct: int, filled: int, top: int, *, exact: bool
) -> list[dict[str, Any]]:
    """The commonest values with their exact counts; candidates are estimated where the table is long."""
    if distinct > 0.9 * filled and filled > 100:
        return []  # as good as all different: no value is common
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


def listed(names: list[str]) -> str:
    """Some names for a message."""
    return ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
