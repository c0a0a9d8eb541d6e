"""The estimators that an ml task may name: for each the problems it solves and the parameters it takes. Pure tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hivemind_worker import errors
from hivemind_worker.tasks import checks

PROBLEMS = ("classification", "regression", "clustering")
"""What can be learned: a class, a number, or which rows belong together."""

Check = Callable[[str, object], object]
"""Takes the field's name and its value, and returns the value or raises InvalidTask."""

_TREE = (
    *("ccp_alpha", "criterion", "max_depth", "max_features", "max_leaf_nodes", "min_impurity_decrease"),
    *("min_samples_leaf", "min_samples_split", "min_weight_fraction_leaf"),
)
_FOREST = (*_TREE, "bootstrap", "max_samples", "n_estimators", "oob_score")
_BOOSTED = (
    *(name for name in _TREE if name != "criterion"),
    *("learning_rate", "loss", "n_estimators", "n_iter_no_change", "subsample", "tol", "validation_fraction"),
)
_HISTOGRAM = (
    *("early_stopping", "l2_regularization", "learning_rate", "loss", "max_bins", "max_depth", "max_features"),
    *("max_iter", "max_leaf_nodes", "min_samples_leaf", "n_iter_no_change", "scoring", "tol", "validation_fraction"),
)
_GRADIENT = (
    *("alpha", "average", "early_stopping", "epsilon", "eta0", "fit_intercept", "l1_ratio", "learning_rate", "loss"),
    *("max_iter", "n_iter_no_change", "penalty", "power_t", "shuffle", "tol", "validation_fraction"),
)
_RIDGE = ("alpha", "fit_intercept", "max_iter", "positive", "solver", "tol")
_LASSO = ("alpha", "fit_intercept", "max_iter", "positive", "selection", "tol")
_KERNEL = ("C", "cache_size", "coef0", "degree", "gamma", "kernel", "max_iter", "shrinking", "tol")
_LINEAR_KERNEL = ("C", "dual", "fit_intercept", "intercept_scaling", "loss", "max_iter", "tol")
_NEIGHBORS = ("algorithm", "leaf_size", "metric", "n_neighbors", "p", "weights")
_PERCEPTRON = (
    *("activation", "alpha", "batch_size", "beta_1", "beta_2", "early_stopping", "epsilon", "hidden_layer_sizes"),
    *("learning_rate", "learning_rate_init", "max_fun", "max_iter", "momentum", "n_iter_no_change"),
    *("nesterovs_momentum", "power_t", "shuffle", "solver", "tol", "validation_fraction"),
)


@dataclass(frozen=True, slots=True)
class Named:
    """A class of scikit-learn and those of its parameters that a task may set.

    Left out are those that hold objects, and those that the program itself sets: the seed, the threads, the words.
    """

    name: str
    parameters: tuple[str, ...]


SCIKIT_LEARN: Mapping[str, Mapping[str, Named]] = {
    "linear_regression": {"regression": Named("LinearRegression", ("fit_intercept", "positive", "tol"))},
    "logistic_regression": {
        "classification": Named(
            "LogisticRegression",
            (
                "C",
                "class_weight",
                "dual",
                "fit_intercept",
                "intercept_scaling",
                "l1_ratio",
                "max_iter",
                "solver",
                "tol",
            ),
        )
    },
    "ridge": {
        "classification": Named("RidgeClassifier", (*_RIDGE, "class_weight")),
        "regression": Named("Ridge", _RIDGE),
    },
    "lasso": {"regression": Named("Lasso", _LASSO)},
    "elastic_net": {"regression": Named("ElasticNet", (*_LASSO, "l1_ratio"))},
    "bayesian_ridge": {
        "regression": Named(
            "BayesianRidge",
            (
                *("alpha_1", "alpha_2", "alpha_init", "fit_intercept"),
                *("lambda_1", "lambda_2", "lambda_init", "max_iter", "tol"),
            ),
        )
    },
    "huber": {"regression": Named("HuberRegressor", ("alpha", "epsilon", "fit_intercept", "max_iter", "tol"))},
    "poisson": {"regression": Named("PoissonRegressor", ("alpha", "fit_intercept", "max_iter", "solver", "tol"))},
    "sgd": {
        "classification": Named("SGDClassifier", (*_GRADIENT, "class_weight")),
        "regression": Named("SGDRegressor", _GRADIENT),
    },
    "decision_tree": {
        "classification": Named("DecisionTreeClassifier", (*_TREE, "class_weight", "splitter")),
        "regression": Named("DecisionTreeRegressor", (*_TREE, "splitter")),
    },
    "random_forest": {
        "classification": Named("RandomForestClassifier", (*_FOREST, "class_weight")),
        "regression": Named("RandomForestRegressor", _FOREST),
    },
    "extra_trees": {
        "classification": Named("ExtraTreesClassifier", (*_FOREST, "class_weight")),
        "regression": Named("ExtraTreesRegressor", _FOREST),
    },
    "gradient_boosting": {
        "classification": Named("GradientBoostingClassifier", _BOOSTED),
        "regression": Named("GradientBoostingRegressor", (*_BOOSTED, "alpha")),
    },
    "hist_gradient_boosting": {
        "classification": Named("HistGradientBoostingClassifier", (*_HISTOGRAM, "class_weight")),
        "regression": Named("HistGradientBoostingRegressor", (*_HISTOGRAM, "quantile")),
    },
    "ada_boost": {
        "classification": Named("AdaBoostClassifier", ("learning_rate", "n_estimators")),
        "regression": Named("AdaBoostRegressor", ("learning_rate", "loss", "n_estimators")),
    },
    "svm": {
        "classification": Named("SVC", (*_KERNEL, "break_ties", "class_weight", "decision_function_shape")),
        "regression": Named("SVR", (*_KERNEL, "epsilon")),
    },
    "linear_svm": {
        "classification": Named("LinearSVC", (*_LINEAR_KERNEL, "class_weight", "multi_class", "penalty")),
        "regression": Named("LinearSVR", (*_LINEAR_KERNEL, "epsilon")),
    },
    "k_nearest_neighbors": {
        "classification": Named("KNeighborsClassifier", _NEIGHBORS),
        "regression": Named("KNeighborsRegressor", _NEIGHBORS),
    },
    "naive_bayes": {"classification": Named("GaussianNB", ("priors", "var_smoothing"))},
    "discriminant_analysis": {
        "classification": Named(
            "LinearDiscriminantAnalysis",
            ("n_components", "priors", "shrinkage", "solver", "store_covariance", "tol"),
        )
    },
    "mlp": {
        "classification": Named("MLPClassifier", _PERCEPTRON),
        "regression": Named("MLPRegressor", (*_PERCEPTRON, "loss")),
    },
    "baseline": {
        "classification": Named("DummyClassifier", ("strategy",)),
        "regression": Named("DummyRegressor", ("quantile", "strategy")),
    },
    "k_means": {"clustering": Named("KMeans", ("algorithm", "init", "max_iter", "n_clusters", "n_init", "tol"))},
    "mini_batch_k_means": {
        "clustering": Named(
            "MiniBatchKMeans",
            (
                *("batch_size", "init", "init_size", "max_iter"),
                *("max_no_improvement", "n_clusters", "n_init", "reassignment_ratio", "tol"),
            ),
        )
    },
    "gaussian_mixture": {
        "clustering": Named(
            "GaussianMixture",
            ("covariance_type", "init_params", "max_iter", "n_components", "n_init", "reg_covar", "tol"),
        )
    },
}
"""scikit-learn's estimators by the name in ``estimator``: for each problem that it solves the class."""


def _whole(least: int, most: int) -> Check:
    return lambda field, value: checks.whole(field, value, least, most)


def _number(least: float, most: float) -> Check:
    def check(field: str, value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise errors.InvalidTask(field, f"must be a number between {least:g} and {most:g}, not {str(value)[:40]!r}")
        return value

    return check


def _choice(*choices: str) -> Check:
    def check(field: str, value: object) -> object:
        if not isinstance(value, str) or value not in choices:
            raise errors.InvalidTask(field, f"{str(value)[:40]!r} is not one of {', '.join(choices)}")
        return value

    return check


def _flag(field: str, value: object) -> object:
    if not isinstance(value, bool):
        raise errors.InvalidTask(field, f"must be true or false, not {str(value)[:40]!r}")
    return value


def _sizes(most_layers: int, most: int, *, least_layers: int = 0) -> Check:
    def check(field: str, value: object) -> object:
        if not isinstance(value, (list, tuple)) or not least_layers <= len(value) <= most_layers:
            raise errors.InvalidTask(field, f"must be a list of {least_layers} to {most_layers} whole numbers")
        return [checks.whole(f"{field}[{at}]", size, 1, most) for at, size in enumerate(value)]

    return check


_PERCEPTRON_CHECKS: Mapping[str, Check] = {
    "hidden_layers": _sizes(10, 8_192),
    "activation": _choice("relu", "tanh", "gelu", "elu", "sigmoid"),
    "batch_normalization": _flag,
    "class_weight": _choice("balanced"),
    "dropout": _number(0, 0.95),
    "learning_rate": _number(1e-9, 10),
    "momentum": _number(0, 0.9999),
    "optimizer": _choice("adam", "adamw", "sgd", "rmsprop"),
    "validation_size": _number(0, 0.9),
    "weight_decay": _number(0, 10),
}

NETWORKS: Mapping[str, Mapping[str, Check]] = {
    "mlp": _PERCEPTRON_CHECKS,
    "cnn": {
        **_PERCEPTRON_CHECKS,
        "filters": _sizes(6, 1_024, least_layers=1),
        "kernel_size": _whole(1, 15),
    },
}
"""The networks of pytorch and tensorflow by the name in ``estimator``, with their parameters."""

NETWORK_PROBLEMS = ("classification", "regression")


_BY_CLASS: Mapping[str, tuple[str, str]] = {
    named.name: (name, problem) for name, solved in SCIKIT_LEARN.items() for problem, named in solved.items()
}


def by_class(name: str) -> tuple[str, str]:
    """Return our name and the problem of a class of scikit-learn, such as ``SVC``; the name alone where it is none."""
    return _BY_CLASS.get(name, (name, ""))


def problems(model_type: str, estimator: str) -> tuple[str, ...]:
    """Return the problems that ``estimator`` solves; all where it is empty. Raises InvalidTask for an unknown one."""
    table: Mapping[str, object] = SCIKIT_LEARN if model_type == "scikit-learn" else NETWORKS
    if estimator and estimator not in table:
        raise errors.InvalidTask(
            "estimator", f"{estimator[:40]!r} is none that {model_type} tasks know: {', '.join(table)}"
        )
    if model_type != "scikit-learn":
        return NETWORK_PROBLEMS
    return tuple(SCIKIT_LEARN[estimator]) if estimator else PROBLEMS


def hyper_parameters(model_type: str, estimator: str, problem: str, value: Mapping[str, object]) -> dict[str, object]:
    """Require parameters that ``estimator`` has; of scikit-learn's the values are checked where it runs.

    ``problem`` may be empty: then each must be known to the estimator for one of its problems.
    Raises :class:`errors.InvalidTask` naming the parameter.
    """
    found: dict[str, object] = {}
    if model_type == "scikit-learn":
        known = list(
            dict.fromkeys(
                parameter
                for solved, named in SCIKIT_LEARN[estimator].items()
                if problem in {"", solved}
                for parameter in named.parameters
            )
        )
    else:
        known = list(NETWORKS[estimator])
    for name, said in value.items():
        where = f"hyper_parameters.{name[:60]}"
        if name not in known:
            raise errors.InvalidTask(where, _strange(name, estimator, known))
        found[name] = plain(where, said) if model_type == "scikit-learn" else NETWORKS[estimator][name](where, said)
    return found


def _strange(name: str, estimator: str, known: list[str]) -> str:
    if name in {"random_state", "seed"}:
        return "is the task's own field seed"
    if name in {"n_jobs", "verbose", "warm_start"}:
        return "is set by the program: threads follow cpu_quota"
    return f"{estimator} has no such parameter; it has {', '.join(known)}"


def plain(field: str, value: object, *, inner: bool = False) -> object:
    """Require a scalar, a list of scalars, or an object of them such as the weights of classes. Whole numbers as int.

    The wire does not tell 1.0 from 1, so that nobody may.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return checks.text(field, value, most=1_000)
    if isinstance(value, int | float):
        if not math.isfinite(value) or abs(value) > 1e300:
            raise errors.InvalidTask(field, "must be a finite number")
        return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, (list, tuple)) and not inner and len(value) <= 1_000:
        return [plain(f"{field}[{at}]", each, inner=True) for at, each in enumerate(value)]
    if isinstance(value, Mapping) and not inner:
        return {
            checks.text(field, key, most=1_000): plain(f"{field}[{key[:40]!r}]", each, inner=True)
            for key, each in checks.mapping(field, value, most=1_000).items()
        }
    raise errors.InvalidTask(field, "must be a number, text, true, false, or a list or an object of those")
