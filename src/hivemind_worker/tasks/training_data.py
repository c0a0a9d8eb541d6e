"""Where an ml task's data come from: an input file, a shipped data set, or rows and columns inline. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from hivemind_worker import errors
from hivemind_worker.tasks import checks

DATASETS = ("iris", "wine", "breast_cancer", "digits", "diabetes")
"""The data sets that come with scikit-learn, and so with each of the frameworks' environments."""

PACKED = ("", ".gz", ".zst", ".bz2", ".xz", ".zip")
SUFFIXES = (
    *(
        f".{name}{packed}"
        for name in ("csv", "tsv", "tab", "txt", "dat", "json", "jsonl", "ndjson")
        for packed in PACKED
    ),
    *(".zip", ".xlsx", ".xlsm", ".xlsb", ".xls", ".ods", ".parquet", ".npz"),
)
"""The names that files of training data end in: tables, and arrays (npz). What a table is, its content tells."""

_LISTED = ".csv, .tsv, .txt, .json, .jsonl (each also .gz, .zst, .bz2, .xz, .zip), .xlsx, .xls, .ods, .parquet, .npz"

ROWS = 100_000
COLUMNS = 10_000
"""Most rows and columns of data inside the task; larger ones are input files."""

Data = str | Mapping[str, object]
"""A path, ``{"dataset": name}``, ``{"rows": [{…}, …]}`` or ``{"columns": {name: […]}}``."""


def parse(value: object, files: Iterable[str], field: str = "training_data") -> Data:
    """Read the value of ``field``; ``files`` are the paths of the task's inputs. Raises InvalidTask that names it."""
    if isinstance(value, str):
        return _path(field, value, files)
    if isinstance(value, (list, tuple)):
        return {"rows": _rows(field, value)}
    if not isinstance(value, Mapping) or len(value) != 1:
        raise errors.InvalidTask(
            field, "must be the path of an input file, {'dataset': …}, {'rows': […]} or {'columns': {…}}"
        )
    if "dataset" in value:
        name = value["dataset"]
        if not isinstance(name, str) or name not in DATASETS:
            raise errors.InvalidTask(f"{field}.dataset", f"{str(name)[:40]!r} is not one of {', '.join(DATASETS)}")
        return {"dataset": name}
    if "rows" in value:
        return {"rows": _rows(f"{field}.rows", value["rows"])}
    if "columns" in value:
        return {"columns": _columns(f"{field}.columns", value["columns"])}
    raise errors.InvalidTask(f"{field}.{str(next(iter(value)))[:40]}", "is none of dataset, rows, columns")


def _path(field: str, value: str, files: Iterable[str]) -> str:
    checks.text(field, value, most=4_000)
    there = sorted(map(str, files))
    if value not in there:
        shown = ", ".join(repr(path[:40]) for path in there[:5]) + (", …" if len(there) > 5 else "")
        raise errors.InvalidTask(
            field, f"{value[:80]!r} is none of the task's input_files: {shown or 'there are none'}"
        )
    if not value.lower().endswith(SUFFIXES):
        raise errors.InvalidTask(field, f"{value[:80]!r} must end in one of {_LISTED}")
    return value


def _rows(where: str, value: object) -> list[dict[str, object]]:
    if not isinstance(value, (list, tuple)) or not value:
        raise errors.InvalidTask(where, "must be a list of objects, one for each row, and not empty")
    if len(value) > ROWS:
        raise errors.InvalidTask(where, f"has {len(value)} rows; at most {ROWS}: use an input file")
    return [
        {_name(f"{where}[{at}]", name): _cell(f"{where}[{at}]", cell) for name, cell in row.items()}
        for at, row in enumerate(checks.mapping(f"{where}[{at}]", row, most=COLUMNS) for at, row in enumerate(value))
    ]


def _columns(field: str, value: object) -> dict[str, list[object]]:
    found: dict[str, list[object]] = {}
    for name, column in checks.mapping(field, value, most=COLUMNS).items():
        where = f"{field}[{name[:40]!r}]"
        _name(where, name)
        if not isinstance(column, (list, tuple)) or not column:
            raise errors.InvalidTask(where, "must be a list with a value for each row")
        if len(column) > ROWS:
            raise errors.InvalidTask(where, f"has {len(column)} rows; at most {ROWS}: use an input file")
        found[name] = [_cell(where, cell) for cell in column]
    lengths = {name: len(column) for name, column in found.items()}
    if len(set(lengths.values())) > 1:
        name = next(name for name, length in lengths.items() if length != max(lengths.values()))
        raise errors.InvalidTask(
            f"{field}[{name[:40]!r}]", f"has {lengths[name]} values; others have {max(lengths.values())}"
        )
    if not found:
        raise errors.InvalidTask(field, "is empty")
    return found


def _name(where: str, name: object) -> str:
    found = checks.text(where, name, most=1_000)
    if not found.strip():
        raise errors.InvalidTask(where, "has a column without a name")
    return found


def _cell(where: str, value: object) -> object:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return checks.text(where, value, most=10_000)
    if isinstance(value, int | float):
        if not math.isfinite(value) or abs(value) > 1e300:
            raise errors.InvalidTask(where, "holds a number that is not finite; null stands for a missing value")
        return value
    raise errors.InvalidTask(where, f"holds {type(value).__name__}; a value is a number, text, true, false or null")
