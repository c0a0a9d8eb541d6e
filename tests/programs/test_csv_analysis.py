"""csv_analysis against independent computations: the csv module, numpy and polars."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import program_runs
import pytest

LIBRARIES = (
    *("duckdb", "python_calamine", "zstandard"),
    *("matplotlib.figure", "matplotlib.dates", "matplotlib.backends.backend_svg"),
)

ROWS = 5_000


def weather(seed: int, rows: int = ROWS) -> bytes:
    """A table with what tables have: gaps, names in two scripts, quoted line breaks, codes with leading zeros."""
    drawn = random.Random(seed)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["day", "station", "temperature", "humidity", "rain", "gusts", "note", "zip", "calm"])
    for at in range(rows):
        temperature = drawn.gauss(22, 6)
        writer.writerow(
            [
                "" if at % 50 == 7 else dt.date(2020, 1, 1) + dt.timedelta(days=at % 900),
                drawn.choice(["Taipei", "Tainan", "花蓮", "Keelung"]),
                round(temperature, 2),
                round(110 - 2 * temperature + drawn.gauss(0, 5), 1),
                "" if drawn.random() < 0.07 else round(drawn.expovariate(0.2), 1),
                drawn.randrange(13),
                drawn.choice(["", "dry", 'said "wet",\ncold', "NA"]),
                f"{drawn.randrange(99_999):05d}",
                drawn.choice(["true", "false"]),
            ]
        )
    return text.getvalue().encode()


def analyse(tmp_path: Path, files: dict[str, bytes], **fields: object) -> program_runs.Ran:
    return program_runs.run(
        tmp_path / "workspace",
        dict(files),
        100,
        processing_type="csv_analysis",
        **{"input_data": list(files), **fields},
    )


def columns(ran: program_runs.Ran) -> dict[str, dict[str, Any]]:
    assert ran.code == 0, ran.err + ran.out
    return {column["name"]: column for column in ran.json()["columns"]}


def test_numbers_agree_with_numpy_and_the_csv_module(tmp_path: Path) -> None:
    table = weather(1)
    ran = analyse(tmp_path, {"weather.csv": table})
    found = columns(ran)
    rows = list(csv.DictReader(io.StringIO(table.decode(), newline="")))
    assert ran.json()["rows"] == len(rows) == ROWS
    assert {name: column["type"] for name, column in found.items()} == {
        "day": "date",
        "station": "text",
        "temperature": "number",
        "humidity": "number",
        "rain": "number",
        "gusts": "integer",
        "note": "text",
        "zip": "text",
        "calm": "boolean",
    }
    for name in ("temperature", "humidity", "rain", "gusts"):
        values = np.array([float(row[name]) for row in rows if row[name]])
        column = found[name]
        assert column["values"] == len(values)
        assert column["missing"] == ROWS - len(values)
        assert column["distinct"] == len(set(values))
        assert column["mean"] == pytest.approx(values.mean(), rel=1e-12)
        assert column["std"] == pytest.approx(values.std(ddof=1), rel=1e-10)
        assert column["sum"] == pytest.approx(values.sum(), rel=1e-12)
        assert (column["min"], column["max"]) == (values.min(), values.max())
        for label, at in (("p01", 0.01), ("p25", 0.25), ("median", 0.5), ("p95", 0.95)):
            assert column["quantiles"][label] == pytest.approx(np.quantile(values, at), rel=1e-12)
        drawn = column["histogram"]
        counts, _ = np.histogram(values, bins=drawn["edges"])
        assert drawn["counts"] == counts.tolist()
        assert sum(drawn["counts"]) + drawn["below"] + drawn["above"] == len(values)
    words = [row["station"] for row in rows]
    common = sorted(((word, words.count(word)) for word in set(words)), key=lambda pair: (-pair[1], pair[0].encode()))
    assert [(each["value"], each["count"]) for each in found["station"]["top"]] == common
    assert found["note"]["missing"] == sum(row["note"] in {"", "NA"} for row in rows)
    days = sum(bool(row["day"]) for row in rows)
    assert found["day"]["values"] == sum(found["day"]["histogram"]["counts"]) == days < ROWS
    assert (found["day"]["min"], found["day"]["max"]) == ("2020-01-01", str(dt.date(2020, 1, 1) + dt.timedelta(899)))


def test_correlations_agree_with_numpy(tmp_path: Path) -> None:
    table = weather(2)
    ran = analyse(tmp_path, {"weather.csv": table})
    told = ran.json()["correlations"]
    rows = list(csv.DictReader(io.StringIO(table.decode(), newline="")))
    assert told["columns"] == ["temperature", "humidity", "rain", "gusts"]
    for at, one in enumerate(told["columns"]):
        for beside, other in enumerate(told["columns"]):
            both = [(float(row[one]), float(row[other])) for row in rows if row[one] and row[other]]
            assert told["matrix"][at][beside] == pytest.approx(np.corrcoef(np.array(both).T)[0, 1], abs=1e-9)


def test_groups_and_queries_agree_with_polars(tmp_path: Path) -> None:
    table = weather(3)
    ran = analyse(
        tmp_path,
        {"weather.csv": table},
        group_by=["station", "calm"],
        queries={"warmest": "SELECT station, max(temperature) AS t FROM data GROUP BY 1 ORDER BY 2 DESC -- and so on"},
    )
    assert ran.code == 0, ran.err + ran.out
    plain = pl.read_csv(table, null_values=["", "NA"])
    keys = ["station", "calm"]
    expected = plain.group_by(keys).agg(pl.len().alias("count"), pl.col("rain").mean().alias("rain_mean")).sort(keys)
    found = pl.read_csv(ran.results / "group_by.csv").sort(keys)
    assert found.select(*keys, "count").equals(expected.select(*keys, "count").cast({"count": pl.Int64}))
    assert np.allclose(found["rain_mean"].to_numpy(), expected["rain_mean"].to_numpy(), rtol=1e-12)
    counts = pl.read_csv(ran.results / "group_by.csv")["count"].to_list()
    assert counts == sorted(counts, reverse=True)
    warmest = plain.group_by("station").agg(pl.col("temperature").max().alias("t")).sort("t", descending=True)
    assert pl.read_csv(ran.results / "warmest.csv").equals(warmest)


def test_the_parquet_holds_every_value_in_its_type_and_order(tmp_path: Path) -> None:
    table = weather(4)
    ran = analyse(tmp_path, {"weather.csv": table})
    assert ran.code == 0, ran.err
    found = pl.read_parquet(ran.results / "data.parquet")
    expected = pl.read_csv(table, null_values=["", "NA"], try_parse_dates=True, schema_overrides={"zip": pl.String})
    assert found.equals(expected.cast({"calm": pl.Boolean}))
    assert ran.files == ["data.parquet", "report.html", "summary.json"]


@pytest.mark.long
def test_without_parquet_none_is_left(tmp_path: Path) -> None:
    ran = analyse(tmp_path, {"weather.csv": weather(4, 50)}, options={"parquet": False})
    assert ran.code == 0, ran.err
    assert ran.files == ["report.html", "summary.json"]
    assert not (tmp_path / "workspace" / ".hivemind" / "scratch").exists()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_encodings_delimiters_and_decimal_commas(encoding: str, tmp_path: Path) -> None:
    text = "Straße;Größe;Datum\n" + "Köln;1.234,5;02.03.2024\nMünchen;-7,25;31.12.2023\nÜbersee;12;01.01.2024\n" * 40
    ran = analyse(tmp_path, {"städte.csv": text.encode(encoding)}, options={"decimal": ","})
    found = columns(ran)
    assert {name: column["type"] for name, column in found.items()} == {
        "Straße": "text",
        "Größe": "number",
        "Datum": "date",
    }
    assert found["Größe"]["sum"] == pytest.approx(40 * (1234.5 - 7.25 + 12))
    assert (found["Datum"]["min"], found["Datum"]["max"]) == ("2023-12-31", "2024-03-02")
    assert found["Straße"]["top"][0] == {"value": "Köln", "count": 40}
    assert ran.json()["files"][0]["delimiter"] == ";"


def test_several_files_are_one_table_by_the_names_of_their_columns(tmp_path: Path) -> None:
    files = {
        "a/one.csv": b"id,x\n1,10\n2,20\n",
        "a/two.csv.gz": gzip.compress(b"x;id;extra\n30;3;yes\n", mtime=0),
        "a/odd*[name].csv": b"id,x\n4,40\n",
    }
    ran = analyse(tmp_path, files, input_data=["a/*"], queries={"all": "SELECT * FROM data ORDER BY id"})
    found = columns(ran)
    told = [(file["name"], file["rows"], file["compressed"]) for file in ran.json()["files"]]
    assert told == [("a/odd*[name].csv", 1, False), ("a/one.csv", 2, False), ("a/two.csv.gz", 1, True)]
    assert (ran.results / "all.csv").read_text() == "id,x,extra\n1,10,\n2,20,\n3,30,true\n4,40,\n"
    assert found["extra"]["missing"] == 3


BAD = b"a,b\n1,2\n3\n4,5,6\n7,8\n"


def test_rows_that_do_not_fit_are_told(tmp_path: Path) -> None:
    ran = analyse(tmp_path, {"bad.csv": BAD}, options={"bad_rows": "skip"})
    assert columns(ran)["a"]["sum"] == 8
    rejected = ran.json()["rejected"]
    assert (rejected["rows"], rejected["all_counted"]) == (2, True)
    assert [(each["file"], each["line"], each["text"]) for each in rejected["examples"]] == [
        ("bad.csv", 3, "3"),
        ("bad.csv", 4, "4,5,6"),
    ]
    assert "Rows left out" in (ran.results / "report.html").read_text()


def test_rows_that_do_not_fit_are_padded_or_refused_where_the_task_says_so(tmp_path: Path) -> None:
    padded = analyse(tmp_path / "pad", {"bad.csv": BAD}, options={"bad_rows": "pad"})
    assert columns(padded)["a"]["sum"] == 11
    assert columns(padded)["b"]["missing"] == 1
    refused = analyse(tmp_path / "refuse", {"bad.csv": BAD}, options={"bad_rows": "refuse"})
    assert refused.code == 2
    assert "2 rows do not fit, the first in bad.csv, line 3" in refused.err
    assert refused.files == []


def test_types_that_the_task_says(tmp_path: Path) -> None:
    table = b"code,part,when\n007,1.5,3/2/2024\n012,x,4/2/2024\n100,2.5,5/2/2024\n"
    ran = analyse(
        tmp_path,
        {"t.csv": table},
        options={"types": {"code": "integer", "part": "number"}, "date_format": "%d/%m/%Y"},
    )
    found = columns(ran)
    assert (found["code"]["type"], found["code"]["sum"]) == ("integer", 119)
    assert found["part"]["values"] == 2
    assert found["part"]["notes"] == ["said to be number: 1 of 3 values are not, and count as missing"]
    assert (found["when"]["type"], found["when"]["max"]) == ("date", "2024-02-05")


def test_one_wrong_query_loses_nothing_else(tmp_path: Path) -> None:
    queries = {
        "wrong": "SELECT nothing FROM data",
        "two": "SELECT 1; SELECT 2",
        "right": "SELECT sum(a) AS s FROM data",
    }
    ran = analyse(tmp_path, {"t.csv": b"a\n1\n2\n"}, queries=queries, options={"query_format": "parquet"})
    assert ran.code == 1
    told = ran.json()["queries"]
    assert "nothing" in told["wrong"]["error"]
    assert told["two"]["error"] == "must be one SELECT"
    assert pl.read_parquet(ran.results / "right.parquet")["s"].to_list() == [3]
    assert "query wrong: " in ran.err


@pytest.mark.parametrize(
    ("table", "fields", "said"),
    [
        (b"", {}, "t.csv is empty"),
        (b"a,b\n1,2\n", {"group_by": ["c"]}, "group_by names 'c', and the table has no such column; it has a, b"),
        (b"a,b\n1,2\n", {"options": {"columns": ["c"]}}, "options.columns names 'c'"),
        (b"a\n\0\1\2\0\n", {}, "is no text"),
        (b"<html><table><tr><td>1</td></tr></table>", {}, "is a web page"),
        (BAD, {}, "2 of 4 rows of t.csv do not fit"),
        (b'a,b\n1,"2\n3,4\n', {}, "the quote that is opened in line 2 is never closed"),
        (gzip.compress(b"a,b\n1,2\n", mtime=0)[:-9], {}, "t.csv is a broken gzip file"),
    ],
)
def test_what_cannot_be_analysed_is_refused_in_one_line(
    table: bytes, fields: dict[str, object], said: str, tmp_path: Path
) -> None:
    ran = analyse(tmp_path, {"t.csv": table}, **fields)
    assert ran.code == 2
    assert said in ran.err
    assert ran.err.count("\n") == 1


def test_odd_tables(tmp_path: Path) -> None:
    header = analyse(tmp_path / "header", {"t.csv": b"a,b\n"})
    assert columns(header)["a"]["values"] == 0
    bare = analyse(tmp_path / "bare", {"t.csv": b"1,2\n3,4\n"})
    assert columns(bare)["column_2"]["sum"] == 6
    same = analyse(tmp_path / "same", {"t.csv": b"a,A,a\n1,2,3\n"}, options={"header": True})
    assert {name: column["sum"] for name, column in columns(same).items()} == {"a": 1, "A_2": 2, "a_3": 3}


@pytest.mark.long
def test_the_report_of_a_wide_table_says_what_it_leaves_out(tmp_path: Path) -> None:
    wide = analyse(
        tmp_path,
        {"t.csv": ",".join(f"c{at}" for at in range(210)).encode() + b"\n" + b",".join([b"5"] * 210) + b"\n"},
    )
    assert len(columns(wide)) == 210
    report = (wide.results / "report.html").read_text()
    assert "10 more columns are told in summary.json" in report
    assert "Plots are of the first 50." in report
    assert report.count("<svg") == 50


def test_the_report_escapes_what_the_table_says(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    table = f'"{evil}",b\n"{evil}",1\n"{evil}",2\n'.encode()
    ran = analyse(tmp_path, {"t.csv": table}, group_by=[evil], options={"title": evil, "header": True})
    assert ran.code == 0, ran.err
    page = (ran.results / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "How it was read" in page
    assert "delimiter ," in page
    assert "://" not in page  # nothing is fetched from elsewhere


@pytest.mark.long
def test_a_wide_table_says_of_each_column_what_a_narrow_one_does(tmp_path: Path) -> None:
    drawn = random.Random(5)
    makers = (
        lambda: str(drawn.randrange(9)),
        lambda: f"{drawn.lognormvariate(0, 3):.3f}",
        lambda: drawn.choice(["a", "é", ""]),
        lambda: str(dt.date(2026, 1, 1) + dt.timedelta(drawn.randrange(90))),
        lambda: drawn.choice(["true", "false"]),
    )
    table = [[f"c{at}" for at in range(130)]] + [[makers[at % 5]() for at in range(130)] for _ in range(40)]

    def summary(width: int) -> list[dict[str, Any]]:
        text = "\n".join(",".join(row[:width]) for row in table)
        ran = analyse(tmp_path / str(width), {"t.csv": text.encode()})
        assert ran.code == 0, ran.err
        found: list[dict[str, Any]] = ran.json()["columns"]
        return found

    wide = summary(130)
    assert [column["name"] for column in wide] == table[0]
    assert wide[:20] == summary(20)
