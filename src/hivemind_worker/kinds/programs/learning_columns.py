"""What each column is to a model: a number, a category, or nothing; and the preprocessing that follows from it."""

from __future__ import annotations

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

CATEGORIES = 100
"""Most categories of one column that get an indicator each; the rarer ones share one."""

_NAMES = 0.5
"""A column of text of which more than this share are different values is names or free text, and no category."""

_FEW = 20


@dataclass
class Columns:
    """The table as models take it: numbers as floats (missing: NaN), categories as text (missing: empty)."""

    table: pl.DataFrame
    numeric: list[str]
    categorical: list[str]
    notes: list[str]

    def describe(self) -> list[dict[str, str]]:
        """Name and kind of each input, in the order of the table."""
        return [{"name": name, "kind": "number" if name in self.numeric else "category"} for name in self.table.columns]


def prepare(table: pl.DataFrame, asked: list[str]) -> Columns:
    """Sort the columns into numbers and categories. Columns in ``asked`` are kept whatever they look like."""
    numeric: list[str] = []
    categorical: list[str] = []
    notes: list[str] = []
    chosen: list[pl.Series] = []
    for column in table.iter_columns():
        found, why = _as_number(column) if not _is_text(column) else _as_category(column, asked=column.name in asked)
        if found is None:
            notes.append(f"column {column.name!r} is left out: {why}")
            continue
        if why:
            notes.append(f"column {column.name!r}: {why}")
        chosen.append(found)
        (categorical if _is_text(found) else numeric).append(column.name)
    if not chosen:
        raise given.Refusal("features: none of the columns can be learned from: " + "; ".join(notes)[:500])
    return Columns(pl.DataFrame(chosen), numeric, categorical, notes)


def preprocessing(columns: Columns, train: pl.DataFrame, *, scaled: bool) -> ColumnTransformer:
    """Missing numbers become the median, categories one indicator each, numbers one scale where that matters."""
    steps: list[tuple[str, Any, list[str]]] = []
    if columns.numeric:
        number: list[tuple[str, Any]] = [("missing", SimpleImputer(strategy="median", keep_empty_features=True))]
        if scaled:
            number.append(("scale", StandardScaler()))
        steps.append(("number", Pipeline(number), columns.numeric))
    plain = [name for name in columns.categorical if train[name].n_unique() <= CATEGORIES]
    many = [name for name in columns.categorical if name not in plain]
    if plain:
        encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False, drop="if_binary")
        steps.append(("category", encoder, plain))
    if many:
        rest = OneHotEncoder(handle_unknown="infrequent_if_exist", sparse_output=False, max_categories=CATEGORIES)
        steps.append(("many_categories", rest, many))
    return ColumnTransformer(steps, verbose_feature_names_out=False)


def target(column: pl.Series) -> npt.NDArray[Any]:
    """The target as models take it: text as objects, booleans and whole numbers as int64, others as float64."""
    if _is_text(column):
        return np.array(column.cast(pl.String).to_list(), dtype=object)
    if column.dtype == pl.Boolean or column.dtype.is_integer():
        return column.cast(pl.Int64).to_numpy()
    found, why = _as_number(column)
    if found is None:
        raise given.Refusal(f"target: the column {column.name!r} cannot be learned: {why}")
    values: npt.NDArray[Any] = found.to_numpy()
    if not np.isfinite(values).all():
        raise given.Refusal(f"target: the column {column.name!r} holds values that are missing or infinite")
    return values


def _is_text(column: pl.Series) -> bool:
    return column.dtype in {pl.String, pl.Categorical, pl.Enum}


def _as_number(column: pl.Series) -> tuple[pl.Series | None, str]:
    if column.null_count() == len(column):
        return None, "every value is missing"
    if column.dtype in {pl.Date, pl.Datetime}:
        days = column.cast(pl.Datetime("us")).dt.epoch("us").cast(pl.Float64) / 86_400_000_000
        return days.rename(column.name).fill_null(float("nan")), "a date, as days since 1970"
    if column.dtype in {pl.Time, pl.Duration}:
        return (
            (column.cast(pl.Int64).cast(pl.Float64) / 1e9).fill_null(float("nan")).rename(column.name),
            "a time, as its number",
        )
    if not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
        return None, f"{column.dtype} is neither a number nor a category"
    values = column.cast(pl.Float64).fill_null(float("nan"))
    infinite = values.is_infinite()
    if bool(infinite.any()):
        return (
            pl.select(pl.when(infinite).then(float("nan")).otherwise(values).alias(column.name)).to_series(),
            "infinite values count as missing",
        )
    return values, ""


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
