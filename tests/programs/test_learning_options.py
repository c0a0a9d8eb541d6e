"""Search, weights of classes, missing values, calibration and the model card, against independent computations."""

from __future__ import annotations

import csv
import hashlib
import random
from pathlib import Path
from typing import Any

import numpy as np
import program_runs
import pytest

LIBRARIES = ("numpy", "sklearn.ensemble", "matplotlib.pyplot", "skl2onnx")

pytestmark = pytest.mark.timeout(400)  # many runs in one interpreter

IRIS = {"model_type": "scikit-learn", "training_data": {"dataset": "iris"}, "estimator": "decision_tree", "seed": 5}
GRID = {"max_depth": [1, 2, 3], "criterion": ["gini", "entropy"]}


def uneven() -> bytes:
    """One class in ten, and a number that is missing in some rows."""
    chance = random.Random(4)
    rows = []
    for at in range(200):
        rare = at % 10 == 0
        x = "" if at % 25 == 3 else f"{chance.gauss(1.5 if rare else 0, 1):.3f}"
        rows.append(f"{x},{chance.gauss(1 if rare else 0, 1):.3f},{'rare' if rare else 'common'}")
    return "\n".join(["x,z,y", *rows]).encode()


TABLE = {"model_type": "scikit-learn", "training_data": "t.csv", "target": "y", "seed": 1}
LOGISTIC = {**TABLE, "estimator": "logistic_regression"}
TASKS: dict[str, dict[str, object]] = {
    "search": {**IRIS, "search": {"parameters": GRID, "folds": 4}},
    "weights": {**LOGISTIC, "class_weight": {"rare": 9, "common": 1}},
    "parameter": {**LOGISTIC, "hyper_parameters": {"class_weight": {"rare": 9, "common": 1}}},
    "drop": {**LOGISTIC, "missing": "drop", "calibration": "sigmoid"},
    "native": {**TABLE, "estimator": "decision_tree", "missing": "native", "hyper_parameters": {"max_depth": 3}},
    "neighbours": {**TABLE, "estimator": "k_nearest_neighbors", "class_weight": "balanced"},
    "nobody": {**LOGISTIC, "class_weight": {"rarest": 2}},
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, program_runs.Ran]:
    tasks: list[tuple[dict[str, bytes | Path], dict[str, object]]] = [
        ({"t.csv": uneven()} if "t.csv" in task.values() else {}, task) for task in TASKS.values()
    ]
    runs = program_runs.run_in_one_process(tmp_path_factory.mktemp("options"), tasks, 400)
    return dict(zip(TASKS, runs, strict=True))


def rows_of(run: program_runs.Ran, name: str = "predictions.csv") -> list[dict[str, Any]]:
    with (run.results / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_search_finds_what_scikit_learn_finds(ran: dict[str, program_runs.Ran]) -> None:
    from sklearn import datasets, model_selection, tree  # noqa: PLC0415 - seconds for each process that collects the tests

    run = ran["search"]
    assert run.code == 0, run.err
    data = datasets.load_iris()
    train, _ = model_selection.train_test_split(np.arange(150), test_size=30, random_state=5, stratify=data.target)
    train.sort()
    folds = model_selection.StratifiedKFold(4, shuffle=True, random_state=5)
    grid = model_selection.GridSearchCV(tree.DecisionTreeClassifier(random_state=5), GRID, cv=folds, scoring="accuracy")
    grid.fit(data.data[train], data.target[train])
    metrics = run.json("metrics.json")
    assert metrics["search"]["best"]["parameters"] == grid.best_params_
    assert metrics["search"]["best"]["mean"] == pytest.approx(grid.best_score_)
    assert sorted(float(row["mean accuracy"]) for row in rows_of(run, "search.csv")) == pytest.approx(
        sorted(grid.cv_results_["mean_test_score"])
    )
    assert metrics["hyper_parameters"]["max_depth"] == grid.best_params_["max_depth"]
    assert "candidate 6 of 6" in run.out


def test_weights_of_classes_are_weights_of_their_rows(ran: dict[str, program_runs.Ran]) -> None:
    assert ran["weights"].code == 0, ran["weights"].err
    weighted, by_parameter = (
        [float(row["probability rare"]) for row in rows_of(ran[name])] for name in ("weights", "parameter")
    )
    assert weighted == pytest.approx(by_parameter, abs=1e-6)
    assert ran["neighbours"].code == ran["nobody"].code == 2
    assert "learns from all rows alike" in ran["neighbours"].err
    assert "there is no class 'rarest'; there are common, rare" in ran["nobody"].err


def test_missing_values_and_calibration(ran: dict[str, program_runs.Ran]) -> None:
    run = ran["drop"]
    assert run.code == 0, run.err
    metrics = run.json("metrics.json")
    assert sum(metrics["rows"].values()) == 192
    assert metrics["data"]["rows_with_missing_values_dropped"] == 8
    assert metrics["data"]["rows_without_target"] == 0
    assert "8 rows with a missing value are left out, as `missing` says" in metrics["notes"]
    assert ran["native"].code == 0, ran["native"].err
    assert sum(ran["native"].json("metrics.json")["rows"].values()) == 200

    rows = rows_of(run)
    shares = np.array([[float(row["probability common"]), float(row["probability rare"])] for row in rows])
    truth = np.array([[row["actual"] == "common", row["actual"] == "rare"] for row in rows], dtype=float)
    assert metrics["calibration"]["brier"] == pytest.approx(((shares - truth) ** 2).sum(axis=1).mean(), abs=1e-6)
    assert sum(step["rows"] for step in metrics["calibration"]["bins"]) == len(rows)
    assert metrics["calibration"]["method"] == "sigmoid"
    assert "calibration.png" in run.files


def test_the_card_has_the_data_and_the_exact_versions(ran: dict[str, program_runs.Ran]) -> None:
    card = (ran["drop"].results / "model_card.md").read_text(encoding="utf-8")
    metrics = ran["drop"].json("metrics.json")
    assert card.startswith("# LogisticRegression: classification of `y`")
    assert hashlib.sha256(uneven()).hexdigest() in card
    assert f"| scikit-learn | {metrics['versions']['scikit-learn']} |" in card
    assert "| x | number | 0 |" in card
