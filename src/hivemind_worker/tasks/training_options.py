"""What a scikit-learn task says of its training beyond the estimator: search, weights, missing values, calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from hivemind_worker import errors
from hivemind_worker.tasks import checks, estimators

FIELDS = frozenset({"search", "class_weight", "missing", "calibration"})

MISSING = ("median", "mean", "most_frequent", "drop", "native")
"""What becomes of missing numbers: a value of the column, rows left out, or left to an estimator that takes them."""

CALIBRATIONS = ("sigmoid", "isotonic")

SCORES: Mapping[str, tuple[str, ...]] = {
    "classification": ("accuracy", "balanced_accuracy", "f1_macro", "log_loss", "roc_auc"),
    "regression": ("r2", "mean_absolute_error", "root_mean_squared_error"),
}
"""The scores by which a search may choose, the first by default."""

MAX_CANDIDATES = 1_000

_NATIVE = frozenset({"hist_gradient_boosting", "random_forest", "extra_trees", "decision_tree"})
_SEARCH = frozenset({"parameters", "folds", "score", "candidates"})


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """Empty where nothing was said. ``search`` has all of its entries then: parameters, folds, score, candidates."""

    search: Mapping[str, object] = field(default_factory=dict)
    class_weight: str | Mapping[str, float] = ""
    missing: str = ""
    calibration: str = ""


def parse(fields: Mapping[str, object], *, trains_scikit_learn: bool) -> TrainingOptions:
    """Read these fields of a task. Raises :class:`errors.InvalidTask`, naming the field."""
    if not trains_scikit_learn:
        for name in sorted(FIELDS & fields.keys()):
            raise errors.InvalidTask(name, "belongs to an estimator of scikit-learn; see hyper_parameters")
    return TrainingOptions(
        search=_search(fields["search"]) if "search" in fields else {},
        class_weight=_class_weight(fields["class_weight"]) if "class_weight" in fields else "",
        missing=_choice("missing", fields["missing"], MISSING) if "missing" in fields else "",
        calibration=_choice("calibration", fields["calibration"], CALIBRATIONS) if "calibration" in fields else "",
    )


def fits(options: TrainingOptions, estimator: str, problem: str, hyper_parameters: Mapping[str, object]) -> None:
    """Require that the options suit the estimator and the problem, which may be empty. Raises InvalidTask."""
    for name in ("calibration", "class_weight"):
        if getattr(options, name) and problem not in {"", "classification"}:
            raise errors.InvalidTask(name, f"belongs to classification, and this is {problem}")
    if options.class_weight and "class_weight" in hyper_parameters:
        raise errors.InvalidTask("class_weight", "stands in hyper_parameters too; name it once")
    if options.missing == "native" and estimator not in _NATIVE:
        raise errors.InvalidTask("missing", f"native needs one of {', '.join(sorted(_NATIVE))}, not {estimator}")
    if not options.search:
        return
    if problem == "clustering":
        raise errors.InvalidTask("search", "needs a target, and clustering has none")
    parameters = options.search["parameters"]
    assert isinstance(parameters, Mapping)
    for name, values in parameters.items():
        if name in hyper_parameters:
            raise errors.InvalidTask(f"search.parameters.{name}", "stands in hyper_parameters too; name it once")
        for value in values:
            estimators.hyper_parameters("scikit-learn", estimator, problem, {name: value})
    score = options.search["score"]
    known = SCORES.get(problem) or tuple(name for names in SCORES.values() for name in names)
    if score and score not in known:
        raise errors.InvalidTask("search.score", f"{str(score)[:40]!r} is not one of {', '.join(known)}")


def _search(value: object) -> Mapping[str, object]:
    search = checks.mapping("search", value, most=10)
    for name in search:
        if name not in _SEARCH:
            raise errors.InvalidTask(f"search.{name[:40]}", f"is none of {', '.join(sorted(_SEARCH))}")
    grid: dict[str, list[object]] = {}
    for name, values in checks.mapping("search.parameters", search.get("parameters", {}), most=20).items():
        field_name = f"search.parameters.{name[:60]}"
        if not isinstance(values, (list, tuple)) or not 1 <= len(values) <= MAX_CANDIDATES:
            raise errors.InvalidTask(field_name, "must be a list of the values to try")
        grid[name] = [estimators.plain(f"{field_name}[{at}]", each) for at, each in enumerate(values)]
    if not grid:
        raise errors.InvalidTask("search.parameters", "missing: an object of parameters, each with a list of values")
    candidates = checks.whole("search.candidates", search.get("candidates", 0), 0, MAX_CANDIDATES)
    total = math.prod(len(values) for values in grid.values())
    if not candidates and total > MAX_CANDIDATES:
        raise errors.InvalidTask(
            "search.parameters", f"has {total} combinations, at most {MAX_CANDIDATES}; candidates takes some at random"
        )
    folds = checks.whole("search.folds", search.get("folds", 5), 2, 100)
    score = checks.text("search.score", search.get("score", ""), most=40)
    return {"parameters": grid, "folds": folds, "score": score, "candidates": candidates}


def _class_weight(value: object) -> str | Mapping[str, float]:
    if isinstance(value, str):
        return _choice("class_weight", value, ("balanced",))
    weights: dict[str, float] = {}
    for name, weight in checks.mapping("class_weight", value, most=1_000).items():
        field_name = f"class_weight[{name[:40]!r}]"
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= 1e9:
            raise errors.InvalidTask(field_name, "must be a number above 0, up to a thousand million")
        weights[name] = weight
    if not weights:
        raise errors.InvalidTask("class_weight", "is empty: balanced, or an object of classes and their weights")
    return weights


def _choice(field_name: str, value: object, choices: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise errors.InvalidTask(field_name, f"{str(value)[:40]!r} is not one of {', '.join(choices)}")
    return value
