"""SQL for what a text is as a value: each way of writing numbers, dates and truth values, and NULL where it is not one.

All expressions are of duckdb and take text without blanks around it.
"""

from __future__ import annotations

from typing import Any

NUMBERS = ("plain", "point", "comma")
"""Ways to write numbers: as programs do; with a decimal point, or with a decimal comma, and with what people add:
thousands apart, percent and currency signs, parentheses or a minus behind for negatives."""

PLACEHOLDERS = (
    *(
        "-",
        "--",
        "---",
        "–",
        "—",
        ".",
        "..",
        "...",
        "?",
        "*",
        "n/a",
        "na",
        "n.a.",
        "nan",
        "null",
        "none",
        "nil",
        "missing",
    ),
    *("unknown", "#n/a", "#na", "#null!", "#div/0!", "#value!", "#ref!", "#num!", "#name?", "<na>", "(null)", r"\n"),
)
"""What stands for a missing value among numbers or dates, in small letters; among words it is a word."""

INFINITE = ("inf", "+inf", "-inf", "infinity", "+infinity", "-infinity")
"""Numbers that cannot be reckoned with, in small letters."""

SQL_TYPES = {
    "integer": "BIGINT",
    "number": "DOUBLE",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
    "text": "VARCHAR",
}

DATE_FORMATS = ("%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%d.%m.%Y")
"""Ways to write a date besides ISO's; that of day and month is told only where the values settle it."""

_CURRENCY = "[$€£¥₹]|USD|EUR|GBP|CHF|kr|zł|Kč|Ft"
_SPACES = " \u00a0\u202f\u2009"


def literal(text: str) -> str:
    """Text as SQL has it."""
    return "'" + text.replace("'", "''") + "'"


def identifier(column: str) -> str:
    """A column's name as SQL has it."""
    return '"' + column.replace('"', '""') + '"'


def integer(text: str, *, padded: bool) -> str:
    """Digits. Those with a leading zero, or too many of them, are names (postcodes, card numbers) unless ``padded``."""
    return f"CASE WHEN regexp_full_match({text}, '[+-]?{_whole(padded)}') THEN TRY_CAST({text} AS BIGINT) END"


def number(text: str, style: str, *, padded: bool, thousands: str | None = None) -> str:
    """A number written in one of NUMBERS; ``thousands`` restricts what may part groups of digits."""
    if style == "plain":
        return _finite(text, text, f"[+-]?({_whole(padded)}|[0-9]*[.][0-9]+|[0-9]+[.])([eE][+-]?[0-9]{{1,3}})?")
    decimal, usual = (".", ",") if style == "point" else (",", ".")
    marks = [usual, "'", "’", *_SPACES] if thousands is None else ([thousands] if thousands else [])
    if thousands == " ":
        marks = list(_SPACES)
    groups = "|".join(
        [f"[1-9][0-9]{{0,2}}(?:[{mark}][0-9]{{3}})+" for mark in marks]
        + (["[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}"] if usual in marks and style == "point" else [])
    )
    whole = f"(?:{groups}|{_whole(padded)})" if groups else _whole(padded)
    body = f"(?:{whole}(?:[{decimal}][0-9]*)?|[{decimal}][0-9]+)(?:[eE][+-]?[0-9]{{1,3}})?"
    sign, gap, money = "[+−-]?", f"[{_SPACES}]*", f"(?:{_CURRENCY})?"
    signed = f"{sign}{gap}{money}{gap}{sign}{body}{gap}(?:{_CURRENCY}|%|‰)?-?"
    form = f"(?:{signed}|[(]{gap}{money}{gap}{body}{gap}(?:{_CURRENCY}|%)?[)])"
    digits = f"regexp_replace(regexp_replace({text}, '{_CURRENCY}', '', 'g'), '[^0-9eE{decimal}+-]', '', 'g')"
    plain = f"replace({digits}, ',', '.')" if decimal == "," else digits
    # The sign is put in front: it may stand there, behind a currency, behind the number, or be parentheses.
    negative = f"regexp_matches({text}, '^[^0-9]*[−(-]|-$')"
    unsigned = f"regexp_replace(regexp_replace({plain}, '^[+-]+', ''), '[+-]+$', '')"
    value = f"(CASE WHEN {negative} THEN '-' ELSE '' END || {unsigned})"
    return _finite(text, value, form.replace("'", "''"))


def is_ambiguous(text: str) -> str:
    """Whether a text is one number with a decimal comma and another with commas between thousands."""
    return f"regexp_full_match({text}, '[^0-9]*[1-9][0-9]{{0,2}}[.,][0-9]{{3}}[^0-9]*')"


def boolean(text: str) -> str:
    """Truth values in words: digits are numbers."""
    return f"CASE WHEN lower({text}) IN ('true', 'yes') THEN true WHEN lower({text}) IN ('false', 'no') THEN false END"


def date(text: str, options: dict[str, Any], style: str = "") -> str:
    """Whole days, from the year 1 on."""
    if said := options.get("date_format"):
        whole_days = not any(code in said for code in ("%H", "%I", "%M", "%S", "%p", "%X", "%c", "%s"))
        return f"CAST(try_strptime({text}, {literal(said)}) AS DATE)" if whole_days else "CAST(NULL AS DATE)"
    if style:
        return f"CAST(try_strptime({text}, {literal(style)}) AS DATE)"
    iso = f"regexp_full_match({text}, '[0-9]{{4}}-[0-9]{{1,2}}-[0-9]{{1,2}}') AND NOT starts_with({text}, '0000')"
    return (
        f"CASE WHEN {iso} THEN TRY_CAST({text} AS DATE) "
        f"WHEN regexp_full_match({text}, '[0-9]{{1,2}}[.][0-9]{{1,2}}[.][0-9]{{4}}') "
        f"THEN CAST(try_strptime({text}, '%d.%m.%Y') AS DATE) END"
    )


def moment(text: str, options: dict[str, Any]) -> str:
    """Days with a time of day; what has a zone is turned to UTC."""
    if said := options.get("date_format"):
        return f"try_strptime({text}, {literal(said)})"
    iso = f"regexp_matches({text}, '^[0-9]{{4}}-[0-9]') AND NOT starts_with({text}, '0000')"
    return f"CASE WHEN {iso} THEN TRY_CAST({text} AS TIMESTAMP) END"


def is_placeholder(text: str) -> str:
    """Whether a text stands for a missing value among numbers or dates; dates of the year 0 are none."""
    listed = ", ".join(map(literal, PLACEHOLDERS))
    return f"(lower({text}) IN ({listed}) OR starts_with({text}, '0000-'))"


def is_infinite(text: str) -> str:
    """Whether a text is an infinite number."""
    return f"(lower({text}) IN ({', '.join(map(literal, INFINITE))}))"


def _whole(padded: bool) -> str:  # noqa: FBT001 - one of two patterns
    return "[0-9]+" if padded else "(?:0|[1-9][0-9]{0,17})"


def _finite(text: str, plain: str, form: str) -> str:
    # 1e999 has the form of a number, and is none that can be reckoned with.
    value = f"TRY_CAST({plain} AS DOUBLE)"
    return f"CASE WHEN regexp_full_match({text}, '{form}') AND isfinite({value}) THEN {value} END"
