"""What one cell of a table may be: empty, a number as people write it, a date, a truth value, a unit, words. Pure."""

from __future__ import annotations

import re

import cell_formats

NUMBER = re.compile(
    r"""[(]?\s*[+\-−]?\s*[$€£¥₹]?\s*
    (?:
        (?:[0-9]{1,3}(?:[,.'’\s\u00a0\u202f_][0-9]{2,3})+|[0-9]+)(?:[.,][0-9]*)?
        | [.,][0-9]+
    )
    (?:[eE][+\-]?[0-9]{1,3})?
    \s*(?:%|‰|€|£|\$|¥|₹|zł|kr|Kč|Ft|[A-Z]{3})?\s*[)]?-?""",
    re.VERBOSE,
)
"""Any way of writing a number; which way a column means is decided by all of its values."""

_INFINITE = frozenset(cell_formats.INFINITE)
_DATE = re.compile(
    r"[0-9]{4}[-/.][0-9]{1,2}[-/.][0-9]{1,2}([T ][0-9:.,+Z-]*)?"
    r"|[0-9]{1,2}[-/.][0-9]{1,2}[-/.]([0-9]{4}|[0-9]{2})([T ][0-9:., APMapm]*)?"
    r"|[0-9]{1,2}:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?"
)
_TRUTH = frozenset({"true", "false", "yes", "no"})
_MISSING = frozenset({"", *cell_formats.PLACEHOLDERS} - {"unknown"})  # which is a name as often as a gap
_UNIT_WORDS = """
% ‰ °c °f c f k degc degf deg ° rad m mm cm km µm um nm in ft mi s sec ms µs us min h hr d day days a yr year hz khz
mhz ghz v mv kv a ma µa w mw kw mwh kwh j kj pa hpa kpa mpa bar mbar psi g kg mg µg ug t l ml µl ul mol mmol ppm ppb ppt
m/s km/h m2 m3 m² m³ l/s n nm ohm ω db lux lx usd eur gbp pcs count counts - yyyy-mm-dd hh:mm:ss utc w/m2 w/m² mg/l µg/l
µg/m3 µg/m³ ug/m3 g/l kg/m3 kg/m³ psu ph ntu s/m µs/cm ms/cm
"""
_UNITS = frozenset(_UNIT_WORDS.split())
_BRACKETED = re.compile(r"[\[(].{1,30}[\])]")


def is_missing(cell: str) -> bool:
    """Whether the cell is empty or one of the usual signs for a value that is missing."""
    text = cell.strip().lower()
    return text in _MISSING or (text.startswith("--") and not text.strip("-"))


def is_number(cell: str) -> bool:
    """Whether the cell is a number, however it is written."""
    text = cell.strip()
    return NUMBER.fullmatch(text) is not None or text.lower() in _INFINITE


def is_typed(cell: str) -> bool:
    """Whether the cell is a number, a date, a time or a truth value: what a column's name rarely is."""
    text = cell.strip()
    return is_number(text) or _DATE.fullmatch(text) is not None or text.lower() in _TRUTH


def is_unit(cell: str) -> bool:
    """Whether the cell names a unit, as the second line of many measured tables does."""
    text = cell.strip()
    return text.lower() in _UNITS or _BRACKETED.fullmatch(text) is not None
