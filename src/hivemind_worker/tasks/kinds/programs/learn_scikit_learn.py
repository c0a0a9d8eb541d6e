"""Trains an estimator of scikit-learn: preprocessing and model in one pipeline, measured, kept as joblib and ONNX."""

from __future__ import annotations

from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
import polars as pl
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.utils._param_validation import InvalidParameterError
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.validation import has_fit_parameter

import given
import learning_columns
import learning_data
import learning_plots
import learning_problem
import learning_results
import learning_scores
import model_record
import scikit_learn_estimators
import scikit_learn_onnx
import scikit_learn_search

Array = npt.NDArray[Any]
Inputs = pl.DataFrame | Array

_IMPORTANCE_ROWS = 500
_IMPORTANCE_FEATURES = 50


def learn(settings: dict[str, Any]) -> int:
    """Read, split, search, fit, measure, write. 0 when the results are there."""
    data = learning_data.read(settings)
    problem = learning_problem.find(settings, data, list(settings["classes"]))
    told = learning_results.begin(settings, data, problem)
    columns, inputs = _inputs(told)
    split = learning_problem.split(settings, data, problem, told.seed)
    print(f"read {len(data.rows):,} rows: {len(split.train):,} to learn from, {len(split.test):,} to be tested on")
    told.content["class"] = settings["classes"][problem]["name"]
    target = data.target if problem != "clustering" else None
    parameters = dict(settings["hyper_parameters"])
    if settings["search"]:
        assert target is not None  # clustering has none, and the task was refused
        with told.step("search"):
            parameters |= _search(told, columns, inputs, target, split.train)
    estimator = _estimator(told, parameters)
    pipeline = _pipeline(told, estimator, columns, _take(inputs, split.train))
    if settings["cross_validation"]:
        assert target is not None  # as above
        _cross_validate(told, pipeline, inputs, target, split.train)
    with told.step("fit"):
        _fit(told, pipeline, _take(inputs, split.train), None if target is None else target[split.train])
    print(f"fitted {told.content['class']} in {told.seconds['fit']:g} s")
    told.content["hyper_parameters"] = _parameters(estimator)
    told.content |= {name: settings[name] for name in ("class_weight", "missing") if settings[name]}
    told.content["inputs"] = columns.describe() if columns is not None else [{"name": "features", "kind": "array"}]
    with told.step("measure"):
        (_measure_clusters if problem == "clustering" else _measure)(told, pipeline, inputs, split)
        _curve(told, estimator)
    _keep(told, pipeline, inputs, columns, split)
    learning_results.write_metrics(told, split)
    return 0


def _estimator(told: learning_results.Told, parameters: dict[str, Any]) -> Any:
    chosen = told.settings["classes"][told.problem]
    return scikit_learn_estimators.make(chosen["name"], chosen["parameters"], parameters, told.seed, told.labels)


def _search(
    told: learning_results.Told, columns: learning_columns.Columns | None, inputs: Inputs, target: Array, rows: Array
) -> dict[str, Any]:
    def evaluate(candidate: dict[str, Any], train: Array, test: Array) -> dict[str, Any]:
        estimator = _estimator(told, told.settings["hyper_parameters"] | candidate)
        pipeline = _pipeline(told, estimator, columns, _take(inputs, train))
        _fit(told, pipeline, _take(inputs, train), target[train], quiet=True)
        return told.score(test, model_record.predict(pipeline, _take(inputs, test), told))

    return scikit_learn_search.search(told, rows, target, evaluate)


def _inputs(told: learning_results.Told) -> tuple[learning_columns.Columns | None, Inputs]:
    features = told.data.features
    if isinstance(features, pl.DataFrame):
        columns = learning_columns.prepare(features, told.settings["features"], told.notes)
        for note in columns.notes:
            told.note(note)
        told.data.left_out |= columns.left_out
        return columns, columns.table
    flat = features.reshape(len(features), -1)
    if flat.shape[1] != features.shape[-1]:
        told.note(f"each row of shape {features.shape[1:]} is learned from as {flat.shape[1]} numbers")
    return None, flat


def _pipeline(
    told: learning_results.Told, estimator: Any, columns: learning_columns.Columns | None, train: Inputs
) -> Pipeline:
    scaled = scikit_learn_estimators.is_scaled(estimator)
    missing = told.settings["missing"] or "median"
    first: Any
    if columns is not None:
        assert isinstance(train, pl.DataFrame)
        first = learning_columns.preprocessing(columns, train, scaled=scaled, missing=missing)
    else:
        first = learning_columns.numbers(missing, scaled=scaled)
    method = told.settings["calibration"]
    if method and told.problem == "classification":
        estimator = CalibratedClassifierCV(estimator, method=method)
    return Pipeline([("preprocessing", first), ("model", estimator)])


def _take(inputs: Inputs, rows: Array) -> Inputs:
    return inputs[rows]


def _fit(
    told: learning_results.Told, pipeline: Pipeline, inputs: Inputs, target: Array | None, *, quiet: bool = False
) -> None:
    estimator = pipeline[-1]
    extra: dict[str, Any] = {}
    if told.settings["class_weight"] and target is not None:
        extra["model__sample_weight"] = _row_weights(told, estimator, target)
    if isinstance(estimator, (GradientBoostingClassifier, GradientBoostingRegressor)) and not quiet:
        extra["model__monitor"] = _say_trees
    middle, spread = 0.0, 1.0
    if target is not None and isinstance(estimator, MLPRegressor) and estimator.loss == "squared_error":
        middle, spread = float(np.mean(target)), float(np.std(target)) or 1.0
        target = (target - middle) / spread
    try:
        pipeline.fit(inputs, target, **extra)
    except InvalidParameterError as error:
        raise given.Refusal(f"hyper_parameters: {error}") from None
    except ValueError as error:
        raise given.Refusal(f"{told.settings['estimator']} cannot learn this: {error}") from None
    if (middle, spread) != (
        0.0,
        1.0,
    ):  # it learns slowly what is far from 0; its last layer is linear, and so takes the units back in
        estimator.coefs_[-1] *= spread
        estimator.intercepts_[-1] = estimator.intercepts_[-1] * spread + middle


def _row_weights(told: learning_results.Told, estimator: Any, target: Array) -> Array:
    """A weight for each row, by its class. Raises Refusal where the estimator takes none, or for an unknown class."""
    weights = told.settings["class_weight"]
    inner = getattr(estimator, "estimator", estimator)
    if not has_fit_parameter(inner, "sample_weight"):
        raise given.Refusal(
            f"class_weight: {type(inner).__name__} learns from all rows alike; choose another estimator"
        )
    if weights == "balanced":
        return np.asarray(compute_sample_weight("balanced", target))
    by_name = {str(label): label for label in told.labels.tolist()} if told.labels is not None else {}
    by_name |= {name: label for name, label in zip(told.names, by_name.values(), strict=False) if name not in by_name}
    for name in weights:
        if name not in by_name:
            raise given.Refusal(f"class_weight: there is no class {name!r}; there are {', '.join(told.names[:20])}")
    of_class = {by_name[name]: weight for name, weight in weights.items()}
    return np.array([of_class.get(label, 1.0) for label in target.tolist()])


def _say_trees(at: int, model: Any, _: dict[str, Any]) -> bool:
    """A line for each tenth of the trees; never ends the training."""
    trees = model.n_estimators
    if (at + 1) % max(1, trees // 10) == 0:
        print(f"tree {at + 1} of {trees}: loss {model.train_score_[at]:.6g}")
    return False


def _cross_validate(
    told: learning_results.Told, pipeline: Pipeline, inputs: Inputs, target: Array, rows: Array
) -> None:
    scores = []
    with told.step("cross_validation"):
        folds = learning_problem.folds(told.settings, target[rows], told.problem, told.seed)
        for at, (train, test) in enumerate(folds, start=1):
            _fit(told, pipeline, _take(inputs, rows[train]), target[rows[train]])
            scores.append(told.score(rows[test], model_record.predict(pipeline, _take(inputs, rows[test]), told)))
            name = "accuracy" if told.problem == "classification" else "r2"
            value = scores[-1][name]
            print(f"fold {at} of {len(folds)}: {name} " + ("none" if value is None else f"{value:.4f}"))
    told.content["cross_validation"] = learning_scores.summary(scores)


def _measure(told: learning_results.Told, pipeline: Pipeline, inputs: Inputs, split: learning_problem.Split) -> None:
    """Scores of both parts, those of a model that knows nothing beside them, predictions and the plot."""
    told.content["train"] = told.score(split.train, model_record.predict(pipeline, _take(inputs, split.train), told))
    rows = split.test if len(split.test) else split.train
    predicted = model_record.predict(pipeline, _take(inputs, rows), told)
    if len(split.test):
        told.content["test"] = told.score(rows, predicted)
    told.content["baseline"] = told.baseline(split.train, rows)
    learning_results.write_predictions(told, rows, predicted)
    part = "test" if len(split.test) else "training"
    learning_results.draw(told, rows, predicted, f"{told.content['class']}, {len(rows):,} {part} rows")
    if predicted.shares is not None:
        assert told.data.target is not None
        assert told.labels is not None
        told.content["calibration"] = learning_scores.calibration(
            told.data.target[rows], predicted.shares, told.labels
        ) | {"method": told.settings["calibration"] or None}
        if told.settings["calibration"]:
            learning_plots.calibration(
                told.content["calibration"]["bins"], f"{told.content['class']}, {len(rows):,} rows"
            )
    if isinstance(inputs, pl.DataFrame) and inputs.width > _IMPORTANCE_FEATURES:
        told.note(
            f"importance is not measured for more than {_IMPORTANCE_FEATURES} columns, and there are {inputs.width}"
        )
    elif isinstance(inputs, pl.DataFrame):
        told.content["importance"] = _importance(told, pipeline, inputs, rows[:_IMPORTANCE_ROWS])


def _importance(told: learning_results.Told, pipeline: Pipeline, inputs: pl.DataFrame, rows: Array) -> dict[str, float]:
    """How much accuracy, or R², is lost where one column is shuffled: the mean of five times, the largest first."""
    score = "accuracy" if told.problem == "classification" else "r2"
    table = inputs[rows]
    whole = told.score(rows, learning_results.Predicted(np.asarray(pipeline.predict(table))))[score]
    lost: dict[str, float] = {}
    for name in table.columns:
        scores = []
        for repeat in range(5):
            mixed = table.with_columns(table[name].shuffle(seed=told.seed + repeat))
            scores.append(told.score(rows, learning_results.Predicted(np.asarray(pipeline.predict(mixed))))[score])
        lost[name] = whole - float(np.mean(scores))
    return dict(sorted(lost.items(), key=lambda pair: -pair[1]))


def _measure_clusters(
    told: learning_results.Told, pipeline: Pipeline, inputs: Inputs, split: learning_problem.Split
) -> None:
    target = told.data.target
    for part, rows in (("train", split.train), ("test", split.test)):
        if len(rows):
            points = np.asarray(pipeline[:-1].transform(_take(inputs, rows)))
            labels = np.asarray(pipeline.predict(_take(inputs, rows)))
            actual = None if target is None else target[rows]
            told.content[part] = learning_scores.clusters(points, labels, actual, told.seed)
            learning_results.write_predictions(told, rows, learning_results.Predicted(labels))
            learning_plots.clusters(points, labels, f"{told.content['class']}, {len(rows):,} rows")


def _curve(told: learning_results.Told, estimator: Any) -> None:
    """Where the estimator learns step by step and keeps its loss, the curve of it."""
    losses = next(
        (getattr(estimator, name) for name in ("loss_curve_", "train_score_") if hasattr(estimator, name)), None
    )
    if losses is not None and len(losses) > 1 and hasattr(estimator, "fit"):
        values = [abs(float(loss)) for loss in losses]
        step = "epoch" if hasattr(estimator, "loss_curve_") else "tree"
        learning_plots.learning_curve({"training": values}, step=step, title=told.content["class"])


def _parameters(estimator: Any) -> dict[str, Any]:
    """Those in force, said or not; without what the program sets for itself."""
    own = {"n_jobs", "verbose", "warm_start"}
    every = estimator.get_params(deep=False).items()
    found = {name: value for name, value in every if name not in own and not _is_deprecated(value)}
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in found.items()}


def _is_deprecated(value: Any) -> bool:
    """How scikit-learn marks a parameter that has no effect any more."""
    return isinstance(value, str) and value == "deprecated"


def _keep(
    told: learning_results.Told,
    pipeline: Pipeline,
    inputs: Inputs,
    columns: learning_columns.Columns | None,
    split: learning_problem.Split,
) -> None:
    with told.step("save"):
        model_record.attach(pipeline, told, columns, _take(inputs, split.train))
        joblib.dump(pipeline, given.RESULTS / "model.joblib", compress=3)
        rows = split.test if len(split.test) else split.train
        found = scikit_learn_onnx.export(pipeline, _take(inputs, rows), columns, classes=told.problem != "regression")
    told.content["onnx"] = found
    if "why_not" in found:
        told.note(f"no model.onnx: {found['why_not']}")
