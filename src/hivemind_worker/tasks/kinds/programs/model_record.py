"""What a kept model of scikit-learn says of itself, so that a later task can predict with it; and how it is asked."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

import learning_columns
import learning_results

Array = npt.NDArray[Any]
_ATTRIBUTE = "hivemind_record"
_PACKAGES = ("python", "scikit-learn", "numpy", "polars", "joblib")
_CATEGORIES = 10_000
"""Most categories of one column that are written down; of more, none is told to be strange."""


@dataclass
class Record:
    """Inputs in order (name, kind, what they were read as, categories or range seen), target, classes and versions."""

    inputs: list[dict[str, Any]]
    target: str
    problem: str
    estimator: str
    estimator_class: str
    class_names: dict[int, str]
    text_classes: bool
    versions: dict[str, str]


def attach(
    pipeline: Any,
    results: learning_results.Told,
    columns: learning_columns.Columns | None,
    train: pl.DataFrame | Array,
) -> None:
    """Write the record into the pipeline, as plain values that any Python reads; ``train`` is what it learned from."""
    inputs: list[dict[str, Any]] = []
    if columns is None:
        inputs.append({"name": "features", "kind": "array", "read_as": "array", "width": int(train.shape[1])})
    else:
        assert isinstance(train, pl.DataFrame)
        for known in columns.describe():
            seen = train[known["name"]]
            inputs.append({**known, "categories": _categories(seen), "range": _range(seen)})
    versions = learning_results.versions()
    record = Record(
        inputs,
        results.data.target_name,
        results.problem,
        results.settings["estimator"],
        results.content["class"],
        results.data.class_names,
        results.labels is not None and results.labels.dtype == object,
        {name: versions[name] for name in _PACKAGES if name in versions},
    )
    setattr(pipeline, _ATTRIBUTE, asdict(record))


def of(pipeline: Any) -> Record | None:
    """Return the record of a pipeline; None where it has none."""
    values = getattr(pipeline, _ATTRIBUTE, None)
    return Record(**values) if isinstance(values, dict) else None


def predict(pipeline: Any, inputs: pl.DataFrame | Array, results: learning_results.Told) -> learning_results.Predicted:
    """Ask the pipeline for values, and for the share of each class of ``results.labels`` where it has shares."""
    values = np.asarray(pipeline.predict(inputs))
    if results.problem != "classification" or not hasattr(pipeline, "predict_proba"):
        return learning_results.Predicted(values)
    shares = np.asarray(pipeline.predict_proba(inputs), dtype=float)
    assert results.labels is not None
    known = [str(label) for label in pipeline.classes_]
    if len(known) < len(results.labels):  # a fold, or a small part to learn from, that lacks a class
        wide = np.zeros((len(shares), len(results.labels)))
        wide[:, [[str(label) for label in results.labels].index(name) for name in known]] = shares
        shares = wide
    return learning_results.Predicted(values, shares)


def _categories(seen: pl.Series) -> list[str]:
    if not learning_columns.is_text(seen):
        return []
    different = seen.unique()
    return sorted(different.to_list()) if different.len() <= _CATEGORIES else []


def _range(seen: pl.Series) -> list[float]:
    numbers = seen.drop_nans() if seen.dtype.is_float() else seen.clear()
    return [float(numbers.min()), float(numbers.max())] if numbers.len() else []  # type: ignore[arg-type]
