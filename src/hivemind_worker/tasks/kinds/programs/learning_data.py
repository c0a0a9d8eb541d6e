"""What is learned from: a table (a file, rows, columns, a data set) or arrays (npz), the target apart."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from sklearn import datasets

import given
import learning_columns
import learning_tables

Array = npt.NDArray[Any]

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

    ``rows`` are the numbers of the rows where they come from, counted from 0. ``source`` is how a table was read, and
    ``left_out`` the columns of it that are no features, with the reason.
    """

    features: pl.DataFrame | Array
    target: Array | None
    target_name: str
    rows: Array
    test_rows: int | None = None
    class_names: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    source: learning_tables.LearningTable | None = None
    left_out: dict[str, str] = field(default_factory=dict)
    rows_dropped: int = 0

    def describe(self) -> dict[str, Any]:
        """How the data were read and what of them was not used, for the metrics."""
        source = self.source or learning_tables.LearningTable(pl.DataFrame())
        rows = source.frame.height or len(self.rows)
        return {
            "rows_read": rows,
            "rows_without_target": rows - len(self.rows) - self.rows_dropped,
            "rows_with_missing_values_dropped": self.rows_dropped,
            "rows_left_out": source.rejected.get("rows", 0),
            "assumptions": source.assumptions,
            "files": source.files,
            "columns_left_out": [{"name": name, "reason": reason} for name, reason in self.left_out.items()],
        }


def read(settings: dict[str, Any]) -> Data:
    """Read what ``training_data`` names. Raises Refusal for data that cannot be learned from."""
    said = settings["training_data"]
    if isinstance(said, str) and said.lower().endswith(".npz"):
        return _arrays(said, settings)
    if isinstance(said, dict) and said.get("dataset") == "digits" and settings["estimator"] == "cnn":
        digits = datasets.load_digits()
        return _whole(digits.images, digits.target, "target", settings)
    class_names: dict[int, str] = {}
    default = ""
    if isinstance(said, str):
        needed = [*([settings["target"]] if settings["target"] else []), *settings["features"]]
        source = learning_tables.read_file(said, settings["options"], needed, settings["target"])
    elif "dataset" in said:
        bunch = _LOADERS[said["dataset"]]()
        table = pl.DataFrame(bunch.data, schema=[str(name) for name in bunch.feature_names])
        source = learning_tables.LearningTable(table.with_columns(pl.Series("target", bunch.target)))
        class_names = dict(enumerate(map(str, getattr(bunch, "target_names", []))))
        default = "target"
    else:
        source = learning_tables.read_inline(said)
    clustering = settings["problem"] == "clustering"
    target = settings["target"] or default
    return _split_off(
        source, target, settings["features"], class_names, clustering=clustering, missing=settings["missing"]
    )


def _split_off(
    source: learning_tables.LearningTable,
    target: str,
    features: list[str],
    class_names: dict[int, str],
    *,
    clustering: bool,
    missing: str = "",
) -> Data:
    """The target apart from the features, rows without a target left out."""
    table = source.frame
    for name in (*features, *([target] if target else [])):
        if name not in table.columns:
            field_name = "target" if name == target else "features"
            raise given.Refusal(
                f"{field_name}: the data have no column {name!r}; they have {learning_tables.listed(table.columns)}"
            )
    if not target and not clustering:
        raise given.Refusal("target: missing: which column is to be learned")
    notes = list(source.notes)
    rows = np.arange(table.height)
    values: Array | None = None
    if target:
        usable = ~_missing(table[target])
        if not bool(usable.all()):
            notes.append(f"{int((~usable).sum())} rows have no target and are left out")
            rows = rows[usable.to_numpy()]
            table = table.filter(usable)
        if not len(rows):
            raise given.Refusal(f"target: the column {target!r} has no values")
        values = learning_columns.target(table[target], notes)
    left_out = {name: reason for name, reason in source.indexes.items() if name not in (*features, target)}
    notes += [f"column {name!r} is left out: {reason}" for name, reason in left_out.items()] if not features else []
    chosen = table.select(features) if features else table.drop([*([target] if target else []), *left_out])
    if features:
        left_out = dict.fromkeys(
            (name for name in table.columns if name not in (*features, target)), "`features` does not name it"
        )
    dropped = 0
    if missing == "drop":
        whole = ~pl.any_horizontal(_missing(column) for column in chosen.iter_columns())
        keep = chosen.select(whole).to_series()
        dropped = int((~keep).sum())
        notes.append(f"{dropped} rows with a missing value are left out, as `missing` says")
        chosen, rows = chosen.filter(keep), rows[keep.to_numpy()]
        values = values[keep.to_numpy()] if values is not None else None
    if chosen.width == 0 or chosen.height < 2:
        raise given.Refusal(f"the data have {chosen.height} rows and {chosen.width} features: nothing can be learned")
    if target != "target":
        class_names = {}
    data = Data(chosen, values, target, rows, class_names=class_names, notes=notes, source=source, left_out=left_out)
    data.rows_dropped = dropped
    return data


def _missing(column: pl.Series) -> pl.Series:
    missing = column.is_null()
    return missing | column.is_nan() | column.is_infinite() if column.dtype.is_float() else missing


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
    names, none_of = learning_tables.listed(list(there)), learning_tables.listed(list(looked))
    raise given.Refusal(f"{field_name}: the file holds {names}, and none of {none_of}")


def _whole(features: Array, target: Array | None, name: str, settings: dict[str, Any]) -> Data:
    if features.dtype.kind not in "fiub" or features.ndim < 2 or len(features) < 2:
        raise given.Refusal(
            f"features: an array of {features.dtype} and shape {features.shape}; rows of numbers are needed"
        )
    if not np.isfinite(features).all() and settings["model_type"] != "scikit-learn":
        raise given.Refusal("features: the array holds values that are missing or infinite, and networks take none")
    notes: list[str] = []
    if target is not None:
        target = target[:, 0] if target.ndim == 2 and target.shape[1] == 1 else target
        if target.ndim != 1 or len(target) != len(features):
            raise given.Refusal(f"target: has the shape {target.shape}, and the features are {len(features)} rows")
        target = learning_columns.target(pl.Series(target), notes)
    dtype = np.float32 if features.ndim > 2 or features.dtype == np.float32 else np.float64
    return Data(features.astype(dtype), target, name, np.arange(len(features)), notes=notes)
