"""Training a network of any framework: the same data, options, words, scores and files; the framework only trains."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import joblib
import numpy as np
import numpy.typing as npt
from sklearn.model_selection import train_test_split

import given
import learning_data
import learning_plots
import learning_problem
import learning_results
import learning_scores
import network_data

Array = npt.NDArray[Any]

DEFAULTS: dict[str, Any] = {
    "hidden_layers": [64, 32],
    "activation": "relu",
    "batch_normalization": False,
    "class_weight": None,
    "dropout": 0.0,
    "learning_rate": 0.001,
    "momentum": 0.9,
    "optimizer": "adam",
    "validation_size": 0.1,
    "weight_decay": 0.0,
}
CNN_DEFAULTS: dict[str, Any] = {**DEFAULTS, "hidden_layers": [64], "filters": [16, 32], "kernel_size": 3}
EPOCHS = 50
BATCH_SIZE = 32
_LEAST_VALIDATED = 20
"""With fewer rows to learn from than this none are held back."""

_LINES = 200
_SILENCE_SECONDS = 10.0


@dataclass
class Job:
    """One training: what a framework is told. Targets of regression are in units of their own deviation.

    ``outputs`` is the number of classes, 1 for a number. ``say`` is called after each epoch with its losses, that of
    the rows held back NaN where there are none; it raises Refusal where the loss is no number any more.
    """

    inputs: Array
    targets: Array
    held_back: tuple[Array, Array] | None
    centre: Array
    spread: Array
    target_centre: float
    target_spread: float
    outputs: int
    classification: bool
    class_weights: Array | None
    estimator: str
    parameters: dict[str, Any]
    epochs: int
    batch_size: int
    patience: int
    seed: int
    say: Callable[[int, float, float], None]


class Trained(Protocol):
    """A trained network. ``kept`` is the epoch whose weights it has, counted from 1."""

    kept: int
    description: str
    weights: int

    def predict(self, inputs: Array) -> Array:
        """Probabilities, a column for each class; or numbers in the target's own units."""

    def save(self, about: dict[str, Any]) -> list[str]:
        """Write the model among the results; the names of the files."""


@dataclass
class _Losses:
    """The losses so far, and a line for each epoch; of many epochs some hundred lines, and one every ten seconds."""

    epochs: int
    prefix: str
    training: list[float] = field(default_factory=list)
    held_back: list[float] = field(default_factory=list)
    said: float = 0.0

    def say(self, epoch: int, training: float, held_back: float) -> None:
        if not math.isfinite(training):
            raise given.Refusal(
                f"the loss is no number any more after epoch {epoch}: try a lower hyper_parameters.learning_rate"
            )
        self.training.append(training)
        if math.isfinite(held_back):
            self.held_back.append(held_back)
        now = time.monotonic()
        every = max(1, self.epochs // _LINES)
        if epoch in {1, self.epochs} or epoch % every == 0 or now - self.said > _SILENCE_SECONDS:
            self.said = now
            more = f", validation loss {held_back:.6g}" if math.isfinite(held_back) else ""
            print(f"{self.prefix}epoch {epoch} of {self.epochs}: loss {training:.6g}{more}")


def learn(settings: dict[str, Any], train: Callable[[Job], Trained]) -> int:
    """Read, split, train, measure, write. 0 when the results are there."""
    data = learning_data.read(settings)
    problem = learning_problem.find(settings, data, ["classification", "regression"])
    told = learning_results.begin(settings, data, problem)
    origin = network_data.source(told)
    split = learning_problem.split(settings, data, problem, told.seed)
    print(f"read {len(data.rows):,} rows: {len(split.train):,} to learn from, {len(split.test):,} to be tested on")
    parameters = _parameters(settings)
    told.content["hyper_parameters"] = parameters
    told.content["inputs"] = origin.describe()
    if settings["cross_validation"]:
        _cross_validate(told, origin, split.train, train)
    with told.step("fit"):
        inputs = network_data.inputs(origin, split.train)
        job, losses = _job(told, origin, inputs, split.train, "")
        trained = train(job)
    told.content["network"] = {"layers": trained.description.splitlines(), "weights": trained.weights}
    told.content["epochs"] = {"asked": job.epochs, "run": len(losses.training), "kept": trained.kept}
    with told.step("measure"):
        _measure(told, trained, inputs, split)
        _write_losses(told, losses, trained.kept, early=bool(job.patience))
    _keep(told, trained, inputs)
    learning_results.write_metrics(told, split)
    return 0


def _parameters(settings: dict[str, Any]) -> dict[str, Any]:
    defaults = CNN_DEFAULTS if settings["estimator"] == "cnn" else DEFAULTS
    said = settings["hyper_parameters"]
    return {
        **defaults,
        # A share that was said as 1 came as a whole number, and Keras takes none.
        **{name: float(value) if isinstance(defaults[name], float) else value for name, value in said.items()},
        "epochs": settings["epochs"] or EPOCHS,
        "batch_size": settings["batch_size"] or BATCH_SIZE,
        "early_stopping": settings["early_stopping"],
    }


def _job(
    told: learning_results.Told, origin: network_data.Source, inputs: network_data.Inputs, rows: Array, prefix: str
) -> tuple[Job, _Losses]:
    """What the framework is to do with the rows to learn from, some of them held back to watch it."""
    parameters = told.content["hyper_parameters"]
    learned, held_back = _hold_back(told, origin.targets, rows, parameters)
    classification = told.labels is not None
    targets, centre, spread = origin.targets, 0.0, 1.0
    if not classification:
        centre, spread = float(targets[learned].mean()), float(targets[learned].std()) or 1.0
        targets = ((targets - centre) / spread).astype(np.float32)
    weights = None
    if told.labels is not None and parameters["class_weight"] == "balanced":
        counts = np.bincount(targets[learned], minlength=len(told.labels))
        weights = (len(learned) / (len(told.labels) * np.maximum(1, counts))).astype(np.float32)
    losses = _Losses(parameters["epochs"], prefix)
    job = Job(
        inputs=inputs.values[learned],
        targets=targets[learned],
        held_back=(inputs.values[held_back], targets[held_back]) if len(held_back) else None,
        centre=inputs.centre,
        spread=inputs.spread,
        target_centre=centre,
        target_spread=spread,
        outputs=len(told.labels) if told.labels is not None else 1,
        classification=classification,
        class_weights=weights,
        estimator=told.settings["estimator"],
        parameters=parameters,
        epochs=parameters["epochs"],
        batch_size=parameters["batch_size"],
        patience=parameters["early_stopping"],
        seed=told.seed,
        say=losses.say,
    )
    return job, losses


def _hold_back(
    told: learning_results.Told, targets: Array, rows: Array, parameters: dict[str, Any]
) -> tuple[Array, Array]:
    wanted = round(len(rows) * parameters["validation_size"])
    if len(rows) < _LEAST_VALIDATED or wanted < 1:
        if parameters["early_stopping"]:
            raise given.Refusal(
                "early_stopping: needs rows held back: at least 20 rows to learn from, and a validation_size above 0"
            )
        return rows, rows[:0]
    classes = None
    if told.labels is not None:
        counts = np.unique(targets[rows], return_counts=True)[1]
        if counts.min() >= 2 and wanted >= len(counts) and len(rows) - wanted >= len(counts):
            classes = targets[rows]
    learned, held_back = train_test_split(rows, test_size=wanted, random_state=told.seed, stratify=classes)
    return np.sort(learned), np.sort(held_back)


def _cross_validate(
    told: learning_results.Told, origin: network_data.Source, rows: Array, train: Callable[[Job], Trained]
) -> None:
    scores = []
    with told.step("cross_validation"):
        folds = learning_problem.folds(told.settings, origin.targets[rows], told.problem, told.seed)
        for at, (first, second) in enumerate(folds, start=1):
            inputs = network_data.inputs(origin, rows[first])
            job, _ = _job(told, origin, inputs, rows[first], f"fold {at}, ")
            trained = train(job)
            scores.append(told.score(rows[second], _predicted(told, trained, inputs.values[rows[second]])))
            name = "accuracy" if told.problem == "classification" else "r2"
            print(f"fold {at} of {len(folds)}: {name} {scores[-1][name]:.4f}")
    told.content["cross_validation"] = learning_scores.summary(scores)


def _predicted(told: learning_results.Told, trained: Trained, inputs: Array) -> learning_results.Predicted:
    said = trained.predict(inputs).astype(np.float64)
    if told.labels is None:
        return learning_results.Predicted(said.reshape(-1))
    shares = said / said.sum(axis=1, keepdims=True)
    return learning_results.Predicted(told.labels[shares.argmax(axis=1)], shares)


def _measure(
    told: learning_results.Told, trained: Trained, inputs: network_data.Inputs, split: learning_problem.Split
) -> None:
    """Scores of both parts, those of a model that knows nothing beside them, predictions and the plot."""
    told.content["train"] = told.score(split.train, _predicted(told, trained, inputs.values[split.train]))
    rows = split.test if len(split.test) else split.train
    predicted = _predicted(told, trained, inputs.values[rows])
    if len(split.test):
        told.content["test"] = told.score(rows, predicted)
    told.content["baseline"] = told.baseline(split.train, rows)
    learning_results.write_predictions(told, rows, predicted)
    part = "test" if len(split.test) else "training"
    learning_results.draw(
        told,
        rows,
        predicted,
        f"{told.settings['estimator']} of {told.settings['model_type']}, {len(rows):,} {part} rows",
    )


def _write_losses(told: learning_results.Told, losses: _Losses, kept: int, *, early: bool) -> None:
    with (given.RESULTS / "history.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["epoch", "loss", *(["validation_loss"] if losses.held_back else [])])
        for at, loss in enumerate(losses.training):
            writer.writerow([at + 1, repr(loss), *([repr(losses.held_back[at])] if losses.held_back else [])])
    curves = {"training": losses.training} | ({"validation": losses.held_back} if losses.held_back else {})
    title = f"{told.settings['estimator']} of {told.settings['model_type']}"
    learning_plots.learning_curve(curves, step="epoch", title=title, best=kept if early else None)


def _keep(told: learning_results.Told, trained: Trained, inputs: network_data.Inputs) -> None:
    with told.step("save"):
        about = {
            "estimator": told.settings["estimator"],
            "problem": told.problem,
            "classes": told.names,
            "inputs": told.content["inputs"],
            "hyper_parameters": told.content["hyper_parameters"],
        }
        files = trained.save(about)
        if inputs.preprocessing is not None:
            joblib.dump(inputs.preprocessing, given.RESULTS / "preprocessing.joblib", compress=3)
            files.append("preprocessing.joblib")
    told.content["model_files"] = files
