"""The data as networks take them: single precision, categories as indicators, classes as numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from sklearn.compose import ColumnTransformer

import given
import learning_columns
import learning_results

Array = npt.NDArray[Any]


@dataclass
class Source:
    """Where inputs come from: a table's columns, or an array of rows or of images (height, width, depth)."""

    columns: learning_columns.Columns | None
    array: Array | None
    targets: Array

    def describe(self) -> list[dict[str, Any]]:
        """What the network is fed with, before the preprocessing that is kept beside it."""
        if self.columns is not None:
            return list(self.columns.describe())
        assert self.array is not None
        return [{"name": "features", "kind": "array", "shape": list(self.array.shape[1:])}]


@dataclass
class Inputs:
    """Inputs of all rows, as the preprocessing makes them that has seen only the rows to learn from.

    ``centre`` and ``spread`` bring them to one scale; the network does that itself.
    """

    values: Array
    preprocessing: ColumnTransformer | None
    centre: Array
    spread: Array


def source(told: learning_results.Told) -> Source:
    """Prepare what does not depend on the split. Raises Refusal where the estimator cannot take it."""
    data = told.data
    assert data.target is not None  # networks have no problem without one
    if told.labels is not None:
        numbers = {label: at for at, label in enumerate(told.labels.tolist())}
        targets = np.array([numbers[label] for label in data.target.tolist()], dtype=np.int64)
    else:
        targets = data.target.astype(np.float64)  # the training brings them to one scale before it rounds them
    if isinstance(data.features, pl.DataFrame):
        if told.settings["estimator"] == "cnn":
            raise given.Refusal("estimator: cnn learns from images: arrays (npz), or the data set digits")
        columns = learning_columns.prepare(data.features, told.settings["features"], told.notes)
        for note in columns.notes:
            told.note(note)
        data.left_out |= columns.left_out
        return Source(columns, None, targets)
    array = data.features.astype(np.float32)
    if told.settings["estimator"] == "cnn":
        array = array[..., np.newaxis] if array.ndim == 3 else array
        if array.ndim != 4:
            raise given.Refusal(
                f"features: cnn takes images of shape (height, width) or (height, width, depth), not {array.shape[1:]}"
            )
    else:
        array = array.reshape(len(array), -1)
    return Source(None, array, targets)


def inputs(origin: Source, train: Array) -> Inputs:
    """Fit the preprocessing on the rows ``train`` and apply it to all."""
    preprocessing = None
    if origin.columns is not None:
        # Single precision tells days since 1970 apart by two minutes: a table is brought to one scale before.
        preprocessing = learning_columns.preprocessing(origin.columns, origin.columns.table[train], scaled=True)
        preprocessing.fit(origin.columns.table[train])
        values = np.asarray(preprocessing.transform(origin.columns.table), dtype=np.float32)
    else:
        assert origin.array is not None
        values = origin.array
    axes = tuple(range(values.ndim - 1))
    centre = values[train].mean(axis=axes, dtype=np.float64).astype(np.float32)
    spread = values[train].std(axis=axes, dtype=np.float64).astype(np.float32)
    return Inputs(values, preprocessing, centre, np.where(spread > 1e-12, spread, 1).astype(np.float32))
