"""What an ml task says beyond the common fields: framework, data, estimator, how to train. Checked once. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hivemind_worker.task import checks, errors, estimators, processing_options, training_data

MODEL_TYPES = ("scikit-learn", "pytorch", "tensorflow")
"""The reference document's three frameworks."""

FIELDS = frozenset(
    {
        *("model_type", "training_data", "estimator", "target", "features", "hyper_parameters", "problem"),
        *("test_size", "seed", "cross_validation", "epochs", "batch_size", "early_stopping", "options"),
    }
)
"""The fields of an ml task; ``code``, ``args`` and ``requirements`` it shares with python tasks."""

_OF_NETWORKS = {"epochs": "max_iter", "batch_size": "batch_size", "early_stopping": "early_stopping"}
_DEFAULT = {"scikit-learn": "random_forest", "pytorch": "mlp", "tensorflow": "mlp"}
_ROWS = 2**40


@dataclass(frozen=True, slots=True)
class Learning:
    """The ml part of a task. ``None``, 0 and empty where nothing was said and the program's default applies.

    ``test_size`` is a share of the rows below 1, and a number of rows from there on. ``early_stopping`` counts epochs.
    Beside code of the user's own these are handed to it as they are: they mean what it makes of them.
    """

    model_type: str
    training_data: training_data.Data | None = None
    estimator: str = ""
    target: str = ""
    features: tuple[str, ...] = ()
    hyper_parameters: Mapping[str, object] = field(default_factory=dict)
    problem: str = ""
    test_size: float | None = None
    seed: int | None = None
    cross_validation: int = 0
    epochs: int = 0
    batch_size: int = 0
    early_stopping: int = 0
    options: Mapping[str, object] = field(default_factory=dict)


def parse(said: Mapping[str, object], *, has_code: bool) -> Learning:
    """Read the ml fields of a task. Raises :class:`errors.InvalidTask`, naming the field.

    ``said`` is the whole task: a path in ``training_data`` must be among its ``input_files``.
    """
    model_type = said.get("model_type")
    if model_type is None:
        raise errors.InvalidTask("model_type", f"missing; one of {', '.join(MODEL_TYPES)}")
    if not isinstance(model_type, str) or model_type not in MODEL_TYPES:
        raise errors.InvalidTask("model_type", f"{str(model_type)[:40]!r} is not one of {', '.join(MODEL_TYPES)}")
    if not has_code and "training_data" not in said:
        raise errors.InvalidTask("training_data", "missing: an ml task needs code of its own or data to learn from")
    if not has_code and said.get("args"):
        raise errors.InvalidTask("args", "are for code of one's own, and this task has none")
    given = said.get("input_files", {})
    data = None
    if "training_data" in said:
        data = training_data.parse(said["training_data"], given if isinstance(given, Mapping) else ())
    estimator, problem = (
        checks.text("estimator", said.get("estimator", ""), most=100),
        _problem(said.get("problem", "")),
    )
    if model_type == "scikit-learn":
        estimator, implied = estimators.by_class(estimator)
        if implied and problem not in {"", implied}:
            raise errors.InvalidTask("problem", f"{said['estimator']} does {implied} only")
        problem = implied or problem
    found = Learning(
        model_type=model_type,
        training_data=data,
        estimator=estimator,
        target=checks.text("target", said.get("target", ""), most=1_000),
        features=_features(said.get("features", ())),
        hyper_parameters=checks.mapping("hyper_parameters", said.get("hyper_parameters", {}), most=100),
        problem=problem,
        test_size=_test_size(said["test_size"]) if "test_size" in said else None,
        seed=checks.whole("seed", said["seed"], 0, 2**32 - 1) if "seed" in said else None,
        cross_validation=_cross_validation(said.get("cross_validation", 0)),
        epochs=checks.whole("epochs", said.get("epochs", 0), 0, 1_000_000),
        batch_size=checks.whole("batch_size", said.get("batch_size", 0), 0, 1_000_000),
        early_stopping=checks.whole("early_stopping", said.get("early_stopping", 0), 0, 1_000_000),
        options=processing_options.reading(said.get("options", {})),
    )
    if has_code and found.estimator:
        raise errors.InvalidTask("estimator", "beside code of one's own; an ml task has the one or the other")
    if has_code:
        for name, value in found.hyper_parameters.items():
            estimators.plain(f"hyper_parameters.{name[:60]}", value)
    else:
        _fits_together(found)
    return found


def estimator_of(said: Learning) -> str:
    """Return the estimator that a task without code means: the one it names, or the default of its framework."""
    if said.estimator:
        return said.estimator
    clusters = said.problem == "clustering" and said.model_type == "scikit-learn"
    return "k_means" if clusters else _DEFAULT[said.model_type]


def problem_of(said: Learning) -> str:
    """Return the problem that a task without code says or its estimator implies; empty where the data tell it."""
    solved = estimators.problems(said.model_type, estimator_of(said))
    return said.problem or (solved[0] if len(solved) == 1 else "")


def _fits_together(said: Learning) -> None:
    estimator = estimator_of(said)
    solved = estimators.problems(said.model_type, estimator)
    if said.problem and said.problem not in solved:
        raise errors.InvalidTask("problem", f"{estimator} of {said.model_type} does {' and '.join(solved)} only")
    problem = problem_of(said)
    estimators.hyper_parameters(said.model_type, estimator, problem, said.hyper_parameters)
    inline = not isinstance(said.training_data, str) and "dataset" not in (said.training_data or {})
    table = inline or (isinstance(said.training_data, str) and not said.training_data.lower().endswith(".npz"))
    if said.options and (inline or not table or str(said.training_data).lower().endswith(".parquet")):
        raise errors.InvalidTask("options", "say how a file of text, a sheet or JSON is read, and this task has none")
    if table and not said.target and problem != "clustering":
        raise errors.InvalidTask("target", "missing: which column is to be learned")
    if said.target and said.target in said.features:
        raise errors.InvalidTask("features", f"hold the target {said.target[:40]!r}")
    if problem == "clustering" and said.cross_validation:
        raise errors.InvalidTask("cross_validation", "needs a target, and clustering has none")
    images = not isinstance(said.training_data, Mapping) or said.training_data.get("dataset") == "digits"
    if estimator == "cnn" and (table or not images):
        raise errors.InvalidTask("estimator", "cnn learns from images: arrays (npz), or the data set digits")
    if said.model_type == "scikit-learn":
        for name, own in _OF_NETWORKS.items():
            if getattr(said, name):
                raise errors.InvalidTask(name, f"belongs to networks; with scikit-learn see hyper_parameters.{own}")


def _features(value: object) -> tuple[str, ...]:
    found = checks.words("features", value)
    for name in found:
        if not name:
            raise errors.InvalidTask("features", "holds an empty name; name columns of the data")
    if len(set(found)) < len(found):
        raise errors.InvalidTask("features", "names a column twice")
    return found


def _problem(value: object) -> str:
    if value == "":
        return ""
    if not isinstance(value, str) or value not in estimators.PROBLEMS:
        raise errors.InvalidTask("problem", f"{str(value)[:40]!r} is not one of {', '.join(estimators.PROBLEMS)}")
    return value


def _test_size(value: object) -> float:
    found = checks.amount("test_size", value)
    if 0.95 < found < 1 or found > _ROWS or (found > 1 and not found.is_integer()):
        raise errors.InvalidTask("test_size", "must be a share of the rows from 0 to 0.95, or a whole number of rows")
    return found


def _cross_validation(value: object) -> int:
    found = checks.whole("cross_validation", value, 0, 100)
    if found == 1:
        raise errors.InvalidTask("cross_validation", "must be 0 for none, or 2 to 100 folds")
    return found
