"""Random tables in random dialects and encodings, written and read back: equal, refused, or a guess that says so."""

from __future__ import annotations

import csv
import datetime as dt
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import hypothesis
import pytest
import table_reads
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("HIVEMIND_TEST_EXAMPLES", "12"))

WORDS = {
    "utf-8": "Łódź España 東京 naïve",
    "utf-8-sig": "Łódź España 東京 naïve",
    "utf-16": "Łódź España 東京 naïve",
    "utf-16-le": "plain words only",
    "cp1252": "España niño señor mañana compañía",
    "cp1250": "Łódź Gdańsk Poznań Małgorzata święta",
    "cp1251": "Москва Казань город значение Самара",
    "ascii": "north south east west",
}


@dataclass(frozen=True)
class Written:
    """A table: its values, and how the file has them."""

    names: list[str]
    rows: list[list[Any]]
    content: bytes


def number(value: float, decimal: str, thousands: str) -> str:
    return f"{value:,.2f}".translate({ord(","): thousands, ord("."): decimal})


@st.composite
def tables(draw: st.DrawFn) -> Written:
    encoding = draw(st.sampled_from(sorted(WORDS)))
    delimiter = draw(st.sampled_from(",;\t|"))
    decimal = draw(st.sampled_from(".," if delimiter != "," else "."))
    thousands = draw(st.sampled_from(["", "", " ", "'", "." if decimal == "," else ","]))
    day = draw(st.sampled_from(["%Y-%m-%d", "%d.%m.%Y", "%Y/%m/%d", "%d %b %Y", "%d/%m/%Y"]))
    special = draw(st.sampled_from(["", "\n", '"', delimiter, "'", "\\", "  inner  ", "#"]))
    words = WORDS[encoding].split()
    text = st.one_of(st.sampled_from(words), st.sampled_from(words).map(lambda word: f"{word}{special}{word}"))
    makers = {
        "text": text,
        "number": st.floats(-1e7, 1e7, allow_nan=False).map(lambda value: round(value, 2) + 0.0),
        "integer": st.integers(-(10**9), 10**9),
        "date": st.dates(dt.date(1900, 1, 1), dt.date(2100, 1, 1)),
        "boolean": st.booleans(),
    }
    kinds = draw(
        st.lists(st.sampled_from(sorted(makers)), min_size=2, max_size=5).filter(lambda kinds: set(kinds) != {"text"})
    )
    rows = draw(
        st.lists(
            st.tuples(*(st.one_of(st.none(), makers[kind]) if at else makers[kind] for at, kind in enumerate(kinds))),
            min_size=3,
            max_size=12,
        )
    )
    style = draw(st.sampled_from(["words", "years", "blank", "double"]))
    names = {
        "words": [f"{words[at % len(words)]} {at}" for at in range(len(kinds))],
        "years": ["place", *(str(2019 + at) for at in range(len(kinds) - 1))],
        "blank": ["id", *("" for _ in kinds[2:]), "last"],
        "double": ["id", *("v" for _ in kinds[1:])],
    }[style]

    def cell(value: object) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, float):
            return number(value, decimal, thousands)
        return value.strftime(day) if isinstance(value, dt.date) else "" if value is None else str(value)

    lines = draw(st.sampled_from(["\n", "\r\n"]))
    out = io.StringIO(newline="")
    out.write(draw(st.sampled_from(["", "", f"sep={delimiter}{lines}", f"# made up{lines}", f"A title{lines}{lines}"])))
    quote_all = draw(st.booleans())
    writer = csv.writer(
        out, delimiter=delimiter, lineterminator=lines, quoting=csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL
    )
    writer.writerows([names, *([cell(value) for value in row] for row in rows)])
    return Written(names, [list(row) for row in rows], out.getvalue().encode(encoding))


def same(value: object, found: object) -> bool:
    """Whether a value came back, as itself or as the text that stood in the file."""
    if value is None or found is None:
        return value is found
    if isinstance(value, float) and isinstance(found, int | float) and not isinstance(found, bool):
        return value == found
    return str(value).strip() == str(found).strip() if not isinstance(value, bool) else value is found


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[table_reads.Reader]:
    with table_reads.Reader(tmp_path_factory.mktemp("round_trips")) as reader:
        yield reader


@hypothesis.settings(max_examples=EXAMPLES, deadline=None)
@pytest.mark.timeout(600)  # a thousand tables in `make test-long`
@hypothesis.given(table=tables())
def test_what_is_written_is_read(reader: table_reads.Reader, table: Written) -> None:
    read = reader.read("t.csv", table.content, {})
    if read.refused:
        return
    hypothesis.note(read.notes)
    hypothesis.note(table.content.decode("utf-8", "replace"))
    if "is a guess" in read.notes:
        return
    assert len(read.rows) + read.rejected == len(table.rows)
    assert len(read.names) == len(table.names)
    for at, type_ in enumerate(read.types):
        written, found = ([row[at] for row in rows] for rows in (table.rows, read.rows))
        if type_ != "text" or all(isinstance(value, str | None) for value in written):
            assert all(map(same, written, found)), (at, type_, written, found)
