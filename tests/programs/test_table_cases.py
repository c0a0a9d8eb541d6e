"""Tables as people send them, by the reader of csv_analysis and ml: what each comes to, or why it is refused."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import table_reads
import zstandard

FOLDER = Path(__file__).parent / "tables"

Expected = tuple[int, Mapping[str, tuple[str, object, object]], str]
"""Rows; for each column its type, least and greatest (of words: the commonest values, sorted); words of a note."""

CASES: dict[str, Expected] = {
    "c01_sep_line.csv": (3, {"station": ("text", "Nord", None), "depth": ("integer", 3, 8)}, "delimiter is semicolon"),
    "c02b_preamble.csv": (
        3,
        {
            "date": ("date", "2026-01-02", "2026-01-09"),
            "text": ("text", "food", None),
            "amount": ("number", -700, 2100.5),
        },
        "begins in line 4",
    ),
    "c05_years_header.csv": (
        3,
        {
            "country": ("text", "Chad", None),
            "2019": ("number", 11.3, 230.3),
            "2020": ("number", 10.7, 201.9),
            "2021": ("number", 11.8, 223.7),
        },
        "names in line 1",
    ),
    "c06_thousands.csv": (
        3,
        {"item": ("text", "bike", None), "price": ("number", 0.9, 23990)},
        "commas part thousands",
    ),
    "c07_european.csv": (3, {"ort": ("text", "Bonn", None), "wert": ("number", 1.5, 1003.75)}, "decimal comma"),
    "c11_dup_names.csv": (
        3,
        {"id": ("integer", 1, 3), "score": ("integer", 10, 50), "score_2": ("integer", 20, 60)},
        "has the name of another",
    ),
    "c14d_year0.csv": (2, {"d": ("date", "2026-01-31", "2026-01-31"), "n": ("integer", 1, 2)}, "'0000-01-01' 1 times"),
    "c17b_mixed_eol.csv": (3, {"a": ("integer", 1, 5), "b": ("integer", 2, 6)}, ""),
    "c19_backslash_quote.csv": (
        2,
        {"id": ("integer", 1, 2), "said": ("text", 'he said "no", twice', None), "n": ("integer", 3, 4)},
        "",
    ),
    "c25_comment.csv": (2, {"id": ("integer", 1, 2), "h": ("number", 2.5, 3.5)}, "names in line 3"),
    "c30_inf.csv": (4, {"x": ("number", 1.5, 2.5), "y": ("integer", 1, 4)}, "2 values are infinite"),
    "c31_repeat_header.csv": (3, {"id": ("integer", 1, 3), "v": ("number", 2.5, 4.5)}, "1 more times"),
    "c36b_cp1252_es.csv": (
        2,
        {"año": ("integer", 2020, 2021), "país": ("text", "España", None), "niños": ("integer", 3, 4)},
        "cp1252",
    ),
    "c36g_cp1250_pl.csv": (3, {"imię": ("text", "Małgorzata", None), "miasto": ("text", "Gdańsk", None)}, "cp1250"),
}

PLAIN = b"a,b\n1,2\n3,4\n"
TWO = {"a": ("integer", 1, 3), "b": ("integer", 2, 4)}


def zipped(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("inside.csv", content)
    return packed.getvalue()


WRITTEN: dict[str, tuple[bytes, Expected]] = {
    "padded.csv": (
        b"Report,,,\nDate,2026-01-01,,\n,,,\nid,name,x,y\n1,Ann,2.5,3\n2,Bob,3.5,4\n",
        (
            2,
            {"id": ("integer", 1, 2), "name": ("text", "Ann", None), "x": ("number", 2.5, 3.5), "y": ("integer", 3, 4)},
            "line 4",
        ),
    ),
    "units.csv": (
        b"time,temp\ns,degC\n0,1.5\n1,2.5\n",
        (2, {"time": ("integer", 0, 1), "temp": ("number", 1.5, 2.5)}, "units"),
    ),
    "pairs.csv": (
        b"Station,Nord\nOperator,Smith\n\ntime,value,flag\n1,2.5,a\n2,3.5,b\n",
        (2, {"time": ("integer", 1, 2), "value": ("number", 2.5, 3.5), "flag": ("text", "a", None)}, "line 4"),
    ),
    "footer.csv": (b"a,b\n1,2\n3,4\n\nSource: ONS\n", (2, TWO, "Source: ONS")),
    "index.csv": (
        b",0,1\n0,0.5,0.7\n1,0.6,0.8\n",
        (2, {"column_1": ("integer", 0, 1), "0": ("number", 0.5, 0.6), "1": ("number", 0.7, 0.8)}, "names in line 1"),
    ),
    "headerless.csv": (
        b"Ann,1,2\nBob,4,5\n",
        (
            2,
            {"column_1": ("text", "Ann", None), "column_2": ("integer", 1, 4), "column_3": ("integer", 2, 5)},
            "no row of names",
        ),
    ),
    "unclear.csv": (
        b"x;y\n1,234;a\n2,345;b\n",
        (2, {"x": ("text", "1,234", None), "y": ("text", "a", None)}, "options.decimal says which"),
    ),
    "commas.csv": (
        b"x;y\n1.234;1,5\n2.345;2,25\n",
        (2, {"x": ("number", 1234, 2345), "y": ("number", 1.5, 2.25)}, "points part thousands"),
    ),
    "signs.csv": (
        b"p;a;m\n45 %;(12);$5.00\n50 %;13;$6.50\n",
        (
            2,
            {"p": ("number", 45, 50), "a": ("number", -12, 13), "m": ("number", 5, 6.5)},
            "in parentheses are negative",
        ),
    ),
    "blanks.csv": (
        b'id, name, v\n1, "a, b", 2.5\n2, "c", 3\n',
        (2, {"id": ("integer", 1, 2), "name": ("text", "a, b", None), "v": ("number", 2.5, 3)}, ""),
    ),
    "hash.csv": (b"tag,n\n#a,1\n#b,2\n", (2, {"tag": ("text", "#a", None), "n": ("integer", 1, 2)}, "")),
    "days.csv": (
        b"d,n\n01/02/2026,1\n25/02/2026,2\n",
        (2, {"d": ("date", "2026-02-01", "2026-02-25"), "n": ("integer", 1, 2)}, "%d/%m/%Y"),
    ),
    "gaps.csv": (
        b"x,y\n1.5,a\n-,b\nn/a,c\n3,d\n",
        (4, {"x": ("number", 1.5, 3), "y": ("text", "a", None)}, "'-' 1 times"),
    ),
    "wide.csv": ("a,b\n1,2\n3,4\n".encode("utf-16-le"), (2, TWO, "utf-16-le")),
    "moscow.csv": (
        "город,n\nМосква,1\n".encode("cp1251"),
        (1, {"город": ("text", "Москва", None), "n": ("integer", 1, 1)}, ""),
    ),
    "seoul.csv": (
        "도시,n\n서울,1\n부산,2\n".encode("cp949"),
        (2, {"도시": ("text", "부산", None), "n": ("integer", 1, 2)}, ""),
    ),
    "a.csv.gz": (gzip.compress(PLAIN, mtime=0), (2, TWO, "")),
    "a.csv.zst": (zstandard.compress(PLAIN), (2, TWO, "")),
    "a.csv.xz": (lzma.compress(PLAIN), (2, TWO, "")),
    "a.zip": (zipped(PLAIN), (2, TWO, "")),
    "a.jsonl": (
        b'{"a":1,"code":"12","deep":[1]}\n{"a":3,"code":"13"}\n',
        (2, {"a": ("integer", 1, 3), "code": ("text", "12", None), "deep": ("text", "[1]", None)}, "kept as JSON text"),
    ),
    "a.json": (json.dumps([{"a": 1, "b": 2}, {"a": 3, "b": 4}]).encode(), (2, TWO, "")),
}

REFUSED: dict[str, tuple[bytes, str]] = {
    "width.csv": (
        b"a,b\n" + b"".join(b"%d,%d\n" % (at, at) for at in range(300)) + b"1,2,3\n" * 700,
        "of 1,000 rows of width.csv do not fit",
    ),
    "page.csv": (b"<html><table><tr><td>1</td></tr></table></html>", "is a web page"),
    "long.csv": (b"a,b,c,d\n1,2,3\n4,5,6\n", "2 of 2 rows of long.csv do not fit"),
    "open.csv": (b'a,b\n1,"2\n3,4\n', "the quote that is opened in line 2 is never closed"),
}


def brief(read: table_reads.Read, at: int) -> tuple[str, object, object]:
    values = [row[at] for row in read.rows if row[at] is not None]
    if read.types[at] == "text":
        return "text", min(values, default=None), None
    return read.types[at], min(values, default=None), max(values, default=None)


@pytest.fixture(scope="module")
def reads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, table_reads.Read]:
    files = {name: (FOLDER / name).read_bytes() for name in CASES}
    files |= {name: content for name, (content, _) in (WRITTEN | REFUSED).items()}
    tables: list[tuple[str, bytes, Mapping[str, object]]] = [(name, content, {}) for name, content in files.items()]
    return dict(zip(files, table_reads.read(tmp_path_factory.mktemp("cases") / "w", tables), strict=True))


@pytest.mark.parametrize("name", [*CASES, *WRITTEN])
def test_a_table_is_read_as_a_person_reads_it(name: str, reads: dict[str, table_reads.Read]) -> None:
    rows, columns, note = CASES[name] if name in CASES else WRITTEN[name][1]
    read = reads[name]
    assert not read.refused
    assert {column: brief(read, at) for at, column in enumerate(read.names)} == dict(columns)
    assert len(read.rows) == rows
    assert note in read.notes


@pytest.mark.parametrize("name", REFUSED)
def test_a_table_that_is_lost_is_refused(name: str, reads: dict[str, table_reads.Read]) -> None:
    assert REFUSED[name][1] in reads[name].refused


def test_options_say_where_the_table_is(tmp_path: Path) -> None:
    said: list[tuple[bytes, dict[str, object]]] = [
        (b"x,y\nz,w\na,b\n1,2\n3,4\n", {"header_row": 3}),
        (b"x,y\nz,w\na,b\n1,2\n3,4\n", {"skip": 2}),
        (b"; note\na,b\n1,2\n; 5\n3,4\n", {"comment": ";", "delimiter": ","}),
        (b"a!b\n1!2\n3!4\n", {"delimiter": "!"}),
        (b"a;b\n1.000;2\n3.000;4\n", {"thousands": "."}),
        ("a,b\n1,2\n3,4\né,\n".encode("cp437"), {"encoding": "cp437", "types": {"a": "integer"}}),
    ]
    reads = table_reads.read(tmp_path / "w", [("t.csv", table, options) for table, options in said])
    for read, (_, options) in zip(reads, said, strict=True):
        assert not read.refused, options
        columns = {name: max(row[at] for row in read.rows if row[at] is not None) for at, name in enumerate(read.names)}
        assert columns == {"a": 3000 if "thousands" in options else 3, "b": 4}, options
