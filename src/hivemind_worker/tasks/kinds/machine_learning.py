"""Machine learning: a script with its framework ready, or a program of ours that trains an estimator or predicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hivemind_worker import errors
from hivemind_worker.tasks import estimators, learning, spec
from hivemind_worker.tasks.kinds import kind, program_files

_TOOLS = (
    "matplotlib==3.11.2",
    "numpy==2.4.6",
    "polars==2.1.0",
    "scikit-learn==1.9.1",
    "cvttf-notosanscjk-regular==1.0",
    *program_files.TABLE_REQUIREMENTS,
)
"""What all three environments have: tables, splitting and measuring, plots and letters for them."""

_SHARED = (
    *("learning_columns.py", "learning_data.py", "learning_tables.py", "learning_problem.py", "learning_results.py"),
    *("learning_plots.py", "learning_scores.py", "model_card.py"),
    *program_files.TABLES,
)
_NETWORK = ("network_data.py", "network_training.py", *_SHARED)


@dataclass(frozen=True, slots=True)
class _Framework:
    """The files of one framework's program, the first of which is run, and the packages that they import.

    The versions are exact, so that all tasks of a framework share one environment until we change them here.
    """

    scripts: tuple[str, ...]
    requirements: tuple[str, ...]


_FRAMEWORKS: Mapping[str, _Framework] = {
    "scikit-learn": _Framework(
        (
            *("learn.py", "learn_scikit_learn.py", "predict_scikit_learn.py", "model_record.py"),
            *("scikit_learn_estimators.py", "scikit_learn_onnx.py", "scikit_learn_search.py", *_SHARED),
        ),
        (*_TOOLS, "onnxruntime==1.32.0", "skl2onnx==1.20.0"),
    ),
    "pytorch": _Framework(
        ("learn.py", "learn_pytorch.py", "pytorch_networks.py", *_NETWORK),
        (*_TOOLS, "torch==2.13.0"),
    ),
    "tensorflow": _Framework(
        ("learn.py", "learn_tensorflow.py", "tensorflow_networks.py", *_NETWORK),
        (
            *_TOOLS,
            "keras==3.15.1",
            # The build without CUDA is a quarter of the size, and there is none but for this processor.
            "tensorflow-cpu==2.21.0; platform_machine == 'x86_64'",
            "tensorflow==2.21.0; platform_machine != 'x86_64'",
        ),
    ),
}


class MachineLearningKind:
    """Runs ``code`` with its framework ready, or the program that trains ``estimator`` on ``training_data``."""

    def program(self, task: spec.TaskSpec) -> kind.Program:
        """Return the script or our program, what the task says of learning as a file, and the framework's packages."""
        asked = task.learning
        if asked is None:
            raise errors.InvalidTask("model_type", f"missing; one of {', '.join(learning.MODEL_TYPES)}")
        framework = _FRAMEWORKS[asked.model_type]
        if task.code is not None:
            script = program_files.own_script(task)
            settings = program_files.files(task, (), _said(asked))
            return kind.Program(script.argv, (script.file, *settings), framework.requirements)
        if asked.model:
            settings = program_files.files(task, framework.scripts, _said(asked) | {"estimator": ""})
            return kind.Program(program_files.argv(framework.scripts[0]), settings, framework.requirements)
        estimator = learning.estimator_of(asked)
        settings_said = _said(asked) | {"estimator": estimator, "problem": learning.problem_of(asked)}
        if asked.model_type == "scikit-learn":
            settings_said["classes"] = {
                problem: {"name": named.name, "parameters": list(named.parameters)}
                for problem, named in estimators.SCIKIT_LEARN[estimator].items()
            }
        return kind.Program(
            program_files.argv(framework.scripts[0]),
            program_files.files(task, framework.scripts, settings_said),
            framework.requirements,
        )


def _said(asked: learning.Learning) -> dict[str, object]:
    return {
        "model_type": asked.model_type,
        "training_data": asked.training_data,
        "options": dict(asked.options),
        "model": asked.model,
        "predict_data": asked.predict_data,
        "search": dict(asked.search),
        "class_weight": asked.class_weight if isinstance(asked.class_weight, str) else dict(asked.class_weight),
        "missing": asked.missing,
        "calibration": asked.calibration,
        "target": asked.target,
        "features": list(asked.features),
        "hyper_parameters": {
            name: estimators.plain(f"hyper_parameters.{name[:60]}", value)
            for name, value in asked.hyper_parameters.items()
        },
        "problem": asked.problem,
        "test_size": asked.test_size,
        "seed": asked.seed,
        "cross_validation": asked.cross_validation,
        "epochs": asked.epochs,
        "batch_size": asked.batch_size,
        "early_stopping": asked.early_stopping,
    }


KIND = MachineLearningKind()
