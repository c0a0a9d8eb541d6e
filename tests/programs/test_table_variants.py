"""Variants of what costs a table its names, its rows or its numbers, each with what the reader makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import table_reads

Variant = tuple[str | bytes, list[str], Sequence[Sequence[object]], str]
"""The file, the names of its columns, its rows, words of a note."""

READ: Mapping[str, Variant] = {
    # Names or data
    "years above years": (
        "country,2019,2020\nChad,1130,1070\nMali,2030,2019\n",
        ["country", "2019", "2020"],
        [["Chad", 1130, 1070], ["Mali", 2030, 2019]],
        "",
    ),
    "years alone": ("2019,2020\n11.3,10\n1,2\n", ["2019", "2020"], [[11.3, 10], [1.0, 2]], ""),
    "names of rows": (
        '"mpg","cyl"\n"Mazda",21.5,6\n"Datsun",22,4\n',
        ["row", "mpg", "cyl"],
        [["Mazda", 21.5, 6], ["Datsun", 22.0, 4]],
        "as R writes it",
    ),
    "a word in the first row": (
        "name,v\nAnn,pending\nBob,3\nCem,4\n",
        ["name", "v"],
        [["Ann", "pending"], ["Bob", "3"], ["Cem", "4"]],
        "",
    ),
    "a gap in the first row": (
        "x,k\n#DIV/0!,a\n1.5,b\n2,c\n",
        ["x", "k"],
        [[None, "a"], [1.5, "b"], [2.0, "c"]],
        "'#DIV/0!' 1 times",
    ),
    "two columns of pairs above": (
        "Version,2\nRows,3\nid,value\n1,2\n3,4\n5,6\n",
        ["id", "value"],
        [[1, 2], [3, 4], [5, 6]],
        "line 3",
    ),
    "the header again, in capitals": ("id,v\n1,2.5\nID, V\n2,3.5\n", ["id", "v"], [[1, 2.5], [2, 3.5]], "1 more times"),
    "the header again, with a mark": (
        b"\xef\xbb\xbfa,b\n1,2\n\xef\xbb\xbfa,b\n3,4\n",
        ["a", "b"],
        [[1, 2], [3, 4]],
        "1 more times",
    ),
    "the header again, far below": (
        "id,v\n" + "1,2.5\n" * 3000 + "id,v\n7,8\n",
        ["id", "v"],
        [[1, 2.5]] * 3000 + [[7, 8.0]],
        "1 more times",
    ),
    "names missing above words": (
        "id;;last\nnorth;true;east\nnorth;false;west\n",
        ["id", "column_2", "last"],
        [["north", True, "east"], ["north", False, "west"]],
        "",
    ),
    "a delimiter too many in the header": ("a,b,\n1,2\n3,4\n", ["a", "b"], [[1, 2], [3, 4]], ""),
    "a line below the names": (
        "|a|b|\n|--|--|\n|1|2|\n",
        ["column_1", "a", "b", "column_4"],
        [[None] * 4, [None, 1, 2, None]],
        "'--' 1 times",
    ),
    # Cells
    "an escaped quote": ('id,t\n1,"she said \\"hi\\""\n2,x\n', ["id", "t"], [[1, 'she said "hi"'], [2, "x"]], ""),
    "an escaped delimiter": ("id,t,n\n1,a\\,b,3\n2,x,4\n", ["id", "t", "n"], [[1, "a,b", 3], [2, "x", 4]], ""),
    "paths": ('id,p,n\n1,"C:\\dir\\",3\n2,"D:\\",4\n', ["id", "p", "n"], [[1, "C:\\dir\\", 3], [2, "D:\\", 4]], ""),
    "paths beside escapes": (
        'id,t\n1,"C:\\temp"\n2,"a \\"b\\" c"\n',
        ["id", "t"],
        [[1, "C:\\temp"], [2, 'a "b" c']],
        "",
    ),
    "a missing value of MySQL": ("id,t,n\n1,\\N,3\n2,x,\\N\n", ["id", "t", "n"], [[1, None, 3], [2, "x", None]], ""),
    "a return in a cell": (
        b'a,b\n"x\ry",1\n\n"z, w",2\nid,3,\n',
        ["a", "b"],
        [["x\ry", 1], ["z, w", 2], ["id", 3]],
        "",
    ),
    "tildes": ("a~b\n1~2\n3~4\n", ["a", "b"], [[1, 2], [3, 4]], "delimiter ~"),
    # Numbers
    "infinite": (
        "x,k\n∞,a\n1.5,b\n1e999,c\n-inf,d\n",
        ["x", "k"],
        [[None, "a"], [1.5, "b"], [None, "c"], [None, "d"]],
        "3 values are infinite",
    ),
    "no number": (
        "x,k\n1.#IND,a\n1.5,b\n-nan,c\n",
        ["x", "k"],
        [[None, "a"], [1.5, "b"], [None, "c"]],
        "'1.#IND' 1 times",
    ),
    "blanks part thousands": (
        "x;k\n1 234,5;a\n12 000;b\n",
        ["x", "k"],
        [[1234.5, "a"], [12000.0, "b"]],
        "blanks part thousands",
    ),
    "reals": ("x;k\nR$ 12,50;a\nR$ 1.300,00;b\n", ["x", "k"], [[12.5, "a"], [1300.0, "b"]], "'R$'"),
    "points that may part thousands": (
        "x;k\n1.234;a\n2.345;b\n",
        ["x", "k"],
        [[1.234, "a"], [2.345, "b"]],
        "options.thousands",
    ),
    "percent and none": ("x,k\n45 %,a\n50,b\n", ["x", "k"], [["45 %", "a"], ["50", "b"]], "different signs"),
    # Dates
    "years of two digits": ("d,k\n31.1.26,a\n1.2.26,b\n", ["d", "k"], [["31.1.26", "a"], ["1.2.26", "b"]], ""),
    "versions": ("d,k\n1.2.3,a\n2.3.4,b\n", ["d", "k"], [["1.2.3", "a"], ["2.3.4", "b"]], ""),
    "zones": (
        "d,k\n2026-01-31T10:00:00+02:00,a\n2026-02-01 11:30:00-0500,b\n2026-02-02 00:00:00Z,c\n2026-02-03,d\n",
        ["d", "k"],
        [
            ["2026-01-31 08:00:00", "a"],
            ["2026-02-01 16:30:00", "b"],
            ["2026-02-02 00:00:00", "c"],
            ["2026-02-03 00:00:00", "d"],
        ],
        "3 times have a zone, and are turned to UTC; the other 1 have none",
    ),
    "zones by name": ("d,k\n2026-01-31 10:00:00 CET,a\n", ["d", "k"], [["2026-01-31 10:00:00 CET", "a"]], ""),
    "months in words": (
        "d,k\n31-Jan-2026,a\n1-May-2026,b\n",
        ["d", "k"],
        [["2026-01-31", "a"], ["2026-05-01", "b"]],
        "%d-%b-%Y",
    ),
    "times of day and month": (
        "d,k\n1/31/2026 10:00 AM,a\n2/1/2026 11:30 PM,b\n",
        ["d", "k"],
        [["2026-01-31 10:00:00", "a"], ["2026-02-01 23:30:00", "b"]],
        "%m/%d/%Y",
    ),
    # Encodings
    "signs without letters": ("id,v\n1,±3\n2,5\n".encode("cp1252"), ["id", "v"], [[1, "±3"], [2, "5"]], "cp1252"),
    "too few letters to be sure": (
        "id,v\n1,ñoño\n2,x\n".encode("cp1252"),
        ["id", "v"],
        [[1, None], [2, "x"]],
        "is a guess",
    ),
}

REFUSED: Mapping[str, tuple[str, dict[str, object], str]] = {
    "a page behind a remark": ("<!-- saved -->\n<table><tr><td>1</td></tr></table>", {}, "is a web page"),
    "a page by its style": ("<style>td{color:red}</style>\n<table>\n<tr><td>1</td></tr></table>", {}, "is a web page"),
    "no two rows alike": ("id,name,age\n1101,John\n1102,Julie,26,Potatoes\n", {}, "1 of 2 rows of t.csv do not fit"),
    "two tables": ("a,b\n1,2\n3,4\n\nc,d,e\n5,6,7\n8,9,10\n", {}, "holds two tables: values stand in line 2"),
    "days or months": ("d,k\n01/02/2026,a\n02/01/2026,b\n", {"types": {"d": "date"}}, "options.date_format says which"),
    "decimals or thousands": ("x;k\n1,234;a\n2,345;b\n", {"types": {"x": "number"}}, "options.decimal says which"),
}


@pytest.fixture(scope="module")
def reads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, table_reads.Read]:
    tables: list[tuple[str, bytes, Mapping[str, object]]] = [
        ("t.csv", table.encode() if isinstance(table, str) else table, {}) for table, *_ in READ.values()
    ]
    tables += [("t.csv", table.encode(), options) for table, options, _ in REFUSED.values()]
    answers = table_reads.read(tmp_path_factory.mktemp("variants") / "w", tables)
    return dict(zip([*READ, *REFUSED], answers, strict=True))


@pytest.mark.parametrize("name", READ)
def test_it_is_read(name: str, reads: dict[str, table_reads.Read]) -> None:
    _, names, rows, note = READ[name]
    read = reads[name]
    assert not read.refused
    assert read.names == names
    assert note == "is a guess" or read.rows == rows
    assert note in read.notes


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused(name: str, reads: dict[str, table_reads.Read]) -> None:
    assert REFUSED[name][2] in reads[name].refused


def test_types_that_the_task_says(tmp_path: Path) -> None:
    table = b'x,y,z\n"1,234",1,(5)\n"2,345",t,(6)\n'
    types = {"x": "integer", "y": "boolean", "z": "number"}
    (read,) = table_reads.read(tmp_path / "w", [("t.csv", table, {"types": types})])
    assert read.rows == [[1234, True, -5.0], [2345, True, -6.0]]
