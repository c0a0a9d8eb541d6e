"""What an ml task says beyond the common fields: framework, data, estimator, how to train. Checked once. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hivemind_worker import errors
from hivemind_worker.tasks import checks, estimators, processing_options, training_data, training_options

MODEL_TYPES = ("scikit-learn", "pytorch", "tensorflow")
"""The reference document's three frameworks."""

FIELDS = frozenset(
    {
        *("model_type", "training_data", "estimator", "target", "features", "hyper_parameters", "problem"),
        *("test_size", "seed", "cross_validation", "epochs", "batch_size", "early_stopping", "options"),
        *("model", "predict_data", *training_options.FIELDS),
    }
)
"""The fields of an ml task; ``code``, ``args`` and ``requirements`` it shares with python tasks."""

Data = training_data.Data
"""Where rows come from: an input file, a shipped data set, or rows and columns of the task."""

_OF_NETWORKS = {"epochs": "max_iter", "batch_size": "batch_size", "early_stopping": "early_stopping"}
_DEFAULT = {"scikit-learn": "random_forest", "pytorch": "mlp", "tensorflow": "mlp"}
_ROWS = 2**40
_NO_TEXT = "say how a file of text, a sheet or JSON is read, and this task has none"


@dataclass(frozen=True, slots=True)
class Learning:
    """The ml part of a task. ``None``, 0 and empty where nothing was said and the program's default applies.

    ``test_size`` is a share of the rows below 1, and a number of rows from there on. ``early_stopping`` counts epochs.
    Beside code of the user's own these are handed to it as they are: they mean what it makes of them.
    """

    model_type: str
    training_data: Data | None = None
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
    model: str = ""
    predict_data: Data | None = None
    search: Mapping[str, object] = field(default_factory=dict)
    class_weight: str | Mapping[str, float] = ""
    missing: str = ""
    calibration: str = ""


def parse(said: Mapping[str, object], *, has_code: bool) -> Learning:
    """Read the ml fields of a task. Raises :class:`errors.InvalidTask`, naming the field.

    ``said`` is the whole task: a path in ``training_data`` must be among its ``input_files``.
    """
    model_type = _model_type(said)
    if not has_code and "model" in said:
        return _prediction(said, model_type)
    _belongs(said, has_code=has_code)
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
    options = training_options.parse(said, trains_scikit_learn=model_type == "scikit-learn" and not has_code)
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
        search=options.search,
        class_weight=options.class_weight,
        missing=options.missing,
        calibration=options.calibration,
    )
    if has_code:
        for name, value in found.hyper_parameters.items():
            estimators.plain(f"hyper_parameters.{name[:60]}", value)
    else:
        _fits_together(found)
        training_options.fits(options, estimator_of(found), problem_of(found), found.hyper_parameters)
    return found


def _model_type(fields: Mapping[str, object]) -> str:
    model_type = fields.get("model_type")
    if model_type is None:
        raise errors.InvalidTask("model_type", f"missing; one of {', '.join(MODEL_TYPES)}")
    if not isinstance(model_type, str) or model_type not in MODEL_TYPES:
        raise errors.InvalidTask("model_type", f"{str(model_type)[:40]!r} is not one of {', '.join(MODEL_TYPES)}")
    return model_type


def _belongs(fields: Mapping[str, object], *, has_code: bool) -> None:
    """Require of a task that trains that its fields are there and belong together."""
    if not has_code and "training_data" not in fields:
        raise errors.InvalidTask("training_data", "missing: an ml task needs code of its own or data to learn from")
    if not has_code and fields.get("args"):
        raise errors.InvalidTask("args", "are for code of one's own, and this task has none")
    if has_code and fields.get("estimator"):
        raise errors.InvalidTask("estimator", "beside code of one's own; an ml task has the one or the other")
    for name in ("model", "predict_data"):
        if name in fields:
            raise errors.InvalidTask(name, "belongs to a task that predicts: it has a model, and no code")


_OF_PREDICTION = frozenset({"model_type", "model", "predict_data", "options"})


def _prediction(fields: Mapping[str, object], model_type: str) -> Learning:
    """Read a task that predicts with a kept model."""
    if model_type != "scikit-learn":
        raise errors.InvalidTask("model", "is a model.joblib of scikit-learn; with other frameworks bring code")
    for name in sorted(FIELDS - _OF_PREDICTION):
        if name in fields:
            raise errors.InvalidTask(name, "belongs to training, and this task predicts with a kept model")
    if fields.get("args"):
        raise errors.InvalidTask("args", "are for code of one's own, and this task has none")
    input_files = fields.get("input_files", {})
    paths = sorted(map(str, input_files)) if isinstance(input_files, Mapping) else []
    model = checks.text("model", fields["model"], most=4_000)
    if model not in paths:
        raise errors.InvalidTask("model", f"{model[:80]!r} is none of the task's input_files")
    if "predict_data" not in fields:
        raise errors.InvalidTask("predict_data", "missing: the rows to predict, as in training_data")
    data = training_data.parse(fields["predict_data"], paths, field="predict_data")
    if isinstance(data, Mapping) and "dataset" in data:
        raise errors.InvalidTask("predict_data.dataset", "is for training; send rows, columns or a file")
    options = processing_options.reading(fields.get("options", {}))
    if options and not (isinstance(data, str) and not data.lower().endswith((".npz", ".parquet"))):
        raise errors.InvalidTask("options", _NO_TEXT)
    return Learning(model_type, model=model, predict_data=data, options=options)


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
        raise errors.InvalidTask("options", _NO_TEXT)
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
