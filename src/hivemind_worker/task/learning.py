"""What an ml task says beyond the common fields: framework, data, estimator, how to train. Checked once. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hivemind_worker.task import checks, errors

MODEL_TYPES = ("scikit-learn", "pytorch", "tensorflow")
"""The reference document's three frameworks."""

FIELDS = frozenset(
    {
        *("model_type", "training_data", "estimator", "target", "features", "hyper_parameters", "problem"),
        *("test_size", "seed", "cross_validation", "epochs", "batch_size", "early_stopping"),
    }
)
"""The fields of an ml task; ``code``, ``args`` and ``requirements`` it shares with python tasks."""


@dataclass(frozen=True, slots=True)
class Learning:
    """The ml part of a task. ``None`` and 0 where nothing was said and the program's default applies."""

    model_type: str
    training_data: object = None
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


def parse(said: Mapping[str, object], *, has_code: bool) -> Learning:
    """Read the ml fields of a task. Raises :class:`errors.InvalidTask`, naming the field."""
    model_type = said.get("model_type")
    if model_type not in MODEL_TYPES:
        raise errors.InvalidTask("model_type", f"{str(model_type)[:40]!r} is not one of {', '.join(MODEL_TYPES)}")
    if not has_code and "training_data" not in said:
        raise errors.InvalidTask("training_data", "missing: an ml task needs code of its own or data to learn from")
    return Learning(
        model_type=str(model_type),
        training_data=said.get("training_data"),
        estimator=checks.text("estimator", said.get("estimator", ""), most=100),
        target=checks.text("target", said.get("target", ""), most=1_000),
        features=checks.words("features", said.get("features", ())),
        hyper_parameters=checks.mapping("hyper_parameters", said.get("hyper_parameters", {}), most=100),
        problem=checks.text("problem", said.get("problem", ""), most=40),
        test_size=checks.amount("test_size", said["test_size"]) if "test_size" in said else None,
        seed=checks.whole("seed", said["seed"], 0, 2**32 - 1) if "seed" in said else None,
        cross_validation=checks.whole("cross_validation", said.get("cross_validation", 0), 0, 100),
        epochs=checks.whole("epochs", said.get("epochs", 0), 0, 1_000_000),
        batch_size=checks.whole("batch_size", said.get("batch_size", 0), 0, 1_000_000),
        early_stopping=checks.whole("early_stopping", said.get("early_stopping", 0), 0, 1_000_000),
    )
