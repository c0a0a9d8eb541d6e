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
    *("-nan", "+nan", "1.#qnan", "-1.#ind", "1.#ind", "-1.#ind00", "#n/a n/a"),
)
"""What stands for a missing value among numbers or dates, in small letters; among words it is a word."""

INFINITE = (
    *("inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"),
    *("∞", "+∞", "-∞", "1.#inf", "-1.#inf", "1.#inf00", "-1.#inf00"),
)
"""Numbers that cannot be reckoned with, in small letters."""

SQL_TYPES = {
    "integer": "BIGINT",
    "number": "DOUBLE",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
    "text": "VARCHAR",
}

DATE_FORMATS = (
    *("%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%d.%m.%Y", "%Y.%m.%d"),
    *("%d %b %Y", "%d-%b-%Y", "%b %d %Y", "%b %d, %Y"),
)
"""Ways to write a date besides ISO's; that of day and month is told only where the values settle it."""

_DATE_PARTS = {"%d": "[0-9]{1,2}", "%m": "[0-9]{1,2}", "%Y": "[0-9]{4}", "%b": "[A-Za-z]{3,9}"}
_TIMES = ("%H:%M", "%H:%M:%S", "%I:%M %p", "%I:%M:%S %p")
_TIME = "[0-9]{1,2}:[0-9]{2}(:[0-9]{2})?( [AaPp][Mm])?"
_ISO_DAY = "[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}"
_ISO_TIME = "[T ][0-9]{1,2}:[0-9]{2}(:[0-9]{2}([.,][0-9]{1,9})?)?"
_ZONE = " ?([Zz]|UTC|GMT|[+-](0[0-9]|1[0-4])(:?[0-5][0-9])?)"

CURRENCY = (
    r"(?:US|CA|A|C|R|NZ|HK|S)?[$]|\p{Sc}|USD|EUR|GBP|CHF|JPY|CNY|RMB|INR|TWD|KRW|SGD|HKD|AUD|NZD|CAD|MXN|BRL|ZAR|"
    r"SEK|NOK|DKK|ISK|PLN|CZK|HUF|RON|BGN|TRY|RUB|UAH|ILS|kr[.]?|zł|Kč|Ft"
)
"""Signs and codes of currencies, as a pattern."""

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
    sign, gap, money = "[+−-]?", f"[{_SPACES}]*", f"(?:{CURRENCY})?"
    signed = f"{sign}{gap}{money}{gap}{sign}{body}{gap}(?:{CURRENCY}|%|‰)?-?"
    form = f"(?:{signed}|[(]{gap}{money}{gap}{body}{gap}(?:{CURRENCY}|%)?[)])"
    digits = f"regexp_replace(regexp_replace({text}, '{CURRENCY}', '', 'g'), '[^0-9eE{decimal}+-]', '', 'g')"
    plain = f"replace({digits}, ',', '.')" if decimal == "," else digits
    # The sign is put in front: it may stand there, behind a currency, behind the number, or be parentheses.
    negative = f"regexp_matches({text}, '^[^0-9]*[−(-]|-$')"
    unsigned = f"regexp_replace(regexp_replace({plain}, '^[+-]+', ''), '[+-]+$', '')"
    value = f"(CASE WHEN {negative} THEN '-' ELSE '' END || {unsigned})"
    return _finite(text, value, form.replace("'", "''"))


def is_ambiguous(text: str) -> str:
    """Whether a text is one number with a decimal comma and another with commas between thousands."""
    return f"regexp_full_match({text}, '[^0-9]*[1-9][0-9]{{0,2}}[.,][0-9]{{3}}[^0-9]*')"


def whole_number(text: str, style: str, *, thousands: str | None = None) -> str:
    """A number without a fraction, in one of NUMBERS, as the task says it is one."""
    value = number(text, style, padded=True, thousands=thousands)
    return f"CASE WHEN abs({value}) < 9e15 AND {value} = floor({value}) THEN CAST({value} AS BIGINT) END"


def boolean(text: str, *, declared: bool = False) -> str:
    """Truth values in words; digits and single letters only where the task says that they are truth values."""
    true, false = ("'true', 'yes'", "'false', 'no'")
    if declared:
        true, false = f"{true}, '1', 't', 'y'", f"{false}, '0', 'f', 'n'"
    return f"CASE WHEN lower({text}) IN ({true}) THEN true WHEN lower({text}) IN ({false}) THEN false END"


def date(text: str, options: dict[str, Any], style: str = "") -> str:
    """Whole days, from the year 1 on."""
    if date_format := options.get("date_format"):
        whole_days = not any(code in date_format for code in ("%H", "%I", "%M", "%S", "%p", "%X", "%c", "%s"))
        return f"CAST(try_strptime({text}, {literal(date_format)}) AS DATE)" if whole_days else "CAST(NULL AS DATE)"
    if style:
        formats = ", ".join(map(literal, _spellings(style)))
        fits = f"regexp_full_match({text}, '{_date_form(style)}')"
        return f"CASE WHEN {fits} THEN CAST(try_strptime({text}, [{formats}]) AS DATE) END"
    iso = f"regexp_full_match({text}, '{_ISO_DAY}') AND NOT starts_with({text}, '0000')"
    return (
        f"CASE WHEN {iso} THEN TRY_CAST({text} AS DATE) "
        f"WHEN regexp_full_match({text}, '[0-9]{{1,2}}[.][0-9]{{1,2}}[.][0-9]{{4}}') "
        f"THEN CAST(try_strptime({text}, '%d.%m.%Y') AS DATE) END"
    )


def moment(text: str, options: dict[str, Any], style: str = "") -> str:
    """Days with a time of day; what has a zone is turned to UTC."""
    if date_format := options.get("date_format"):
        return f"try_strptime({text}, {literal(date_format)})"
    if style:
        dates = _spellings(style)
        formats = ", ".join(literal(f"{date}{time}") for date in dates for time in ("", *(f" {one}" for one in _TIMES)))
        fits = f"regexp_full_match({text}, '{_date_form(style)}( {_TIME})?')"
        return f"CASE WHEN {fits} THEN try_strptime({text}, [{formats}]) END"
    # The cast to TIMESTAMP reads a zone and forgets it.
    plain = f"replace({text}, ',', '.')"
    return (
        f"CASE WHEN starts_with({text}, '0000') THEN NULL "
        f"WHEN regexp_full_match({text}, '{_ISO_DAY}({_ISO_TIME})?') THEN TRY_CAST({plain} AS TIMESTAMP) "
        f"WHEN {has_zone(text)} THEN TRY_CAST({plain} AS TIMESTAMPTZ) AT TIME ZONE 'UTC' END"
    )


def has_digit(text: str) -> str:
    """Whether a text has a digit, as every number and every date has."""
    return f"regexp_matches({text}, '[0-9]')"


def may_be_date(text: str) -> str:
    """Whether a text has what each of `date` and `moment` has, whatever the style: a year of four digits and a mark."""
    return f"regexp_matches({text}, '[0-9]{{4}}[-/.][0-9]|[-/. ][0-9]{{4}}')"


def has_zone(text: str) -> str:
    """Whether a text is a time with a zone, as ISO writes it."""
    return f"regexp_full_match({text}, '{_ISO_DAY}{_ISO_TIME}{_ZONE}')"


def _date_form(style: str) -> str:
    form = style.replace(".", "[.]")
    for code, pattern in _DATE_PARTS.items():
        form = form.replace(code, pattern)
    return form


def _spellings(style: str) -> list[str]:
    """The style with short names of months, and with long ones."""
    return [style, style.replace("%b", "%B")] if "%b" in style else [style]


def is_placeholder(text: str) -> str:
    """Whether a text stands for a missing value among numbers or dates; dates of the year 0 are none."""
    listed = ", ".join(map(literal, PLACEHOLDERS))
    return f"(lower({text}) IN ({listed}) OR starts_with({text}, '0000-'))"


def is_infinite(text: str) -> str:
    """Whether a text is an infinite number, in words or by its exponent."""
    large = f"regexp_full_match({text}, '[+-]?[0-9]+([.][0-9]*)?[eE][+]?[0-9]{{3}}')"
    words = f"lower({text}) IN ({', '.join(map(literal, INFINITE))})"
    return f"({words} OR ({large} AND isinf(TRY_CAST({text} AS DOUBLE))))"


def _whole(padded: bool) -> str:  # noqa: FBT001  (called by this file alone: one of two patterns)
    return "[0-9]+" if padded else "(?:0|[1-9][0-9]{0,17})"


def _finite(text: str, plain: str, form: str) -> str:
    # 1e999 has the form of a number, and is none that can be reckoned with.
    value = f"TRY_CAST({plain} AS DOUBLE)"
    return f"CASE WHEN regexp_full_match({text}, '{form}') AND isfinite({value}) THEN {value} END"
