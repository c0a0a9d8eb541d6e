"""Fixture tables of published packages, read by our reader and by the library they belong to; values compared."""

from __future__ import annotations

import json
import math
import subprocess
import tarfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import table_reads
import uv

PACKAGES = {"csvkit": "2.2.0", "agate": "1.14.2", "frictionless": "5.21.0"}
DIFFERENCES = Path(__file__).parent / "tables" / "differences.json"
"""How many files end in each way; and for each way but equal, and each reason, the files that do."""

_MAX_BYTES = 100_000
"""Larger ones take the libraries minutes."""

_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".csv.bz2", ".jsonl", ".xlsx", ".xls", ".ods")

_LIBRARIES = """
import datetime, decimal, json, sys, warnings
warnings.simplefilter("ignore")

def plain(value):
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (float, decimal.Decimal)):
        return None if value != value else float(value)
    return value.isoformat(" ") if isinstance(value, datetime.datetime) else str(value)

def agate(path):
    import agate
    encoding = "latin1" if "latin1" in path else "utf-16" if "utf16" in path else "utf-8-sig"
    table = agate.Table.from_csv(path, encoding=encoding, delimiter="\\t" if path.endswith(".tsv") else ",")
    return table.column_names, table.rows

def frictionless(path):
    from frictionless import Resource, system
    with system.use_context(trusted=True):
        resource = Resource(path=path)
        rows = resource.read_rows()
        return resource.header, [list(row.values()) for row in rows]

for path in sys.argv[1:]:
    try:
        names, rows = (frictionless if "frictionless" in path else agate)(path)
        answer = {"names": list(map(str, names)), "rows": [list(map(plain, row)) for row in rows]}
    except BaseException as error:
        answer = {"error": type(error).__name__}
    print(json.dumps(answer), flush=True)
"""


def run(*command: str, folder: Path) -> str:
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=900)
    if ended.returncode:
        pytest.skip(f"no packages from the index: {ended.stderr.strip().splitlines()[-1:]}")
    return ended.stdout


@pytest.fixture(scope="module")
def fixtures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], list[dict[str, Any]]]:
    """The folder of the packages, the paths of their tables, and what the libraries read in each."""
    folder = tmp_path_factory.mktemp("oracles")
    run(uv.find_uv_bin(), "venv", "--seed", "v", folder=folder)
    wanted = [f"{name}=={version}" for name, version in PACKAGES.items()]
    run("v/bin/python", "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", *wanted, folder=folder)
    run("v/bin/python", "-m", "pip", "install", *wanted, folder=folder)
    for archive in folder.glob("*.tar.gz"):
        with tarfile.open(archive) as opened:
            opened.extractall(folder, filter="data")
    found = sorted(str(path.relative_to(folder)) for path in folder.glob("*/**/*") if path.name.endswith(_SUFFIXES))
    paths = [path for path in found if not path.startswith("v/") and (folder / path).stat().st_size < _MAX_BYTES]
    answers = run("v/bin/python", "-c", _LIBRARIES, *paths, folder=folder).splitlines()
    return folder, paths, list(map(json.loads, answers))


def number(value: object) -> float | None:
    try:
        return None if isinstance(value, bool) else float(str(value).replace(",", ""))
    except ValueError:
        return None


def same(one: object, other: object) -> bool:
    if one in (None, "") or other in (None, ""):
        return one in (None, "") and other in (None, "")
    if isinstance(one, bool) or isinstance(other, bool):
        return str(one).lower() == str(other).lower()
    if isinstance(one, int | float) or isinstance(other, int | float):
        numbers = (number(one), number(other))
        return None not in numbers and math.isclose(*numbers, rel_tol=1e-12)  # type: ignore[arg-type]
    texts = [" ".join(str(text).replace("T", " ").removesuffix(" 00:00:00").split()) for text in (one, other)]
    return texts[0] == texts[1]


def outcome(read: table_reads.Read, answer: dict[str, Any]) -> str:
    """How our reading compares with the library's."""
    if "error" in answer:
        return "both refuse" if read.refused else "the library refuses"
    if read.refused:
        return "refused"
    widths = {len(read.names), len(answer["names"])}
    equal = len(widths) == 1 and len(read.rows) == len(answer["rows"])
    pairs = [
        (a, b) for row, other in zip(read.rows, answer["rows"], strict=False) for a, b in zip(row, other, strict=False)
    ]
    return "equal" if equal and all(same(a, b) for a, b in pairs) else "differs"


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_fixtures_of_others_are_read_as_they_read_them(
    fixtures: tuple[Path, list[str], list[dict[str, Any]]], tmp_path: Path
) -> None:
    folder, paths, answers = fixtures
    tables: list[tuple[str, bytes, Mapping[str, object]]] = [
        (Path(path).name, (folder / path).read_bytes(), {}) for path in paths
    ]
    reads = table_reads.read(tmp_path, tables)
    outcomes = {path: outcome(read, answer) for path, read, answer in zip(paths, reads, answers, strict=True)}
    known = json.loads(DIFFERENCES.read_text(encoding="utf-8"))
    assert Counter(outcomes.values()) == known.pop("counts")
    listed = {path: result for result, reasons in known.items() for files in reasons.values() for path in files}
    assert {path: result for path, result in outcomes.items() if result not in {"equal", "both refuse"}} == listed
