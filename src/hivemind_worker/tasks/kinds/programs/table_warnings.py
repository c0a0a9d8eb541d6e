"""What a user must check in a table although every value has a type: totals, telephone numbers, values cut short."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import duckdb

import table_typing
from cell_formats import identifier, literal

_EXACT = 2**53
"""Whole numbers below are exact as DOUBLE."""

_AT_ONCE = 60
_TELEPHONE = "[+][0-9](?:[ ().-]{0,2}[0-9]){7,14}"
"""A number in the form of ITU-T E.123, of at most 15 digits; a shorter one may be a difference."""

TOTALS = (
    *("total", "totals", "grand total", "subtotal", "sub-total", "sub total", "overall total", "total general"),
    *("sum", "sums", "average", "avg", "mean", "count"),
    *("summe", "gesamt", "gesamtsumme", "insgesamt", "zwischensumme", "mittelwert", "durchschnitt", "i alt", "totalt"),
    *("total général", "sous-total", "somme", "moyenne", "totale", "somma", "totaal", "promedio", "suma", "soma"),
    *("summa", "razem", "ogółem", "celkem", "součet", "összesen", "toplam", "genel toplam", "yhteensä", "total geral"),
    *("итого", "всего", "сумма", "разом", "всього", "σύνολο", "合计", "总计", "小计", "合計", "總計", "小計", "総計"),
    *("합계", "총계", "소계", "المجموع", "סה״כ", 'סה"כ', "tổng cộng", "jumlah"),
)
"""Labels of rows that sum up others, in small letters."""


def add(
    connection: duckdb.DuckDBPyConnection, columns: Sequence[table_typing.Column], options: Mapping[str, Any]
) -> None:
    """Add notes to the columns, whose text is in the view ``raw``; telephone numbers become text."""
    _keep_telephone_numbers(connection, columns)
    numbers = [column for column in columns if column.type == "number"]
    if numbers or any(column.type == "integer" for column in columns):
        texts = [column for column in columns if column.type == "text"]
        for column, count, rows in _count(connection, texts, _is_total):
            if count < rows:
                words = _words(connection, column)
                column.notes.append(
                    f"{count:,} rows look like totals or averages of other rows ({words}), and are counted like any "
                    "row: leave them out with a query, or remove them from the file"
                )

    def is_rounded(column: table_typing.Column) -> str:
        text = identifier(column.name)
        return (
            f"length({text}) > 15 AND NOT regexp_matches({text}, '[0-9.,][eE][+-]?[0-9]') "
            f"AND abs({table_typing.value(column, options)}) >= {_EXACT}"
        )

    for column, count, _ in _count(connection, numbers, is_rounded):
        column.notes.append(
            f"{count:,} numbers reach {_EXACT:,} (2^53), and are rounded to some 16 digits; options.types text "
            "keeps all digits"
        )
    times = [column for column in columns if column.type == "timestamp"]
    for column, count, _ in _count(connection, times, _is_finer):
        column.notes.append(f"{count:,} times are finer than a microsecond, and are cut to microseconds")


def _keep_telephone_numbers(connection: duckdb.DuckDBPyConnection, columns: Sequence[table_typing.Column]) -> None:
    """Turn columns of nothing but such numbers back to text: as whole numbers they would lose their plus."""
    judged = [column for column in columns if column.type in {"integer", "number"} and not column.declared]
    for condition in (_begins_with_plus, _is_telephone):  # a pattern costs ten times as much as a first character
        counts = _count(connection, judged, condition)
        judged = [column for column, count, rows in counts if count == rows]
    for column in judged:
        column.type, column.style = "text", ""
        column.notes = ["telephone numbers: they stay text; options.types integer reads them as numbers"]


def _begins_with_plus(column: table_typing.Column) -> str:
    return f"starts_with({identifier(column.name)}, '+')"


def _is_telephone(column: table_typing.Column) -> str:
    return f"regexp_full_match({identifier(column.name)}, '{_TELEPHONE}')"


def _count(
    connection: duckdb.DuckDBPyConnection,
    columns: Sequence[table_typing.Column],
    condition: Callable[[table_typing.Column], str],
) -> list[tuple[table_typing.Column, int, int]]:
    """Return the columns that have values which meet the condition: how many do, and how many values there are."""
    result = []
    for start in range(0, len(columns), _AT_ONCE):
        batch = columns[start : start + _AT_ONCE]
        expressions = [f"count(*) FILTER ({condition(column)}), count({identifier(column.name)})" for column in batch]
        counts = connection.execute(f"SELECT {', '.join(expressions)} FROM raw").fetchone() or ()
        result += list(zip(batch, counts[::2], counts[1::2], strict=True))
    return [entry for entry in result if entry[1]]


def _is_total(column: table_typing.Column) -> str:
    return f"rtrim(lower({identifier(column.name)}), ' :*.=') IN ({', '.join(map(literal, TOTALS))})"


def _is_finer(column: table_typing.Column) -> str:
    return f"regexp_matches({identifier(column.name)}, '[.,][0-9]{{6}}[0-9]*[1-9]')"


def _words(connection: duckdb.DuckDBPyConnection, column: table_typing.Column) -> str:
    rows = connection.execute(
        f"SELECT DISTINCT {identifier(column.name)} FROM raw WHERE {_is_total(column)} ORDER BY 1 LIMIT 3"
    ).fetchall()
    return ", ".join(repr(word) for (word,) in rows)
