"""What each column is to a model: a number, a category, or nothing; and the preprocessing that follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import given
import learning_tables

CATEGORIES = 100
"""Most categories of one column that get an indicator each; the rarer ones share one."""

_NAMES = 0.5
"""A column of text of which more than this share are different values is names or free text, and no category."""

_FEW = 20


@dataclass
class Columns:
    """The table as models take it: numbers as floats (missing: NaN), categories as text (missing: empty).

    ``origins`` say what each column was: number, truth value, date, time, category. ``left_out`` are the columns that
    nobody learns from, with the reason.
    """

    table: pl.DataFrame
    numeric: list[str]
    categorical: list[str]
    notes: list[str]
    origins: dict[str, str]
    missing: dict[str, int]
    left_out: dict[str, str]

    def describe(self) -> list[dict[str, Any]]:
        """Name, kind and origin of each input, and how many of its values are missing, in the order of the table."""
        return [
            {
                "name": name,
                "kind": "number" if name in self.numeric else "category",
                "read_as": self.origins[name],
                "missing": self.missing[name],
            }
            for name in self.table.columns
        ]


def prepare(table: pl.DataFrame, asked: list[str], remarks: Sequence[str] = ()) -> Columns:
    """Sort the columns into numbers and categories. Columns in ``asked`` are kept whatever they look like.

    Raises Refusal where none is of use, with what was remarked on the table before, ``remarks``.
    """
    columns = Columns(pl.DataFrame(), [], [], [], {}, {}, {})
    chosen: list[pl.Series] = []
    for column in table.iter_columns():
        name = column.name
        values, remark = as_number(column) if not is_text(column) else _as_category(column, asked=name in asked)
        if values is None:
            columns.left_out[name] = remark
            columns.notes.append(f"column {name!r} is left out: {remark}")
            continue
        if remark:
            columns.notes.append(f"column {name!r}: {remark}")
        chosen.append(values)
        columns.origins[name] = origin(column)
        columns.missing[name] = int(values.is_nan().sum()) if values.dtype.is_float() else int((values == "").sum())
        (columns.categorical if is_text(values) else columns.numeric).append(name)
    if not chosen:
        reasons = "; ".join([*columns.notes, *remarks])[:1_000]
        raise given.Refusal(f"features: none of the columns can be learned from: {reasons}")
    columns.table = pl.DataFrame(chosen)
    return columns


def numbers(missing: str, *, scaled: bool) -> Any:
    """The steps for numbers: missing ones become the median or what ``missing`` says, then one scale for all."""
    steps: list[tuple[str, Any]] = []
    if missing != "native":
        strategy = missing if missing in {"mean", "most_frequent"} else "median"
        steps.append(("missing", SimpleImputer(strategy=strategy, keep_empty_features=True)))
    if scaled:
        steps.append(("scale", StandardScaler()))
    return Pipeline(steps) if steps else "passthrough"


def preprocessing(columns: Columns, train: pl.DataFrame, *, scaled: bool, missing: str = "median") -> ColumnTransformer:
    """Missing numbers as ``missing`` says, categories one indicator each, numbers one scale where that matters."""
    steps: list[tuple[str, Any, list[str]]] = []
    fine = [name for name in columns.numeric if not scaled and _is_fine(train[name])]
    coarse = [name for name in columns.numeric if name not in fine]
    if coarse:
        steps.append(("number", numbers(missing, scaled=scaled), coarse))
    if fine:
        steps.append(("fine_number", numbers(missing, scaled=True), fine))
    plain = [name for name in columns.categorical if train[name].n_unique() <= CATEGORIES]
    many = [name for name in columns.categorical if name not in plain]
    if plain:
        encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False, drop="if_binary")
        steps.append(("category", encoder, plain))
    if many:
        rest = OneHotEncoder(handle_unknown="infrequent_if_exist", sparse_output=False, max_categories=CATEGORIES)
        steps.append(("many_categories", rest, many))
    return ColumnTransformer(steps, verbose_feature_names_out=False)


def _is_fine(column: pl.Series) -> bool:
    """Whether single precision, in which trees work, does not tell all values apart, as of moments a second apart."""
    return column.cast(pl.Float32).n_unique() < column.n_unique()


def target(column: pl.Series, notes: list[str]) -> npt.NDArray[Any]:
    """The target as models take it: text as objects, truth values as bool, whole numbers as int64, others as float64.

    Says in ``notes`` what its numbers are where that is not plain.
    """
    if is_text(column):
        return np.array(column.cast(pl.String).to_list(), dtype=object)
    if column.dtype == pl.Boolean:
        return column.to_numpy()
    if column.dtype.is_integer() and column.dtype not in {pl.UInt64, pl.Int128}:
        return column.cast(pl.Int64).to_numpy()
    found, remark = as_number(column)
    if found is None:
        raise given.Refusal(f"target: the column {column.name!r} cannot be learned: {remark}")
    values: npt.NDArray[Any] = found.to_numpy()
    if not np.isfinite(values).all():
        raise given.Refusal(f"target: the column {column.name!r} holds values that are missing or infinite")
    if remark:
        notes.append(f"the target {column.name!r} is {remark}")
    return values


def is_text(column: pl.Series) -> bool:
    """Whether a column holds words: text, or categories of any sort."""
    return isinstance(column.dtype, pl.String | pl.Categorical | pl.Enum)


def origin(column: pl.Series) -> str:
    """What a column's values were where they come from."""
    if is_text(column):
        return "category"
    if isinstance(column.dtype, pl.Date | pl.Datetime):
        return "date"
    if isinstance(column.dtype, pl.Time | pl.Duration):
        return "time"
    return "truth value" if column.dtype == pl.Boolean else "number"


def as_number(column: pl.Series) -> tuple[pl.Series | None, str]:
    """A column's values as floats, missing ones NaN, and a remark on it; or None, and why it holds no numbers."""
    if column.null_count() == len(column):
        return None, "every value is missing"
    what = origin(column)
    if what == "date":
        days = column.dt.epoch("us").cast(pl.Float64) / 86_400_000_000
        return days.rename(column.name).fill_null(float("nan")), "a date, as days since 1970"
    if what == "time":
        seconds = _seconds(column)
        return seconds.rename(column.name).fill_null(float("nan")), "a time, as its seconds"
    if not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
        return None, f"{column.dtype} is neither a number nor a category"
    values = column.cast(pl.Float64)
    if values.is_nan().sum() + values.null_count() == len(values):
        return None, "every value is missing"
    values = values.fill_null(float("nan"))
    infinite = values.is_infinite()
    if bool(infinite.any()):
        finite = pl.select(pl.when(infinite).then(float("nan")).otherwise(values).alias(column.name)).to_series()
        return finite, f"{int(infinite.sum())} infinite values count as missing"
    if learning_tables.is_rounded(column):
        return values, "whole numbers beyond 2 to the 53rd, of which the last digits are lost"
    return values, ""


def _seconds(column: pl.Series) -> pl.Series:
    if column.dtype == pl.Time:
        return column.cast(pl.Int64).cast(pl.Float64) / 1e9  # nanoseconds since midnight
    return column.dt.total_microseconds().cast(pl.Float64) / 1e6


def _as_category(column: pl.Series, *, asked: bool) -> tuple[pl.Series | None, str]:
    text = column.cast(pl.String)
    if text.null_count() == len(text):
        return None, "every value is missing"
    different = text.n_unique()
    if different > _FEW and different > _NAMES * len(text) and not asked:
        return (
            None,
            f"{different} different texts in {len(text)} rows are names, no categories; `features` can ask for it",
        )
    return text.fill_null(""), ""
