"""Search, weights, missing values, calibration, the card and prediction, against independent computations."""

from __future__ import annotations

import csv
import hashlib
import io
import random
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import program_runs
import pytest

pytestmark = [pytest.mark.timeout(400), pytest.mark.long]  # many runs in one interpreter

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


ROWS = 80
HEADER = "size;code;day;member;y"


def row(at: int, *, target: bool = True) -> str:
    code = ("01", "02", "10")[at % 3]
    member = ("no", "yes")[at % 2]
    cells = [f"{at * 1.5:.1f}".replace(".", ","), code, f"2026-01-{at % 28 + 1:02d}", member]
    return ";".join([*cells, f"{at * 2 + 7 * (code == '10') + 3 * (member == 'yes')}"] if target else cells)


def predicted_tables(folder: Path) -> dict[str, tuple[bytes, bytes | Path]]:
    """Tables to predict, each with the model: that of the run "train", or none that an ml task kept."""
    model = folder / str(list(TASKS).index("train")) / "results" / "model.joblib"
    foreign = io.BytesIO()
    joblib.dump({"a": 1}, foreign)
    header = HEADER.removesuffix(";y")
    # The column code holds no leading zero here, the columns stand in another order, and the last rows are strange.
    rows = [*(row(at, target=False) for at in range(2, ROWS, 3)), "1000,5;99;2026-01-02;no", "-;10;2026-01-02;yes"]
    strange = "\n".join(";".join(reversed(line.split(";"))) for line in [header, *rows])
    return {
        "same": (TRAINED.encode(), model),
        "strange": (strange.encode(), model),
        "absent": (b"size;code;day\n1,5;01;2026-01-02\n", model),
        "other": (f"{header}\n1,5;01;soon;no\n2,5;01;late;no\n".encode(), model),
        "foreign": (b"a\n1\n", foreign.getvalue()),
        "broken": (b"a\n1\n", b"x"),
    }


TRAINED = "\n".join([HEADER, *map(row, range(ROWS))])
PREDICT: dict[str, object] = {"model_type": "scikit-learn", "model": "m.joblib", "predict_data": "new.csv"}

TABLE = {"model_type": "scikit-learn", "training_data": "t.csv", "target": "y", "seed": 1}
LOGISTIC = {**TABLE, "estimator": "logistic_regression"}
TASKS: dict[str, dict[str, object]] = {
    "neighbours": {**TABLE, "estimator": "k_nearest_neighbors", "class_weight": "balanced"},
    "nobody": {**LOGISTIC, "class_weight": {"rarest": 2}},
    "train": {**TABLE, "estimator": "ridge", "problem": "regression"},
}
LONG: dict[str, dict[str, object]] = {
    "search": {**IRIS, "search": {"parameters": GRID, "folds": 4}},
    "drop": {**LOGISTIC, "missing": "drop", "calibration": "sigmoid"},
    "weights": {**LOGISTIC, "class_weight": {"rare": 9, "common": 1}},
    "parameter": {**LOGISTIC, "hyper_parameters": {"class_weight": {"rare": 9, "common": 1}}},
    "native": {**TABLE, "estimator": "decision_tree", "missing": "native", "hyper_parameters": {"max_depth": 3}},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, program_runs.Ran]:
    """What takes longest."""
    tasks: list[tuple[dict[str, bytes | Path], dict[str, object]]] = [
        ({"t.csv": uneven()} if "t.csv" in task.values() else {}, task) for task in LONG.values()
    ]
    runs = program_runs.run_in_one_process(tmp_path_factory.mktemp("trained"), tasks, 400)
    return dict(zip(LONG, runs, strict=True))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, program_runs.Ran]:
    folder = tmp_path_factory.mktemp("options")
    tasks: list[tuple[dict[str, bytes | Path], dict[str, object]]] = [
        ({"t.csv": TRAINED.encode() if name == "train" else uneven()} if "t.csv" in task.values() else {}, task)
        for name, task in TASKS.items()
    ]
    tables = predicted_tables(folder)
    tasks += [({"m.joblib": model, "new.csv": table}, PREDICT) for table, model in tables.values()]
    runs = program_runs.run_in_one_process(folder, tasks, 400)
    return dict(zip([*TASKS, *tables], runs, strict=True))


def rows_of(run: program_runs.Ran, name: str = "predictions.csv") -> list[dict[str, Any]]:
    with (run.results / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_search_finds_what_scikit_learn_finds(trained: dict[str, program_runs.Ran]) -> None:
    from sklearn import datasets, model_selection, tree  # noqa: PLC0415 - seconds for each process that collects the tests

    run = trained["search"]
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


def test_weights_of_classes_are_weights_of_their_rows(trained: dict[str, program_runs.Ran]) -> None:
    weights, parameter, native = (trained[name] for name in ("weights", "parameter", "native"))
    assert (weights.code, parameter.code, native.code) == (0, 0, 0), weights.err + native.err
    weighted, by_parameter = ([float(row["probability rare"]) for row in rows_of(run)] for run in (weights, parameter))
    assert weighted == pytest.approx(by_parameter, abs=1e-6)
    assert sum(native.json("metrics.json")["rows"].values()) == 200


def test_weights_that_cannot_be_are_refused(ran: dict[str, program_runs.Ran]) -> None:
    assert ran["neighbours"].code == ran["nobody"].code == 2
    assert "learns from all rows alike" in ran["neighbours"].err
    assert "there is no class 'rarest'; there are common, rare" in ran["nobody"].err


def test_missing_values_and_calibration(trained: dict[str, program_runs.Ran]) -> None:
    run = trained["drop"]
    assert run.code == 0, run.err
    metrics = run.json("metrics.json")
    assert sum(metrics["rows"].values()) == 192
    assert metrics["data"]["rows_with_missing_values_dropped"] == 8
    assert metrics["data"]["rows_without_target"] == 0
    assert "8 rows with a missing value are left out, as `missing` says" in metrics["notes"]

    rows = rows_of(run)
    shares = np.array([[float(row["probability common"]), float(row["probability rare"])] for row in rows])
    truth = np.array([[row["actual"] == "common", row["actual"] == "rare"] for row in rows], dtype=float)
    assert metrics["calibration"]["brier"] == pytest.approx(((shares - truth) ** 2).sum(axis=1).mean(), abs=1e-6)
    assert sum(step["rows"] for step in metrics["calibration"]["bins"]) == len(rows)
    assert metrics["calibration"]["method"] == "sigmoid"
    assert "calibration.png" in run.files


def test_the_card_has_the_data_and_the_exact_versions(trained: dict[str, program_runs.Ran]) -> None:
    card = (trained["drop"].results / "model_card.md").read_text(encoding="utf-8")
    metrics = trained["drop"].json("metrics.json")
    assert card.startswith("# LogisticRegression: classification of `y`")
    assert hashlib.sha256(uneven()).hexdigest() in card
    assert f"| scikit-learn | {metrics['versions']['scikit-learn']} |" in card
    assert "| x | number | 0 |" in card


def test_a_kept_model_predicts_as_it_did(ran: dict[str, program_runs.Ran]) -> None:
    same = ran["same"]
    assert same.code == 0, same.err
    by_row = {each["row"]: each for each in rows_of(same)}
    for each in rows_of(ran["train"]):
        assert by_row[each["row"]]["predicted"] == each["predicted"]
    metrics = same.json("metrics.json")
    assert metrics["rows"] == {"train": 0, "test": ROWS}
    assert metrics["test"]["r2"] > 0.95
    assert metrics["trained_with"]["scikit-learn"] == metrics["versions"]["scikit-learn"]


def test_a_new_table_is_read_as_the_old_one_was(ran: dict[str, program_runs.Ran]) -> None:
    strange = ran["strange"]
    assert strange.code == 0, strange.err
    by_row = {each["row"]: float(each["predicted"]) for each in rows_of(ran["same"])}
    *answers, _, _ = (float(each["predicted"]) for each in rows_of(strange))
    assert answers == pytest.approx([by_row[str(at)] for at in range(2, ROWS, 3)])
    notes = "\n".join(strange.json("metrics.json")["notes"])
    assert "column 'code': 1 values are categories that the model has not seen: '99'" in notes
    assert "column 'size': 1 missing values" in notes
    assert "1 values lie outside of what the model has seen" in notes


def test_a_model_is_not_asked_what_it_cannot_know(ran: dict[str, program_runs.Ran]) -> None:
    words = {
        "absent": "no column 'member'",
        "other": "column 'day' is",
        "foreign": "does not say what it learned from",
        "broken": "cannot be loaded",
    }
    for name, reason in words.items():
        assert ran[name].code == 2
        assert reason in ran[name].err


def test_classes_are_scored_however_they_are_written(tmp_path: Path) -> None:
    words = {"tf": ("true", "false"), "TF": ("True", "False"), "FT": ("FALSE", "TRUE"), "yn": ("yes", "no")}
    tables = {
        name: "\n".join(["x,y", *(f"{at % 20},{high if at % 20 > 9 else low}" for at in range(100))]).encode()
        for name, (high, low) in {**words, "digits": ("01", "02"), "numbers": ("1", "2")}.items()
    }
    fields = {"model_type": "scikit-learn", "estimator": "decision_tree", "training_data": "t.csv", "target": "y"}
    trainings: list[tuple[dict[str, bytes | Path], dict[str, object]]] = [
        ({"t.csv": table}, dict(fields)) for table in tables.values()
    ]
    trained = program_runs.run_in_one_process(tmp_path / "trained", trainings, 400)
    predictions: list[tuple[dict[str, bytes | Path], dict[str, object]]] = [
        ({"m.joblib": run.results / "model.joblib", "new.csv": table}, PREDICT)
        for run, table in zip(trained, tables.values(), strict=True)
    ]
    for name, run in zip(
        tables, program_runs.run_in_one_process(tmp_path / "predicted", predictions, 400), strict=True
    ):
        assert run.code == 0, (name, run.err)
        assert run.json("metrics.json")["test"]["accuracy"] == 1, name
