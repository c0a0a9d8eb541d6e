"""The figures of a column as SQL, and how the result shows them: measured one by one or in long form. Pure."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import table_typing
from cell_formats import identifier

NUMERIC = frozenset({"integer", "number"})
DATES = frozenset({"date", "timestamp"})
QUANTILES = {"p01": 0.01, "p05": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95, "p99": 0.99}
_LARGE = 1e150  # its square is still a number


def fields(column: table_typing.Column, *, exact: bool) -> list[tuple[str, str]]:
    """Return the figures of a column, each with its SQL."""
    name = identifier(column.name)
    fields = [
        ("values", f"count({name})"),
        ("distinct", f"count(DISTINCT {name})" if exact else f"approx_count_distinct({name})"),
    ]
    if column.type in NUMERIC:
        tame = name if column.type == "integer" else f"CASE WHEN abs({name}) < {_LARGE} THEN {name} END"
        quantile = "quantile_cont" if exact else "approx_quantile"
        return [
            *fields,
            ("min", f"min({name})"),
            ("max", f"max({name})"),
            ("mean", f"avg({name})"),
            ("std", f"stddev_samp({tame})"),
            ("sum", f"sum({name})"),
            ("zeros", f"count(*) FILTER ({name} = 0)"),
            ("negative", f"count(*) FILTER ({name} < 0)"),
            ("quantiles", f"{quantile}({name}, {list(QUANTILES.values())})"),
        ]
    if column.type in DATES:
        ends = [(label, f"{label}({name})::VARCHAR") for label in ("min", "max")]
        return [*fields, *ends, ("start", f"epoch(min({name}))"), ("end", f"epoch(max({name}))")]
    if column.type == "text":
        lengths = [("shortest", "min"), ("longest", "max"), ("mean_length", "avg")]
        fields += [(label, f"{function}(length({name}))") for label, function in lengths]
        fields += [("first", f"left(min({name}), 200)"), ("last", f"left(max({name}), 200)")]
    return fields


def described(column: table_typing.Column, figures: dict[str, Any], rows: int, *, exact: bool) -> dict[str, Any]:
    """Return what the result says of a column with these ``figures`` in a table of so many rows."""
    filled = figures.pop("values")
    return {
        "name": column.name,
        "type": column.type,
        "values": filled,
        "missing": rows - filled,
        "missing_percent": round(100 * (rows - filled) / rows, 4) if rows else 0.0,
        "distinct": min(figures.pop("distinct"), filled),
        "distinct_exact": exact,
        "notes": list(column.notes),
        **(_finished(column.type, figures, exact=exact) if filled else {}),
    }


def _finished(type_: str, figures: dict[str, Any], *, exact: bool) -> dict[str, Any]:
    if type_ in NUMERIC:
        if max(abs(figures["min"]), abs(figures["max"])) >= _LARGE:
            figures["std"] = None
        figures["quantiles"] = dict(zip(QUANTILES, figures["quantiles"], strict=True))
        figures["quantiles_exact"] = exact
    return figures


def all_different(column: dict[str, Any]) -> bool:
    """Whether values are as good as all different: none is common."""
    return bool(column["distinct"] > 0.9 * column["values"] and column["values"] > 100)


@dataclass(frozen=True)
class Bins:
    """The bars of a histogram: ``count`` of equal width from ``start`` on; values beyond ``edges`` are in none."""

    edges: list[float]
    start: float
    width: float
    count: int


def bins(column: dict[str, Any], count: int) -> Bins:
    """Return bins of equal width for a column of numbers.

    Where few far-off values would leave one bar, the bins are over the middle 98 of 100.
    """
    low, high = float(column["min"]), float(column["max"])
    inner_low, inner_high = float(column["quantiles"]["p01"]), float(column["quantiles"]["p99"])
    if inner_low < inner_high and high - low > 5 * (inner_high - inner_low):
        low, high = inner_low, inner_high
    if column["type"] == "integer" and high - low < count:
        low, high = round(low), round(high)
        count, width = int(high - low) + 1, 1.0
        edges = [low - 0.5 + at for at in range(count + 1)]
    else:
        width = (high - low) / count or 1.0
        edges = [low + width * at for at in range(count)] + [high if high > low else low + width * count]
    return Bins(edges, edges[0], width, count)


def time_bins(column: dict[str, Any], count: int) -> Bins:
    """Return bins in seconds since 1970."""
    start, end = column["start"], column["end"]
    width = (end - start) / count or 1.0
    return Bins([start + width * at for at in range(count + 1)], start, width, count)


def bin_of(value: str, start: str, width: str, count: str) -> str:
    """SQL for the number of a value's bin, from 0; NULL for a missing value, which least and greatest would pass by."""
    place = f"least({count} - 1, greatest(0, floor(({value} - {start}) / {width})))::INTEGER"
    return f"CASE WHEN {value} IS NOT NULL THEN {place} END"


def labels(column: dict[str, Any], edges: list[float]) -> list[float] | list[str]:
    """Return edges of dates in words, as the table has them, without a zone; those beyond Python's years stay empty."""
    if column["type"] in NUMERIC:
        return edges
    words = []
    for edge in edges:
        try:
            words.append(str(dt.datetime(1970, 1, 1) + dt.timedelta(seconds=edge)))  # noqa: DTZ001  (as tables have them)
        except OverflowError:
            words.append("")
    return words
