"""Which type each column has: judged by every value of it, never by a sample alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import duckdb

import csv_reading
import given

_SAMPLE = 20_000
_AT_ONCE = 20
"""Columns judged in one query: each candidate type holds vectors of its own meanwhile, about 5 MB a column."""
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
    """A column of the table, its type, and what a reader should know about its values."""

    name: str
    type: str
    notes: list[str] = field(default_factory=list)


def find(connection: duckdb.DuckDBPyConnection, names: list[str], options: dict[str, Any]) -> list[Column]:
    """Return the columns of the view ``raw``, which holds text alone, with their types."""
    asked = options.get("types", {})
    for name in asked:
        if name not in names:
            raise given.Refusal(f"options.types names {name!r}, and the table has no such column")
    found = []
    for start in range(0, len(names), _AT_ONCE):
        batch = names[start : start + _AT_ONCE]
        candidates = {name: [asked[name]] if name in asked else list(_SQL_TYPES)[:-1] for name in batch}
        sample = _failures(connection, f"(SELECT * FROM raw LIMIT {_SAMPLE})", candidates, options)
        likely = {
            name: [kind for kind, failed in kinds.items() if name in asked or failed <= _NEARLY * max(1, filled)]
            for name, (filled, kinds) in sample.items()
        }
        counted = _failures(connection, "raw", likely, options)
        found += [_column(name, asked.get(name), *counted[name]) for name in batch]
    return found


def expression(column: Column, options: dict[str, Any]) -> str:
    """SQL for a column's value in its type; a value that is none of it is missing."""
    name = csv_reading.name(column.name)
    value = _value(column.type, name, options, said=column.name in options.get("types", {}))
    return f"CAST({value} AS {_SQL_TYPES[column.type]}) AS {name}"


def _failures(
    connection: duckdb.DuckDBPyConnection, rows: str, kinds: dict[str, list[str]], options: dict[str, Any]
) -> dict[str, tuple[int, dict[str, int]]]:
    """For each column how many values there are, and how many of them are not of each type."""
    wanted = []
    for name, candidates in kinds.items():
        text, said = csv_reading.name(name), name in options.get("types", {})
        wanted.append(f"count({text})")
        wanted += [f"count({_value(kind, text, options, said=said)})" for kind in candidates]
    counts = iter(connection.execute(f"SELECT {', '.join(wanted)} FROM {rows}").fetchone() or ())
    found = {}
    for name, candidates in kinds.items():
        filled = next(counts)
        found[name] = (filled, {kind: filled - next(counts) for kind in candidates})
    return found


def _column(name: str, asked: str | None, filled: int, kinds: dict[str, int]) -> Column:
    if asked is not None:
        column = Column(name, asked)
        if lost := kinds.get(asked, 0):
            column.notes.append(f"said to be {asked}: {lost:,} of {filled:,} values are not, and count as missing")
        return column
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


def _value(kind: str, text: str, options: dict[str, Any], *, said: bool) -> str:
    """SQL for what a text is as that type, NULL where it is not.

    Digits with a leading zero, or too many of them, are names (postcodes, card numbers) unless the task says otherwise.
    """
    whole = "[0-9]+" if said else "(0|[1-9][0-9]{0,17})"
    if kind == "integer":
        return f"CASE WHEN regexp_full_match({text}, '[+-]?{whole}') THEN TRY_CAST({text} AS BIGINT) END"
    if kind == "number":
        power = "([eE][+-]?[0-9]{1,3})?"
        if options.get("decimal") == ",":  # its points part thousands
            form = f"[+-]?({whole}|[1-9][0-9]{{0,2}}([.][0-9]{{3}})+(,[0-9]*)?|[0-9]*,[0-9]+|[0-9]+,){power}"
            plain = f"replace(replace({text}, '.', ''), ',', '.')"
        else:
            form, plain = f"[+-]?({whole}|[0-9]*[.][0-9]+|[0-9]+[.]){power}", text
        # 1e999 has the form of a number, and is none that can be reckoned with.
        finite = f"CASE WHEN isfinite(TRY_CAST({plain} AS DOUBLE)) THEN TRY_CAST({plain} AS DOUBLE) END"
        return f"CASE WHEN regexp_full_match({text}, '{form}') THEN {finite} END"
    if kind == "boolean":
        true, false = ("'true', 'yes'", "'false', 'no'")
        return f"CASE WHEN lower({text}) IN ({true}) THEN true WHEN lower({text}) IN ({false}) THEN false END"
    if kind == "date":
        return _date(text, options)
    return _moment(text, options) if kind == "timestamp" else text


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
