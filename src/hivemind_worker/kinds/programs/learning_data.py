"""What is learned from: a table (CSV, Parquet, rows, columns, a data set) or arrays (npz), the target apart."""

from __future__ import annotations

import csv
import gzip
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from sklearn import datasets

import given
import learning_columns

Array = npt.NDArray[Any]

NULLS = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?"]
"""What counts as missing in a CSV file."""

_LOADERS = {
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
    "breast_cancer": datasets.load_breast_cancer,
    "digits": datasets.load_digits,
    "diabetes": datasets.load_diabetes,
}
_FEATURE_ARRAYS = ("X", "x", "features", "data", "images")
_TARGET_ARRAYS = ("y", "target", "targets", "labels", "label")
_FEATURE_PARTS = (("x_train", "x_test"), ("X_train", "X_test"))
_TARGET_PARTS = (("y_train", "y_test"),)


@dataclass
class Data:
    """Rows to learn from. ``features`` is a table or an array with rows first; ``test_rows`` the last so many of them.

    ``rows`` are the numbers of the rows where they come from, counted from 0.
    """

    features: pl.DataFrame | Array
    target: Array | None
    target_name: str
    rows: Array
    test_rows: int | None = None
    class_names: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read(settings: dict[str, Any]) -> Data:
    """Read what ``training_data`` names. Raises Refusal for data that cannot be learned from."""
    said = settings["training_data"]
    if isinstance(said, str) and said.lower().endswith(".npz"):
        return _arrays(said, settings)
    if isinstance(said, dict) and said.get("dataset") == "digits" and settings["estimator"] == "cnn":
        digits = datasets.load_digits()
        return _whole(digits.images, digits.target, "target", settings)
    class_names: dict[int, str] = {}
    if isinstance(said, str):
        table = _file(said)
        default = ""
    elif "dataset" in said:
        bunch = _LOADERS[said["dataset"]]()
        table = pl.DataFrame(bunch.data, schema=[str(name) for name in bunch.feature_names])
        table = table.with_columns(pl.Series("target", bunch.target))
        class_names = dict(enumerate(map(str, getattr(bunch, "target_names", []))))
        default = "target"
    else:
        table = _inline(said)
        default = ""
    clustering = settings["problem"] == "clustering"
    return _split_off(table, settings["target"] or default, settings["features"], class_names, clustering=clustering)


def _split_off(
    table: pl.DataFrame, target: str, features: list[str], class_names: dict[int, str], *, clustering: bool
) -> Data:
    """The target apart from the features, rows without a target left out."""
    for name in (*features, *([target] if target else [])):
        if name not in table.columns:
            where = "target" if name == target else "features"
            raise given.Refusal(f"{where}: the data have no column {name!r}; they have {_listed(table.columns)}")
    if not target and not clustering:
        raise given.Refusal("target: missing: which column is to be learned")
    notes: list[str] = []
    rows = np.arange(table.height)
    values: Array | None = None
    if target:
        there = ~_missing(table[target])
        if not bool(there.all()):
            notes.append(f"{int((~there).sum())} rows have no target and are left out")
            rows = rows[there.to_numpy()]
            table = table.filter(there)
        values = learning_columns.target(table[target])
    chosen = table.select(features) if features else table.drop([target] if target else [])
    if chosen.width == 0 or chosen.height < 2:
        raise given.Refusal(f"the data have {chosen.height} rows and {chosen.width} features: nothing can be learned")
    if target != "target":
        class_names = {}
    return Data(chosen, values, target, rows, class_names=class_names, notes=notes)


def _missing(column: pl.Series) -> pl.Series:
    missing = column.is_null()
    return missing | column.is_nan() if column.dtype.is_float() else missing


def _file(path: str) -> pl.DataFrame:
    try:
        if path.lower().endswith(".parquet"):
            return pl.read_parquet(path)
        return pl.read_csv(
            path,
            separator=_separator(path),
            null_values=NULLS,
            infer_schema_length=None,
            try_parse_dates=True,
            truncate_ragged_lines=False,
        )
    except (pl.exceptions.PolarsError, UnicodeDecodeError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise given.Refusal(f"training_data: {path} cannot be read: {str(error).splitlines()[0][:300]}") from None


def _separator(path: str) -> str:
    """The sign that parts the first lines into the same number of fields, a comma where none does."""
    if path.lower().endswith((".tsv", ".tsv.gz")):
        return "\t"
    with gzip.open(path) if path.lower().endswith(".gz") else Path(path).open("rb") as file:
        head = file.read(64 * 1024).decode("utf-8", errors="replace")
    lines = head.splitlines()[:20]
    for sign in (",", ";", "\t", "|"):
        counts = {len(row) for row in csv.reader(lines[:-1] or lines, delimiter=sign)}
        if len(counts) == 1 and counts.pop() > 1:
            return sign
    return ","


def _inline(said: dict[str, Any]) -> pl.DataFrame:
    if "rows" in said:
        names = dict.fromkeys(name for row in said["rows"] for name in row)
        columns = {name: [row.get(name) for row in said["rows"]] for name in names}
    else:
        columns = said["columns"]
    for name, values in columns.items():
        kinds = {type(value) for value in values if value is not None}
        if len(kinds) > 1 and kinds != {int, float}:
            columns[name] = [None if value is None else str(value) for value in values]
    return pl.DataFrame(columns, strict=False)


def _arrays(path: str, settings: dict[str, Any]) -> Data:
    try:
        with np.load(path, allow_pickle=False) as archive:
            there = {name: archive[name] for name in archive.files}
    except (ValueError, zipfile.BadZipFile, EOFError, KeyError) as error:
        raise given.Refusal(f"training_data: {path} is no npz file of plain arrays: {str(error)[:200]}") from None
    if len(settings["features"]) > 1:
        raise given.Refusal("features: of an npz file name the one array that holds them")
    clustering = settings["problem"] == "clustering"
    first, second = _pick(there, settings["features"][:1], _FEATURE_ARRAYS, _FEATURE_PARTS, "features")
    if clustering and not settings["target"] and not any(name in there for name in ("y", "target", "labels")):
        return _whole(first, None, "", settings)
    target = [settings["target"]] if settings["target"] else []
    y_first, y_second = _pick(there, target, _TARGET_ARRAYS, _TARGET_PARTS, "target")
    name = settings["target"] or "y"
    if second is None or y_second is None:
        return _whole(first, y_first, name, settings)
    both = _whole(np.concatenate([first, second]), np.concatenate([y_first, y_second]), name, settings)
    both.test_rows = len(second)
    return both


def _pick(
    there: dict[str, Array],
    named: list[str],
    usual: tuple[str, ...],
    parts: tuple[tuple[str, str], ...],
    field_name: str,
) -> tuple[Array, Array | None]:
    for name in (*named, *(() if named else usual)):
        if name in there:
            return there[name], None
    for train, test in () if named else parts:
        if train in there and test in there:
            return there[train], there[test]
    looked = named or [*usual, *(" and ".join(part) for part in parts)]
    raise given.Refusal(f"{field_name}: the file holds {_listed(list(there))}, and none of {_listed(list(looked))}")


def _whole(features: Array, target: Array | None, name: str, settings: dict[str, Any]) -> Data:
    if features.dtype.kind not in "fiub" or features.ndim < 2 or len(features) < 2:
        raise given.Refusal(
            f"features: an array of {features.dtype} and shape {features.shape}; rows of numbers are needed"
        )
    if not np.isfinite(features).all() and settings["model_type"] != "scikit-learn":
        raise given.Refusal("features: the array holds values that are missing or infinite, and networks take none")
    if target is not None:
        target = target[:, 0] if target.ndim == 2 and target.shape[1] == 1 else target
        if target.ndim != 1 or len(target) != len(features):
            raise given.Refusal(f"target: has the shape {target.shape}, and the features are {len(features)} rows")
        target = learning_columns.target(pl.Series(target))
    dtype = np.float32 if features.ndim > 2 or features.dtype == np.float32 else np.float64
    return Data(features.astype(dtype), target, name, np.arange(len(features)))


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names[:20])) + (", …" if len(names) > 20 else "")
