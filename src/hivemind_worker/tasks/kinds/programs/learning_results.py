"""What a training hands back: metrics.json, predictions.csv, versions.json, and the words on the way."""

from __future__ import annotations

import csv
import functools
import importlib.metadata
import platform
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

import given
import learning_data
import learning_plots
import learning_problem
import learning_scores
import model_card

Array = npt.NDArray[Any]

_SHOWN = ("accuracy", "balanced_accuracy", "roc_auc", "r2", "root_mean_squared_error", "silhouette", "adjusted_rand")


@dataclass
class Predicted:
    """What a model says of some rows: classes or numbers, and the probability of each class where it tells."""

    values: Array
    shares: Array | None = None


@dataclass
class Told:
    """One training's account, to become metrics.json. ``labels`` are the classes, ``names`` what they are called."""

    settings: dict[str, Any]
    data: learning_data.Data
    problem: str
    seed: int
    labels: Array | None = None
    names: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    content: dict[str, Any] = field(default_factory=dict)

    def name_classes(self) -> None:
        """Find the classes, in order; a data set that knows their names lends them."""
        assert self.data.target is not None
        target = self.data.target
        self.labels = np.array(sorted(set(target)), dtype=object) if target.dtype == object else np.unique(target)
        self.names = [self.data.class_names.get(label, str(label)) for label in self.labels.tolist()]

    def score(self, rows: Array, predicted: Predicted) -> dict[str, Any]:
        """The scores of predictions for these rows."""
        assert self.data.target is not None
        actual = self.data.target[rows]
        if self.problem == "regression":
            return learning_scores.numbers(actual, predicted.values)
        assert self.labels is not None
        return learning_scores.classes(actual, predicted.values, predicted.shares, self.labels)

    def baseline(self, train: Array, rows: Array) -> dict[str, Any]:
        """The scores of always saying the commonest class of the rows ``train``, or their mean."""
        assert self.data.target is not None
        learned = self.data.target[train]
        if self.labels is None:
            said = np.full(len(rows), learned.mean())
        else:
            counts = [int((learned == label).sum()) for label in self.labels]
            said = np.full(len(rows), self.labels[int(np.argmax(counts))], dtype=learned.dtype)
        return self.score(rows, Predicted(said))

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Take the time of a step, and keep what libraries warn of as a note, each warning once."""
        began = time.perf_counter()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - began, 3)
        for warning in caught:
            if not issubclass(warning.category, (DeprecationWarning, FutureWarning, PendingDeprecationWarning)):
                self.note(" ".join(str(warning.message).split())[:300])

    def note(self, text: str) -> None:
        """Keep a remark for whoever reads the metrics, once."""
        if text not in self.notes:
            self.notes.append(text)
            print(f"note: {text}")


def begin(settings: dict[str, Any], data: learning_data.Data, problem: str) -> Told:
    """Start the account of a training. Without a seed it is 0: the same task gives the same result."""
    told = Told(settings, data, problem, settings["seed"] or 0)
    for note in data.notes:
        told.note(note)
    if problem == "classification":
        told.name_classes()
    return told


def write_metrics(told: Told, split: learning_problem.Split) -> None:
    """Write metrics.json and versions.json, and say the scores."""
    settings = told.settings
    used = versions()
    given.write_json("versions.json", used)
    for part in ("test", "train"):
        scores = told.content.get(part)
        if scores:
            shown = [f"{name} {scores[name]:.4g}" for name in _SHOWN if scores.get(name) is not None]
            print(f"{part}: {', '.join(shown)}")
    metrics: dict[str, Any] = {
        "model_type": settings["model_type"],
        "estimator": settings["estimator"],
        "problem": told.problem,
        "target": told.data.target_name or None,
        **({"classes": told.names} if told.labels is not None else {}),
        "rows": {"train": len(split.train), "test": len(split.test)},
        "data": told.data.describe(),
        "seed": told.seed,
        **told.content,
        "seconds": told.seconds,
        "notes": told.notes,
        "versions": used,
    }
    given.write_json("metrics.json", metrics)
    if settings["training_data"]:
        model_card.write(metrics, settings["training_data"])


def draw(told: Told, rows: Array, predicted: Predicted, title: str) -> None:
    """Draw the plot of the problem, and keep the scores of each class."""
    assert told.data.target is not None
    actual = told.data.target[rows]
    if told.labels is None:
        learning_plots.residuals(actual, predicted.values, told.data.target_name, title)
        return
    detail = learning_scores.per_class(actual, predicted.values, told.labels, told.names)
    told.content |= detail
    learning_plots.confusion(detail["confusion"], told.names, title)


def write_predictions(told: Told, rows: Array, predicted: Predicted) -> None:
    """Write predictions.csv: the row's number where it comes from, what is true, what the model says."""
    target = told.data.target
    with (given.RESULTS / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        shares = predicted.shares
        header = ["row", *(["actual"] if target is not None else []), "predicted"]
        writer.writerow([*header, *([f"probability {name}" for name in told.names] if shares is not None else [])])
        for at, row in enumerate(rows.tolist()):
            line = [told.data.rows[row], *([_word(told, target[row])] if target is not None else [])]
            line.append(_word(told, predicted.values[at]))
            writer.writerow([*line, *([f"{share:.9g}" for share in shares[at]] if shares is not None else [])])


def _word(told: Told, value: Any) -> Any:
    """A class by its name, a number so that it reads back the same."""
    if told.labels is not None:
        return told.data.class_names.get(value, value)
    return repr(float(value)) if isinstance(value, float | np.floating) else value


@functools.cache
def versions() -> dict[str, str]:
    """Python and every package that is installed beside the program."""
    found = {dist.name: dist.version for dist in importlib.metadata.distributions() if dist.name}
    return {"python": platform.python_version(), **dict(sorted(found.items(), key=lambda item: item[0].lower()))}
