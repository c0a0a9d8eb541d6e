"""scikit-learn's estimators as classes, what each needs of its inputs, and how the parameters of a task reach them."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn import (
    cluster,
    discriminant_analysis,
    dummy,
    ensemble,
    linear_model,
    mixture,
    naive_bayes,
    neighbors,
    neural_network,
    svm,
    tree,
)

import given

_MODULES = (
    *(cluster, discriminant_analysis, dummy, ensemble, linear_model, mixture),
    *(naive_bayes, neighbors, neural_network, svm, tree),
)

NOT_SCALED = (tree.BaseDecisionTree, ensemble.BaseEnsemble, dummy.DummyClassifier, dummy.DummyRegressor)
"""Trees ask where a number lies, not how large it is; all others want numbers of one scale."""

_HISTOGRAM = (ensemble.HistGradientBoostingClassifier, ensemble.HistGradientBoostingRegressor)
_SHARES = frozenset({"max_features", "max_samples", "min_samples_split"})
"""Parameters where 1 would be one of them and 1.0 all: the wire does not tell the two apart, and all is meant."""


def make(name: str, known: list[str], said: dict[str, Any], seed: int, labels: npt.NDArray[Any] | None) -> Any:
    """Return the estimator of that class with these parameters. Raises Refusal for one that it does not have."""
    chosen = next(getattr(module, name) for module in _MODULES if hasattr(module, name))
    parameters: dict[str, Any] = {}
    for parameter, value in said.items():
        if parameter not in known:
            raise given.Refusal(
                f"hyper_parameters.{parameter}: {name} has no such parameter; it has {', '.join(known)}"
            )
        parameters[parameter] = _converted(parameter, value, labels)
    there = inspect.signature(chosen).parameters
    if "random_state" in there:
        parameters["random_state"] = seed
    if "n_jobs" in there and name not in {"LogisticRegression", "LinearRegression"}:  # without effect there
        parameters["n_jobs"] = given.threads()
    if name in {"MLPClassifier", "MLPRegressor"}:
        parameters["verbose"] = True
    return chosen(**parameters)


def is_scaled(estimator: Any) -> bool:
    """Whether its inputs are brought to one scale."""
    return not isinstance(estimator, (*NOT_SCALED, *_HISTOGRAM))


def _converted(parameter: str, value: Any, labels: npt.NDArray[Any] | None) -> Any:
    if parameter in _SHARES and value == 1 and not isinstance(value, bool):
        return 1.0
    if parameter == "class_weight" and isinstance(value, dict):
        by_name = {str(label): label for label in ([] if labels is None else labels.tolist())}
        for name in value:
            if name not in by_name:
                raise given.Refusal(f"hyper_parameters.class_weight: there is no class {name!r}")
        return {by_name[name]: weight for name, weight in value.items()}
    if parameter == "hidden_layer_sizes" and isinstance(value, list):
        return tuple(value)
    return np.array(value, dtype=float) if parameter == "priors" and value is not None else value
