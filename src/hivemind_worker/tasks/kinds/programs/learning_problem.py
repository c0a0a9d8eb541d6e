"""Which problem it is, as the target tells it, and the split into rows to learn from and rows to be tested on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split

import given
import learning_data

Array = npt.NDArray[Any]

CLASSES = 20
"""Whole numbers of at most so many different values are classes, where nobody says otherwise."""

MOST_CLASSES = 1_000
TEST_SIZE = 0.2
"""The share of rows to be tested on, where nobody says otherwise."""


@dataclass
class Split:
    """Indices of the rows to learn from and of those to be tested on; the latter may be none."""

    train: Array
    test: Array


def find(settings: dict[str, Any], data: learning_data.Data, solved: list[str]) -> str:
    """Return the problem; ``solved`` are those that the estimator is made for."""
    said: str = settings["problem"]
    if said or len(solved) == 1:
        problem = said or solved[0]
    else:
        assert data.target is not None  # without one it is clustering, which no estimator shares with another problem
        problem = "classification" if _is_classes(data.target) else "regression"
        if problem not in solved:
            raise given.Refusal(
                f"problem: the target says {problem}, and {settings['estimator']} does {solved[0]} only"
            )
    if problem == "regression" and data.target is not None and data.target.dtype == object:
        raise given.Refusal(f"target: {data.target_name!r} holds text, and regression learns numbers")
    if problem == "classification" and data.target is not None:
        data.target = _as_classes(data.target, data.target_name)
    if problem == "regression" and data.target is not None:
        data.target = data.target.astype(np.float64)
    return problem


def _is_classes(target: Array) -> bool:
    if target.dtype == object:
        return True
    if target.dtype == bool:
        return True
    different = np.unique(target)
    return len(different) <= min(CLASSES, max(2, len(target) // 2)) and bool((different == np.round(different)).all())


def _as_classes(target: Array, name: str) -> Array:
    if target.dtype == bool:
        target = np.where(target, "true", "false").astype(object)
    if target.dtype.kind == "f" and bool((target == np.round(target)).all()):
        target = target.astype(np.int64)
    count = len(np.unique(target.astype(str) if target.dtype == object else target))
    if count < 2:
        raise given.Refusal(f"target: {name!r} has one class only; there is nothing to tell apart")
    if count > MOST_CLASSES or (target.dtype.kind == "f" and count > CLASSES):
        raise given.Refusal(f"target: {name!r} has {count:,} different values; for numbers say problem: regression")
    return target


def split(settings: dict[str, Any], data: learning_data.Data, problem: str, seed: int) -> Split:
    """Part the rows: as the file does, else at random by ``seed``, each class by its share where that can be."""
    count = len(data.rows)
    everything = np.arange(count)
    said = settings["test_size"]
    if data.test_rows is not None and said is None:
        return Split(everything[: count - data.test_rows], everything[count - data.test_rows :])
    size = TEST_SIZE if said is None else said
    if size == 0:
        return Split(everything, everything[:0])
    wanted = round(count * size) if size < 1 else int(size)
    if problem == "clustering" and said is None:
        return Split(everything, everything[:0])
    if not 1 <= wanted <= count - 2:
        raise given.Refusal(f"test_size: {size:g} is {wanted} of {count} rows; at least 2 must remain to learn from")
    classes = data.target if problem == "classification" else None
    if classes is not None:
        counts = np.unique(classes, return_counts=True)[1]
        if counts.min() < 2 or wanted < len(counts) or count - wanted < len(counts):
            data.notes.append(
                "some classes are too small to be in both parts by their share: the split is plainly random"
            )
            classes = None
    train, test = train_test_split(everything, test_size=wanted, random_state=seed, stratify=classes)
    return Split(np.sort(train), np.sort(test))


def folds(settings: dict[str, Any], target: Array, problem: str, seed: int) -> list[tuple[Array, Array]]:
    """The folds of cross-validation within the rows to learn from."""
    count: int = settings["cross_validation"]
    if count > len(target):
        raise given.Refusal(f"cross_validation: {count} folds of {len(target)} rows")
    if problem == "classification":
        least = int(np.unique(target, return_counts=True)[1].min())
        if least >= count:
            return list(StratifiedKFold(count, shuffle=True, random_state=seed).split(target, target))
    return list(KFold(count, shuffle=True, random_state=seed).split(target))
