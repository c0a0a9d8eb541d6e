"""Notes on tables whose values all have types, and of which a sum or an identity would be wrong without a word."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import table_reads

TABLES: Mapping[str, tuple[str, str]] = {
    "a total": ("shop,amount\nA,10\nB,20\nTotal,30\n", "1 rows look like totals"),
    "subtotals": ("g,v\nA,1\nSub-Total:,1\nB,4\nSubtotal,4\n", "2 rows look like totals"),
    "a German sum": ("Ort;Wert\nA;1,5\nB;2,5\nSumme;4,0\n", "1 rows look like totals"),
    "a Japanese sum": ("店,n\n東京,1\n大阪,2\n合計,3\n", "1 rows look like totals"),
    "a total below keys": ("id,v\n1,10\n2,20\nTotal,30\n", "1 rows look like totals"),
    "a word in a short column": ("id,v\n1,10\n2,20\n3,(pending)\n", "nearly all are numbers: 1 of 3 values are not"),
    "a second row of names": ("id,name,v\nint,str,float\n1,a,2.5\n2,b,3.5\n", "1 of 3 values are not"),
    "long numbers, grouped": ('x,k\n"9,007,199,254,740,993",a\n"1,000",b\n', "1 numbers reach"),
    "long numbers, with a sign": ("x,k\n$9007199254740993,a\n$1,b\n", "1 numbers reach"),
    "long numbers beside fractions": ("x,k\n9007199254740993,a\n1.5,b\n", "1 numbers reach"),
    "telephone numbers": ("n,p\nA,+886912345678\nB,+4915112345678\n", "telephone numbers: they stay text"),
    "telephone numbers in groups": ("n,p\nA,+886 912 345 678\nB,+49 151 123 456\n", "telephone numbers: they stay"),
    "nanoseconds": ("t,k\n2026-01-01 10:00:00.123456789,a\n2026-01-01 10:00:00.5,b\n", "1 times are finer"),
}

PLAIN = {
    "categories": "k,v\nA,1.5\ntotally,2\n",
    "differences": "k,v\nA,+12345678\nB,-12345678\n",
    "no numbers": "k,v\nA,x\nTotal,y\n",
    "long whole numbers": "k,v\nA,9007199254740993\nB,1\n",
    "exponents": "k,v\nA,1.234567890123e300\nB,1.5\n",
    "long fractions": "k,v\nA,0.12345678901234567\nB,1.5\n",
    "microseconds": "k,v\nA,2026-01-01 10:00:00.123456000\nB,2026-01-01 10:00:00\n",
}


@pytest.fixture(scope="module")
def reads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, table_reads.Read]:
    texts = [*(table for table, _ in TABLES.values()), *PLAIN.values()]
    tables: list[tuple[str, bytes, Mapping[str, object]]] = [("t.csv", text.encode(), {}) for text in texts]
    return dict(zip([*TABLES, *PLAIN], table_reads.read(tmp_path_factory.mktemp("notes") / "w", tables), strict=True))


@pytest.mark.parametrize("name", TABLES)
def test_what_a_user_must_check_has_a_note(name: str, reads: dict[str, table_reads.Read]) -> None:
    assert TABLES[name][1] in reads[name].notes


def test_telephone_numbers_lose_no_character(reads: dict[str, table_reads.Read]) -> None:
    assert reads["telephone numbers"].rows == [["A", "+886912345678"], ["B", "+4915112345678"]]


@pytest.mark.parametrize("name", PLAIN)
def test_ordinary_values_have_no_note(name: str, reads: dict[str, table_reads.Read]) -> None:
    assert not reads[name].refused
    assert "column" not in reads[name].notes


def test_an_offset_that_no_zone_has_makes_no_time(tmp_path: Path) -> None:
    table = b"t,k\n2026-01-01T10:00:00+25:00,a\n2026-01-02T10:00:00+00:00,b\n"
    (read,) = table_reads.read(tmp_path / "w", [("t.csv", table, {})])
    assert read.types == ["text", "text"]


def test_short_japanese_is_read_or_called_a_guess(tmp_path: Path) -> None:
    names = "名前,都市,値\n田中太郎,東京,1\n鈴木花子,大阪,2\n"
    encodings = ("iso2022_jp", "shift_jis", "euc_jp")
    reads = table_reads.read(tmp_path / "w", [("t.csv", names.encode(encoding), {}) for encoding in encodings])
    mail, shift, extended = reads
    assert mail.rows == [["田中太郎", "東京", 1], ["鈴木花子", "大阪", 2]]
    assert mail.names == ["名前", "都市", "値"]
    assert (shift.rows, shift.names) == (mail.rows, mail.names)
    assert "is a guess" in extended.notes
