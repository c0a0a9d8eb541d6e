"""Which type each column has: judged by every value of it, never by a sample alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import duckdb

import csv_reading
import given

_SAMPLE = 20_000
_NEARLY = 0.05
"""A column of which at most this share are no numbers is text, but deserves a word about what is in the way."""

_SQL_TYPES = {
    "integer": "BIGINT",
    "number": "DOUBLE",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
    "text": "VARCHAR",
}


@dataclass
class Column:
    """A column of the table, its type, and how many of its values that type cannot hold (with a type said)."""

    name: str
    type: str
    said: bool = False
    notes: list[str] = field(default_factory=list)


def find(
    connection: duckdb.DuckDBPyConnection, rows: str, names: list[str], options: dict[str, Any]
) -> tuple[list[Column], dict[int, int]]:
    """Return the columns with their types, and how many rows each file has, by its number."""
    asked = options.get("types", {})
    for name in asked:
        if name not in names:
            raise given.Refusal(f"options.types names {name!r}, and the table has no such column")
    sample = f"(SELECT * FROM ({rows}) LIMIT {_SAMPLE})"
    open_types = [name for name in names if name not in asked]
    first, _ = _failures(connection, sample, {name: list(_SQL_TYPES)[:-1] for name in open_types}, options)
    likely = {
        name: [kind for kind, failed in kinds.items() if failed <= _NEARLY * max(1, filled)]
        for name, (filled, kinds) in first.items()
    }
    all_rows, per_file = _failures(connection, f"({rows})", likely, options)
    return [_column(name, asked.get(name), all_rows.get(name)) for name in names], per_file


def expression(column: Column, options: dict[str, Any]) -> str:
    """SQL for a column's value in its type; a value that is none of it is missing."""
    text = f"trim({csv_reading.name(column.name)})"
    value = {
        "integer": f"TRY_CAST({text} AS BIGINT)",
        "number": f"CASE WHEN {_is('number', text, options)} THEN TRY_CAST({_point(text, options)} AS DOUBLE) END",
        "boolean": f"CASE lower({text}) WHEN 'true' THEN true WHEN 'yes' THEN true "
        f"WHEN 'false' THEN false WHEN 'no' THEN false END",
        "date": f"CAST({_date(text, options)} AS DATE)",
        "timestamp": f"CAST({_moment(text, options)} AS TIMESTAMP)",
        "text": f"nullif({text}, '')",
    }[column.type]
    return f"CAST({value} AS {_SQL_TYPES[column.type]}) AS {csv_reading.name(column.name)}"


def _failures(
    connection: duckdb.DuckDBPyConnection, rows: str, kinds: dict[str, list[str]], options: dict[str, Any]
) -> tuple[dict[str, tuple[int, dict[str, int]]], dict[int, int]]:
    """For each column how many values there are and how many are not of each type; and the rows of each file."""
    wanted = ["__file", "count(*)"]
    for name, candidates in kinds.items():
        text = f"trim({csv_reading.name(name)})"
        wanted.append(f"count(*) FILTER (nullif({text}, '') IS NOT NULL)")
        wanted += [
            f"count(*) FILTER ({text} <> '' AND NOT coalesce({_is(kind, text, options)}, false))" for kind in candidates
        ]
    per_file: dict[int, int] = {}
    sums = [0] * (len(wanted) - 2)
    for number, count, *counts in connection.execute(
        f"SELECT {', '.join(wanted)} FROM {rows} GROUP BY __file"
    ).fetchall():
        per_file[number] = count
        sums = [total + more for total, more in zip(sums, counts, strict=True)]
    found: dict[str, tuple[int, dict[str, int]]] = {}
    at = 0
    for name, candidates in kinds.items():
        found[name] = (sums[at], dict(zip(candidates, sums[at + 1 : at + 1 + len(candidates)], strict=True)))
        at += 1 + len(candidates)
    return found, per_file


def _column(name: str, asked: str | None, counted: tuple[int, dict[str, int]] | None) -> Column:
    if asked is not None or counted is None:
        return Column(name, asked or "text", said=True)
    filled, kinds = counted
    if not filled:
        return Column(name, "text", notes=["empty: every value is missing"])
    fitting = next((kind for kind, failed in kinds.items() if not failed), "text")
    column = Column(name, fitting)
    failed = kinds.get("number", filled)
    if fitting == "text" and 0 < failed <= _NEARLY * filled:
        column.notes.append(
            f"nearly all are numbers: {failed:,} of {filled:,} values are not; "
            "options.types or options.null_values can say what they are"
        )
    return column


def _is(kind: str, text: str, options: dict[str, Any]) -> str:
    """A condition: whether a text is of that type. Digits with a leading zero, or too many of them, are names."""
    if kind == "integer":
        return f"regexp_full_match({text}, '[+-]?(0|[1-9][0-9]{{0,17}})')"
    if kind == "number":
        point = _point(text, options)
        return (
            f"(isfinite(TRY_CAST({point} AS DOUBLE)) AND NOT regexp_full_match({text}, '[+-]?(0[0-9]+|[0-9]{{19,}})'))"
        )
    if kind == "boolean":
        return f"(lower({text}) IN ('true', 'false', 'yes', 'no'))"
    return f"({(_date if kind == 'date' else _moment)(text, options)} IS NOT NULL)"


def _point(text: str, options: dict[str, Any]) -> str:
    """A number with a decimal comma as SQL reads it; its points part thousands."""
    return f"replace(replace({text}, '.', ''), ',', '.')" if options.get("decimal") == "," else text


def _date(text: str, options: dict[str, Any]) -> str:
    if said := options.get("date_format"):
        whole_days = not any(code in said for code in ("%H", "%I", "%M", "%S", "%p", "%X", "%c", "%s"))
        return f"try_strptime({text}, {csv_reading.literal(said)})" if whole_days else "CAST(NULL AS TIMESTAMP)"
    return (
        f"CASE WHEN regexp_full_match({text}, '[0-9]{{4}}-[0-9]{{1,2}}-[0-9]{{1,2}}') THEN TRY_CAST({text} AS DATE) "
        f"WHEN regexp_full_match({text}, '[0-9]{{1,2}}[.][0-9]{{1,2}}[.][0-9]{{4}}') "
        f"THEN CAST(try_strptime({text}, '%d.%m.%Y') AS DATE) END"
    )


def _moment(text: str, options: dict[str, Any]) -> str:
    if said := options.get("date_format"):
        return f"try_strptime({text}, {csv_reading.literal(said)})"
    return f"CASE WHEN regexp_matches({text}, '^[0-9]{{4}}-[0-9]') THEN TRY_CAST({text} AS TIMESTAMP) END"
