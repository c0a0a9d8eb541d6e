"""Which type each column has, and how its values are written: judged by every value of it, never by a sample alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb

import cell_formats
import given
from cell_formats import identifier, literal

SAMPLE = 20_000
_EXPRESSIONS = 120
"""Expressions in one query: each holds vectors of its own meanwhile, about 1 MB."""
_NEARLY = 0.05
"""A column of which at most this share are no numbers is text, but deserves a word about what is in the way."""

_DATES = ("date", "timestamp")
_PLAIN = ("integer", "number", "boolean", "date", "timestamp")
_MARK_NAMES = {",": "commas", ".": "points"}
_GROUPED = {"apostrophes": "[0-9][''’][0-9]", "blanks": "[0-9][ \u00a0\u202f\u2009][0-9]"}


@dataclass
class Column:
    """A column of the table.

    ``type`` is one of cell_formats.SQL_TYPES. ``style`` says how its values are written, where that is not the plain
    way: one of cell_formats.NUMBERS, or a date format. ``declared``: the task says the type. ``placeholders``: values
    that stand for missing ones are among the others. ``infinite`` counts values that are infinite, which are missing.
    """

    name: str
    type: str
    style: str = ""
    declared: bool = False
    infinite: int = 0
    notes: list[str] = field(default_factory=list)


def find(
    connection: duckdb.DuckDBPyConnection,
    names: Sequence[str],
    options: Mapping[str, Any],
    delimiters: frozenset[str] = frozenset({","}),
    words: frozenset[str] = frozenset(),
) -> list[Column]:
    """Return the columns of the view ``raw``, which holds text alone, with their types.

    ``delimiters`` of the files are a hint at what a comma in a number means; ``words`` are columns that the file
    itself calls text. Raises Refusal where options name a column that is not there.
    """
    declared: dict[str, str] = options.get("types", {})
    for name in declared:
        if name not in names:
            raise given.Refusal(f"options.types names {name!r}, and the table has no such column")
    judge = _Judge(connection, dict(options))
    free = [name for name in names if name not in declared and name not in words]
    filled = judge.count(names, lambda _: ["true"], "raw")
    judge.look_at([name for name in free if filled[name][0]])
    columns = judge.plain(free, {name: counts[0] for name, counts in filled.items()})
    judge.styled([columns[name] for name in free if columns[name].type == "text" and filled[name][0]], delimiters)
    judge.decimal_comma_everywhere([columns[name] for name in free], delimiters)
    for name in names:
        if name in declared:
            columns[name] = judge.as_declared(name, declared[name], delimiters)
        elif name in words:
            columns[name] = judge.words(name)
        if not filled[name][0]:
            columns[name].notes = ["empty: every value is missing"]
    judge.zones([column for column in columns.values() if column.type == "timestamp" and not column.style])
    return [columns[name] for name in names]


def expression(column: Column, options: Mapping[str, Any]) -> str:
    """SQL for a column's value in its type; a value that is none of it is missing."""
    name = identifier(column.name)
    return f"CAST({value(column, options)} AS {cell_formats.SQL_TYPES[column.type]}) AS {name}"


def value(column: Column, options: Mapping[str, Any]) -> str:
    """SQL for a column's value, NULL where the text is none of its type."""
    return _value(column.type, column.style, identifier(column.name), dict(options), padded=column.declared)


def _value(type_: str, style: str, text: str, options: dict[str, Any], *, padded: bool = False) -> str:
    if type_ == "integer":
        if style not in {"", "plain"}:
            return cell_formats.whole_number(text, style, thousands=options.get("thousands"))
        return cell_formats.integer(text, padded=padded)
    if type_ == "number":
        return cell_formats.number(text, style or "plain", padded=padded, thousands=options.get("thousands"))
    if type_ == "boolean":
        return cell_formats.boolean(text, declared=padded)
    if type_ == "date":
        return cell_formats.date(text, options, style)
    return cell_formats.moment(text, options, style) if type_ == "timestamp" else text


class _Judge:
    """Counts which values fit which type.

    A query's cost is mostly that of its patterns: each is compiled for each column, 11 ms for all ways to write numbers
    and dates, however few rows there are. So two cheap patterns say first which columns the others may fit.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, options: dict[str, Any]) -> None:
        self._connection = connection
        (rows,) = connection.execute("SELECT count(*) FROM raw").fetchone() or (0,)
        self._short = rows <= SAMPLE
        self._options = options
        said = options.get("decimal") or {",": ".", ".": ","}.get(options.get("thousands", ""), "")
        self._styles = {".": ("point",), ",": ("comma",)}.get(said, ("point", "comma"))
        self._plain_numbers = said != ","
        self._with_digits: set[str] = set()
        self._like_dates: set[str] = set()

    def look_at(self, names: Sequence[str]) -> None:
        """See in the first rows which columns have digits, and which of those what may be a date."""
        forms = self.count(
            names, lambda text: [cell_formats.has_digit(text), cell_formats.may_be_date(text)], _first_rows()
        )
        dated = "date_format" in self._options
        self._with_digits = {name for name, (digits, _) in forms.items() if digits or dated}
        self._like_dates = {name for name, (_, dates) in forms.items() if dates or dated}

    def count(self, names: Sequence[str], conditions: Any, rows: str) -> dict[str, list[int]]:
        """For each column how many of its values meet each condition: SQL, made of the column's name by a function."""
        found: dict[str, list[int]] = {}
        each = max(1, len(conditions('"x"')))
        at_once = max(1, _EXPRESSIONS // each)
        for start in range(0, len(names), at_once):
            batch = names[start : start + at_once]
            wanted = [
                f"count(*) FILTER ({identifier(name)} IS NOT NULL AND ({condition}))"
                for name in batch
                for condition in conditions(identifier(name))
            ]
            counts = list(self._connection.execute(f"SELECT {', '.join(wanted)} FROM {rows}").fetchone() or ())
            for number, name in enumerate(batch):
                found[name] = counts[number * each : (number + 1) * each]
        return found

    def plain(self, names: Sequence[str], filled: Mapping[str, int]) -> dict[str, Column]:
        """Columns whose values are all written in the plain way of one type; the others are text for now."""
        kinds = [kind for kind in _PLAIN if kind != "number" or self._plain_numbers]

        def fits(kind: str, text: str) -> str:
            return f"({_value(kind, '', text, self._options)}) IS NOT NULL"

        columns = {name: Column(name, "text") for name in names}
        open_ = [name for name in names if filled[name]]
        able = {"boolean": set(open_), "date": self._like_dates, "timestamp": self._like_dates}
        for kind in kinds:
            possible = [name for name in open_ if name in able.get(kind, self._with_digits)]
            sample = self.count(possible, lambda text, kind=kind: ["true", fits(kind, text)], _first_rows())
            likely = [name for name, (total, count) in sample.items() if total == count]
            if not self._short:
                whole = self.count(likely, lambda text, kind=kind: [fits(kind, text)], "raw")
                likely = [name for name, (count,) in whole.items() if count == filled[name]]
            for name in likely:
                columns[name].type = kind
            open_ = [name for name in open_ if columns[name].type == "text"]
        return columns

    def styled(self, columns: Sequence[Column], delimiters: frozenset[str]) -> None:
        """Find numbers and dates among text columns, written as people do, with signs for missing values between."""
        choices = [("integer", ""), *((("number", "plain"),) if self._plain_numbers else ())]
        choices += [("number", style) for style in self._styles]
        choices += [("date", ""), ("timestamp", "")]
        if "date_format" not in self._options:
            choices += [(kind, style) for kind in ("date", "timestamp") for style in cell_formats.DATE_FORMATS]

        by_name = {column.name: column for column in columns if column.name in self._with_digits}
        numbers = [(kind, style) for kind, style in choices if kind not in _DATES]
        tried = {name: choices if name in self._like_dates else numbers for name in by_name}
        sample: dict[str, list[int]] = {}
        for own in (choices, numbers):
            alike = [name for name in by_name if tried[name] is own]
            sample |= self.count(alike, lambda text, own=own: self._styles_fit(text, own), _first_rows())
        likely = {
            name: _likely(total - gaps - infinite, tried[name], fits)
            for name, (gaps, infinite, total, *fits) in sample.items()
        }
        able = [name for name, own in likely.items() if own]
        fitting: dict[str, list[tuple[str, str]]] = {}
        for name in able:
            own, counts = tried[name], sample[name]
            if not self._short:
                own = likely[name]
                counts = self.count([name], lambda text, own=own: self._styles_fit(text, own), "raw")[name]
            gaps, infinite, total, *fits = counts
            column, real = by_name[name], total - gaps - infinite
            pairs = list(zip(own, fits, strict=True))
            fitting[name] = [choice for choice, count in pairs if real and count == real]
            if infinite:
                fitting[name] = [(kind, style) for kind, style in fitting[name] if kind in {"integer", "number"}]
            best = max(fits)
            if not fitting[name] and real - best <= max(1, _NEARLY * real) and best > 1:
                kind = own[fits.index(best)][0]
                what = {"date": "dates", "timestamp": "times", "integer": "numbers", "number": "numbers"}[kind]
                column.notes.append(
                    f"nearly all are {what}: {real - best:,} of {real:,} values are not; "
                    "options.types or options.null_values can say what they are"
                )
            elif fitting[name]:
                column.infinite = infinite
        self._settle([by_name[name] for name in able if fitting[name]], fitting, delimiters)

    def _styles_fit(self, text: str, choices: Sequence[tuple[str, str]]) -> list[str]:
        """SQL for whether a text is a gap, infinite, anything, and a value of each choice."""
        fits = [f"({_value(kind, style, text, self._options)}) IS NOT NULL" for kind, style in choices]
        return [cell_formats.is_placeholder(text), cell_formats.is_infinite(text), "true", *fits]

    def _settle(
        self, columns: Sequence[Column], fitting: Mapping[str, list[tuple[str, str]]], delimiters: frozenset[str]
    ) -> None:
        """Choose among the types that fit every value; where two readings differ and nothing settles it, keep text."""
        unsure: list[Column] = []
        for column in columns:
            fits = fitting[column.name]
            if {("number", "point"), ("number", "comma")} <= set(fits) and not {kind for kind, _ in fits} & {"integer"}:
                if ("number", "plain") in fits:
                    column.type, column.style = "number", "plain"
                elif self._is_unclear(column):
                    unsure.append(column)
                else:
                    column.type, column.style = "number", "point"
            elif fits[0][0] in _DATES and fits[0][1] and sum(kind == fits[0][0] for kind, _ in fits) > 1:
                column.notes.append("dates whose day and month cannot be told apart; options.date_format says which")
            else:
                column.type, column.style = fits[0]
                column.style = column.style or ("plain" if column.type in {"integer", "number"} else "")
        commas = any(column.style == "comma" for column in columns)
        points = any(column.style == "point" for column in columns)
        for column in unsure:
            if commas != points or delimiters == {","}:
                column.type, column.style = "number", "comma" if commas and not points else "point"
            else:
                column.notes.append(
                    "numbers whose comma may be a decimal mark or part thousands; options.decimal says which"
                )
        for column in columns:
            self._explain(column)

    def _is_unclear(self, column: Column) -> bool:
        text = identifier(column.name)
        return self.count([column.name], lambda _: [cell_formats.is_ambiguous(text)], "raw")[column.name][0] > 0

    def _explain(self, column: Column) -> None:
        """Say how the values were read; take back what is not sure."""
        text = identifier(column.name)
        if column.type == "text":
            return
        gaps = self._connection.execute(
            f"SELECT {text}, count(*) FROM raw WHERE {cell_formats.is_placeholder(text)} "
            "GROUP BY 1 ORDER BY 2 DESC LIMIT 5"
        ).fetchall()
        if gaps:
            listed = ", ".join(f"{word!r} {count:,} times" for word, count in gaps)
            column.notes.append(f"among {column.type}s these count as missing: {listed}")
        if column.infinite:
            column.notes.append(f"{column.infinite:,} values are infinite, and count as missing")
        if column.type in _DATES and column.style:
            column.notes.append(f"{column.type}s are read as {column.style}")
        if column.style not in {"point", "comma"}:
            return
        signs = f"[%‰]|{cell_formats.CURRENCY}"
        marks = self._connection.execute(
            f"SELECT regexp_extract({text}, {literal(signs)}), count(*), count(*) FILTER (starts_with({text}, '(')) "
            f"FROM raw WHERE {value(column, self._options)} IS NOT NULL GROUP BY 1 ORDER BY 2 DESC"
        ).fetchall()
        used = [mark for mark, _, _ in marks if mark]
        total, in_parentheses = sum(count for _, count, _ in marks), sum(count for _, _, count in marks)
        if len(used) > 1 or (used and used[0] in "%‰" and len(marks) > 1):
            column.notes.append(f"numbers with different signs ({', '.join(used)}, or none): they stay text")
            column.type, column.style = "text", ""
            return
        if total == in_parentheses and total:
            column.notes.append("all numbers stand in parentheses: they stay text; options.types number: negative ones")
            column.type, column.style = "text", ""
            return
        if used:
            column.notes.append(f"numbers with the sign {used[0]!r}, which is left out: 45{used[0]} is 45")
        if in_parentheses:
            column.notes.append(f"{in_parentheses:,} numbers in parentheses are negative")
        usual = "." if column.style == "comma" else ","
        counts = self.count(
            [column.name],
            lambda text: [
                f"contains({text}, '{usual}')",
                *(f"regexp_matches({text}, '{at}')" for at in _GROUPED.values()),
            ],
            "raw",
        )[column.name]
        used = [name for name, count in zip((_MARK_NAMES[usual], *_GROUPED), counts, strict=True) if count]
        grouped = f"; {' and '.join(used)} part thousands" if used else ""
        column.notes.append(f"numbers are read with a decimal {column.style}{grouped}")

    def zones(self, columns: Sequence[Column]) -> None:
        """Say which times were turned to UTC."""
        counts = self.count(
            [column.name for column in columns], lambda text: [cell_formats.has_zone(text), "true"], "raw"
        )
        for column in columns:
            zoned, total = counts[column.name]
            others = f"; the other {total - zoned:,} have none, and are taken to be in UTC" if zoned < total else ""
            if zoned:
                column.notes.append(f"{zoned:,} times have a zone, and are turned to UTC{others}")

    def decimal_comma_everywhere(self, columns: Sequence[Column], delimiters: frozenset[str]) -> None:
        """Where numbers have decimal commas, ``1.234`` is over a thousand, unless the column's points are decimal."""
        commas = any(column.style == "comma" for column in columns)
        if not commas and ";" not in delimiters:
            return
        doubtful = [column for column in columns if column.type == "number" and column.style in {"", "plain"}]
        grouped = "[+-]?(0|[1-9][0-9]{0,2}([.][0-9]{3})*)"
        counts = self.count(
            [column.name for column in doubtful],
            lambda text: [f"NOT regexp_full_match({text}, '{grouped}')", f"contains({text}, '.')"],
            "raw",
        )
        for column in doubtful:
            others, points = counts[column.name]
            if not others and points and not commas:
                column.notes.append(
                    "points are read as decimal marks, though none of the values settles it; options.thousands '.' "
                    "says that they part thousands"
                )
            elif not others and points:
                column.style = "comma"
                column.notes.append(
                    "points part thousands, as other columns have decimal commas; options.decimal decides"
                )

    def as_declared(self, name: str, type_: str, delimiters: frozenset[str]) -> Column:
        """The column in the type that the task says, in the style that fits most values."""
        styles = [""]
        if type_ in {"number", "integer"}:
            styles = [*(["plain"] if self._plain_numbers or type_ == "integer" else []), *self._styles]
        elif type_ in _DATES and "date_format" not in self._options:
            styles = ["", *cell_formats.DATE_FORMATS]

        def conditions(text: str) -> list[str]:
            fits = [f"({_value(type_, style, text, self._options, padded=True)}) IS NOT NULL" for style in styles]
            return ["true", *fits]

        total, *fits = self.count([name], conditions, "raw")[name]
        best = max(fits)
        column = Column(name, type_, styles[fits.index(best)], declared=True)
        tied = [style for style, count in zip(styles, fits, strict=True) if count == best and best]
        if column.style and type_ in _DATES and len(tied) > 1:
            raise given.Refusal(
                f"options.types says that column {name!r} is a {type_}, and its days and months cannot be told apart: "
                "options.date_format says which is which"
            )
        if column.style == "point" and "comma" in tied and delimiters != {","} and self._is_unclear(column):
            raise given.Refusal(
                f"options.types says that column {name!r} is a number, and its commas may be decimal marks or part "
                "thousands: options.decimal says which"
            )
        if column.style in {"point", "comma"}:
            column.notes.append(f"numbers are read with a decimal {column.style}")
        if best < total:
            column.notes.append(
                f"said to be {type_}: {total - best:,} of {total:,} values are not, and count as missing"
            )
        return column

    def words(self, name: str) -> Column:
        """A column that the file itself calls text: dates are found in it, numbers are not."""
        kinds = ("date", "timestamp")
        counts = self.count(
            [name],
            lambda text: ["true", *(f"({_value(k, '', text, self._options)}) IS NOT NULL" for k in kinds)],
            "raw",
        )[name]
        total, *fits = counts
        return Column(
            name, next((kind for kind, count in zip(kinds, fits, strict=True) if total and count == total), "text")
        )


def _first_rows() -> str:
    return f"(SELECT * FROM raw LIMIT {SAMPLE})"


def _likely(real: int, choices: Sequence[tuple[str, str]], fits: Sequence[int]) -> list[tuple[str, str]]:
    """The choices that nearly all values fit."""
    pairs = zip(choices, fits, strict=True)
    return [choice for choice, count in pairs if count and real - count <= max(1, _NEARLY * real)]
