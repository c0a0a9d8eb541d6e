"""How good predictions are: the usual scores of classes, of numbers and of clusters."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn import metrics

Array = npt.NDArray[Any]
_STEPS = 10
_SILHOUETTE_ROWS = 5_000  # it takes the square of that


def classes(actual: Array, predicted: Array, shares: Array | None, labels: Array) -> dict[str, Any]:
    """Scores of predicted classes; ``shares`` are the probabilities, a column for each of ``labels``."""
    averaged = {"average": "macro", "zero_division": 0.0, "labels": labels}
    found: dict[str, Any] = {
        "accuracy": metrics.accuracy_score(actual, predicted),
        "balanced_accuracy": _balanced(actual, predicted),
        "f1_macro": metrics.f1_score(actual, predicted, **averaged),
        "precision_macro": metrics.precision_score(actual, predicted, **averaged),
        "recall_macro": metrics.recall_score(actual, predicted, **averaged),
    }
    if shares is not None:
        found["log_loss"] = metrics.log_loss(actual, shares, labels=labels)
        found["roc_auc"] = _area(actual, shares, labels)
    return {name: None if value is None else float(value) for name, value in found.items()}


def _balanced(actual: Array, predicted: Array) -> float:
    """The mean of the recalls of those classes that are there."""
    there = np.unique(actual.astype(str)) if actual.dtype == object else np.unique(actual)
    return float(np.mean([np.mean(predicted[actual == label] == label) for label in there]))


def _area(actual: Array, shares: Array, labels: Array) -> float | None:
    """The area under the ROC curve, of several classes the mean of each against the rest; none where one is absent."""
    if len({str(label) for label in actual}) < len(labels):
        return None
    if len(labels) == 2:
        return float(metrics.roc_auc_score(actual == labels[1], shares[:, 1]))
    return float(np.mean([metrics.roc_auc_score(actual == label, shares[:, at]) for at, label in enumerate(labels)]))


def calibration(actual: Array, shares: Array, labels: Array) -> dict[str, Any]:
    """How far the model's certainty in what it says agrees with how often it is right, in ten steps of certainty.

    ``expected_calibration_error`` is the mean distance of the two, ``brier`` the mean square of the errors of all
    probabilities: 0 is best for both.
    """
    certainty = shares.max(axis=1)
    right = labels[shares.argmax(axis=1)] == actual
    steps = np.minimum((certainty * _STEPS).astype(int), _STEPS - 1)
    bins = [
        {
            "certainty": float(certainty[steps == step].mean()),
            "right": float(right[steps == step].mean()),
            "rows": int((steps == step).sum()),
        }
        for step in np.unique(steps)
    ]
    distance = sum(each["rows"] * abs(each["certainty"] - each["right"]) for each in bins) / len(actual)
    truth = np.array([[label == one for label in labels] for one in actual], dtype=float)
    brier = float(((shares - truth) ** 2).sum(axis=1).mean())
    return {"expected_calibration_error": float(distance), "brier": brier, "bins": bins}


def per_class(actual: Array, predicted: Array, labels: Array, names: list[str]) -> dict[str, Any]:
    """Precision, recall, F1 and rows of each class, and the confusion matrix: a row for each actual class."""
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        actual, predicted, labels=labels, zero_division=0.0
    )
    return {
        "per_class": {
            name: {
                "precision": float(precision[at]),
                "recall": float(recall[at]),
                "f1": float(f1[at]),
                "rows": int(support[at]),
            }
            for at, name in enumerate(names)
        },
        "confusion": metrics.confusion_matrix(actual, predicted, labels=labels).tolist(),
    }


def numbers(actual: Array, predicted: Array) -> dict[str, Any]:
    """Scores of predicted numbers, in the target's own units."""
    return {
        "r2": float(metrics.r2_score(actual, predicted)) if len(actual) > 1 else None,
        "mean_absolute_error": float(metrics.mean_absolute_error(actual, predicted)),
        "median_absolute_error": float(metrics.median_absolute_error(actual, predicted)),
        "root_mean_squared_error": float(metrics.root_mean_squared_error(actual, predicted)),
        "largest_error": float(metrics.max_error(actual, predicted)),
    }


def clusters(points: Array, labels: Array, target: Array | None, seed: int) -> dict[str, Any]:
    """How well apart the clusters are, and how far they agree with a target, where there is one."""
    found: dict[str, Any] = {"sizes": {str(label): int((labels == label).sum()) for label in np.unique(labels)}}
    if 2 <= len(np.unique(labels)) < len(labels):
        few = {"sample_size": _SILHOUETTE_ROWS, "random_state": seed} if len(labels) > _SILHOUETTE_ROWS else {}
        found["silhouette"] = float(metrics.silhouette_score(points, labels, **few))
        found["davies_bouldin"] = float(metrics.davies_bouldin_score(points, labels))
    if target is not None:
        found["adjusted_rand"] = float(metrics.adjusted_rand_score(target, labels))
        found["adjusted_mutual_information"] = float(metrics.adjusted_mutual_info_score(target, labels))
    return found


def summary(folds: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each score of cross-validation its values, their mean and their deviation."""
    found: dict[str, Any] = {}
    for name in folds[0]:
        values = [fold[name] for fold in folds]
        if all(isinstance(value, float) for value in values):
            found[name] = {"mean": float(np.mean(values)), "deviation": float(np.std(values)), "folds": values}
    return found
