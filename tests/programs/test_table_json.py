"""JSON as programs write it: whichever way the rows are packed, the table is the same, or the file is refused."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import table_reads

TABLES: Mapping[str, str] = {
    "records": '[{"a":1,"b":"é"},{"a":2,"b":"x"}]',
    "wrapped records in one line": '{"count":2,"tags":["t"],"data":[{"a":1,"b":"é"},{"a":2,"b":"x"}]}',
    "wrapped records": '{"count":2,\n"data":[{"a":1,"b":"é"},\n{"a":2,"b":"x"}]}',
    "columns": '{"a":[1,2],"b":["é","x"]}',
    "split": '{"columns":["a","b"],"index":[0,1],"data":[[1,"é"],[2,"x"]]}',
    "columns by row number": '{"a":{"0":1,"1":2},"b":{"0":"é","1":"x"}}',
    "rows by number": '{"0":{"a":1,"b":"é"},"1":{"a":2,"b":"x"}}',
    "lists": '[["a","b"],[1,"é"],[2,"x"]]',
    "lines": '{"a":1,"b":"é"}\n{"a":2,"b":"x"}\n',
}
REFUSED: Mapping[str, str] = {
    "objects in one line": '{"a":1}{"a":2}',
    "objects over several lines": '{\n"a":1\n}\n{\n"a":2\n}\n',
    "lists without names": "[[1,2],[3,4]]",
    "lines of lists": '["a","b"]\n[1,2]\n',
    "lists of other lengths": '[["a","b"],[1,2,3]]',
}
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "cp1252")


@pytest.fixture(scope="module")
def reads(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], table_reads.Read]:
    keys = [
        (name, encoding) for name in TABLES for encoding in (ENCODINGS if name in {"records", "lines"} else ("utf-8",))
    ]
    keys += [(name, "utf-8") for name in [*REFUSED, "one row"]]
    texts = {**TABLES, **REFUSED, "one row": '{"a":1,"tags":["x","y"]}'}
    tables: list[tuple[str, bytes, Mapping[str, object]]] = [
        ("t.json", texts[name].encode(encoding), {}) for name, encoding in keys
    ]
    return dict(zip(keys, table_reads.read(tmp_path_factory.mktemp("json") / "w", tables), strict=True))


def test_each_way_to_pack_rows_is_the_same_table(reads: dict[tuple[str, str], table_reads.Read]) -> None:
    for key, read in reads.items():
        if key[0] in TABLES:
            assert (read.refused, read.names, read.rows) == ("", ["a", "b"], [[1, "é"], [2, "x"]]), key


def test_json_that_is_no_table_is_refused(reads: dict[tuple[str, str], table_reads.Read]) -> None:
    for name in REFUSED:
        assert reads[name, "utf-8"].refused, name


def test_one_object_is_one_row(reads: dict[tuple[str, str], table_reads.Read]) -> None:
    read = reads["one row", "utf-8"]
    assert read.rows == [[1, '["x", "y"]']]
    assert "kept as JSON text" in read.notes
