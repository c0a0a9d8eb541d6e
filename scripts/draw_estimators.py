"""The page of estimators, from the tables that tasks are checked against."""

from __future__ import annotations

from hivemind_worker.tasks import estimators

_HINTS = {
    "activation": "relu, tanh, gelu, elu or sigmoid; default relu",
    "batch_normalization": "true or false; default false",
    "class_weight": "`balanced`: rare classes count as much as common ones; default none",
    "dropout": "0 to 0.95; default 0",
    "filters": "of each convolution, every one of which halves the image; default [16, 32]",
    "hidden_layers": "their sizes; default [64, 32], of cnn [64]",
    "kernel_size": "1 to 15; default 3",
    "learning_rate": "default 0.001",
    "momentum": "of sgd and rmsprop; default 0.9",
    "optimizer": "adam, adamw, sgd or rmsprop; default adam",
    "validation_size": "the share of the rows to learn from that is held back to watch the loss; default 0.1, 0: none",
    "weight_decay": "default 0",
}

_VALUES = """The values are scikit-learn's own, and it says which are wrong. In `max_features`, `max_samples` and
`min_samples_split` 1 means all, as 1.0 does."""


def page(written_by: str) -> str:
    """Every estimator with its problems and parameters."""
    parts = [
        "# Estimators",
        written_by,
        "What `estimator` of an [ml task](machine-learning.md) may name, and the `hyper_parameters` of each.",
        f"## scikit-learn\n{_VALUES}",
        "\n".join(
            ["| estimator | problem | class | hyper-parameters |", "| --- | --- | --- | --- |"]
            + [
                f"| `{name}` | {problem} | {named.name} | {', '.join(named.parameters)} |"
                for name, solved in estimators.SCIKIT_LEARN.items()
                for problem, named in solved.items()
            ]
        ),
        "## pytorch and tensorflow\n`mlp` takes all but `filters` and `kernel_size`, `cnn` takes all.",
        "\n".join(
            ["| hyper-parameter | value |", "| --- | --- |"]
            + [f"| `{name}` | {_HINTS[name]} |" for name in estimators.NETWORKS["cnn"]]
        ),
    ]
    return "\n\n".join(parts) + "\n"
