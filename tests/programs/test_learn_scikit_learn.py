"""scikit-learn tasks on real data: scores recomputed from the predictions, models loaded again, and every refusal."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnxruntime
import polars as pl
import program_runs
import pytest
from PIL import Image

from hivemind_worker.tasks import estimators

# Not polars: it begins threads as it is imported.
LIBRARIES = ("numpy", "sklearn.ensemble", "sklearn.cluster", "sklearn.svm", "matplotlib.pyplot", "skl2onnx")

CITIES = ("Taipei", "Tainan", "Hualien", "")


IRIS = {"model_type": "scikit-learn", "training_data": {"dataset": "iris"}}


def learn(folder: Path, files: dict[str, bytes | Path] | None = None, **fields: object) -> program_runs.Ran:
    return program_runs.run(folder, files or {}, 100, **{**IRIS, **fields})


def predictions(ran: program_runs.Ran) -> list[dict[str, str]]:
    with (ran.results / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def people() -> bytes:
    """A table as they are: two thirds of the income is explained, values are missing, one column is of no use."""
    chance = np.random.default_rng(1)
    out = io.StringIO()
    rows = csv.writer(out, delimiter=";")
    rows.writerow(["name", "age", "city", "joined", "member", "income"])
    for at in range(300):
        age, city = int(chance.integers(18, 80)), CITIES[int(chance.integers(0, 4))]
        member = bool(chance.integers(0, 2))
        income = 1_000 + 30 * age + 500 * member + 300 * (city == "Taipei") + chance.normal() * 50
        shown = "" if chance.random() < 0.1 else age
        joined = f"20{chance.integers(10, 24)}-0{chance.integers(1, 9)}-11"
        rows.writerow([f"p{at}", shown, city, joined, str(member).lower(), "" if at % 50 == 0 else round(income, 2)])
    return out.getvalue().encode()


def test_a_forest_on_iris_is_what_it_says(tmp_path: Path) -> None:
    ran = learn(tmp_path / "a", cross_validation=4, seed=11, hyper_parameters={"n_estimators": 30, "max_features": 1})
    assert ran.code == 0, ran.err
    assert ran.files == [
        *("confusion.png", "metrics.json", "model.joblib", "model.onnx", "model_card.md", "predictions.csv"),
        "versions.json",
    ]
    metrics = ran.json("metrics.json")
    rows = predictions(ran)
    right = sum(row["actual"] == row["predicted"] for row in rows)
    assert metrics["test"]["accuracy"] == pytest.approx(right / len(rows), abs=1e-12)
    assert metrics["test"]["accuracy"] > 0.85 > metrics["baseline"]["accuracy"]
    assert np.trace(np.array(metrics["confusion"])) == right
    assert metrics["hyper_parameters"]["n_estimators"] == 30
    assert metrics["hyper_parameters"]["max_features"] == 1.0
    assert metrics["versions"]["scikit-learn"] == ran.json("versions.json")["scikit-learn"]

    # The same split, folds and forest, computed here.
    from sklearn import datasets, ensemble, model_selection  # noqa: PLC0415 - two seconds for each process that collects the tests

    data = datasets.load_iris()
    train, test = model_selection.train_test_split(np.arange(150), test_size=30, random_state=11, stratify=data.target)
    assert [int(row["row"]) for row in rows] == sorted(test.tolist())
    forest = ensemble.RandomForestClassifier(n_estimators=30, max_features=1.0, random_state=11)
    train.sort()
    folds = model_selection.StratifiedKFold(4, shuffle=True, random_state=11)
    scores = model_selection.cross_val_score(forest, data.data[train], data.target[train], cv=folds)
    assert metrics["cross_validation"]["accuracy"]["folds"] == pytest.approx(scores.tolist())
    for at in range(4):
        assert f"fold {at + 1} of 4: accuracy {scores[at]:.4f}" in ran.out

    # Both forms of the model say what predictions.csv says.
    chosen = np.array([int(row["row"]) for row in rows])
    table = pl.DataFrame(data.data[chosen], schema=list(data.feature_names))
    model = joblib.load(ran.results / "model.joblib")
    expected = [list(data.target_names).index(row["predicted"]) for row in rows]
    assert model.predict(table).tolist() == expected
    session = onnxruntime.InferenceSession(ran.results / "model.onnx", providers=["CPUExecutionProvider"])
    inputs = metrics["onnx"]["inputs"]
    fed = {each["name"]: table[each["column"]].to_numpy().astype(np.float32).reshape(-1, 1) for each in inputs}
    labels, shares = session.run(None, fed)
    assert labels.tolist() == expected
    assert shares[:, 1] == pytest.approx([float(row["probability versicolor"]) for row in rows], abs=1e-5)
    with Image.open(ran.results / "confusion.png") as picture:
        assert picture.width > 200


@pytest.mark.long
def test_the_seed_decides(tmp_path: Path) -> None:
    tasks: list[tuple[dict[str, bytes | Path], dict[str, object]]] = [
        ({}, {**IRIS, "seed": seed, "estimator": "decision_tree"}) for seed in (3, 3, 4)
    ]
    runs = program_runs.run_in_one_process(tmp_path, tasks)
    first, again, other = ((ran.results / "predictions.csv").read_bytes() for ran in runs)
    assert first == again
    assert first != other
    for part in ("test", "train", "confusion", "importance"):
        assert runs[0].json("metrics.json")[part] == runs[1].json("metrics.json")[part]


def test_a_table_with_gaps_and_categories(tmp_path: Path) -> None:
    ran = learn(
        tmp_path / "a",
        {"data/people.csv": people()},
        training_data="data/people.csv",
        target="income",
        estimator="ridge",
    )
    assert ran.code == 0, ran.err
    metrics = ran.json("metrics.json")
    assert metrics["problem"] == "regression"
    assert {each["name"]: each["kind"] for each in metrics["inputs"]} == {
        "age": "number",
        "city": "category",
        "joined": "number",
        "member": "number",
    }
    assert any("6 rows have no target" in note for note in metrics["notes"])
    assert any("'name' is left out" in note for note in metrics["notes"])
    rows = predictions(ran)
    actual, said = (np.array([float(row[name]) for row in rows]) for name in ("actual", "predicted"))
    r2 = 1 - ((actual - said) ** 2).sum() / ((actual - actual.mean()) ** 2).sum()
    assert metrics["test"]["r2"] == pytest.approx(r2)
    assert r2 > 0.75
    assert metrics["test"]["root_mean_squared_error"] == pytest.approx(np.sqrt(((actual - said) ** 2).mean()))
    assert next(iter(metrics["importance"])) == "age"

    # A row that nobody has seen, with a city that nobody has heard of: both forms of the model agree on it.
    model = joblib.load(ran.results / "model.joblib")
    new = pl.DataFrame(
        {"age": [40.0, None], "city": ["Kyoto", "Taipei"], "joined": [16_000.0] * 2, "member": [1.0, 0.0]}
    )
    with pytest.warns(UserWarning, match="unknown categories"):
        predicted = model.predict(new)
    session = onnxruntime.InferenceSession(ran.results / "model.onnx", providers=["CPUExecutionProvider"])
    cities = np.array([["Kyoto"], ["Taipei"]], dtype=object)
    columns = {name: new[name].cast(pl.Float32).to_numpy().reshape(-1, 1) for name in ("age", "joined", "member")}
    (answer,) = session.run(None, {**columns, "city": cities})
    assert answer.reshape(-1) == pytest.approx(predicted, rel=1e-3)


@pytest.mark.long
def test_hyper_parameters_reach_the_model(tmp_path: Path) -> None:
    ran = learn(
        tmp_path / "a",
        estimator="gradient_boosting",
        training_data={"dataset": "diabetes"},
        hyper_parameters={"n_estimators": 20, "max_depth": 1, "learning_rate": 1.0, "subsample": 1.0},
    )
    assert ran.code == 0, ran.err
    model = joblib.load(ran.results / "model.joblib")[-1]
    assert len(model.estimators_) == 20
    assert {tree.get_depth() for tree in model.estimators_.ravel()} == {1}
    assert "tree 20 of 20: loss" in ran.out
    assert "learning_curve.png" in ran.files
    assert "residuals.png" in ran.files


@pytest.mark.long
def test_arrays_with_a_split_of_their_own(tmp_path: Path) -> None:
    from sklearn import datasets  # noqa: PLC0415 - two seconds for each process that collects the tests

    digits = datasets.load_digits()
    packed = io.BytesIO()
    parts = {"x_train": digits.images[:600], "y_train": digits.target[:600]}
    np.savez_compressed(packed, **parts, x_test=digits.images[600:800], y_test=digits.target[600:800])
    ran = learn(tmp_path / "a", {"digits.npz": packed.getvalue()}, training_data="digits.npz", estimator="svm")
    assert ran.code == 0, ran.err
    metrics = ran.json("metrics.json")
    assert metrics["rows"] == {"train": 600, "test": 200}
    rows = predictions(ran)
    assert [int(row["row"]) for row in rows] == list(range(600, 800))
    assert [int(row["actual"]) for row in rows] == digits.target[600:800].tolist()
    assert metrics["test"]["accuracy"] > 0.9


@pytest.mark.long
def test_data_inside_the_task_and_parquet(tmp_path: Path) -> None:
    table = [{"x": at, "sign": "plus" if at > 10 else "minus"} for at in range(40)]
    inline = learn(tmp_path / "a", training_data=table, target="sign", estimator="decision_tree", test_size=8)
    packed = io.BytesIO()
    pl.DataFrame(table).write_parquet(packed)
    parquet = learn(
        tmp_path / "b", {"t.parquet": packed.getvalue()}, training_data="t.parquet", target="sign",
        estimator="decision_tree", test_size=8,
    )  # fmt: skip
    for ran in (inline, parquet):
        assert ran.code == 0, ran.err
        assert len(predictions(ran)) == 8
    assert predictions(inline) == predictions(parquet)


@pytest.mark.long
def test_clusters(tmp_path: Path) -> None:
    from sklearn import datasets  # noqa: PLC0415 - two seconds for each process that collects the tests

    flowers = datasets.load_iris()
    table = pl.DataFrame(flowers.data, schema=list("abcd")).write_csv().encode()
    by_name = {"training_data": "f.csv", "estimator": "k_means", "hyper_parameters": {"n_clusters": 3}}
    alone = learn(tmp_path / "b", {"f.csv": table}, **by_name)  # no target, and nobody to ask for one
    assert alone.code == 0, alone.err
    assert "actual" not in predictions(alone)[0]
    ran = learn(tmp_path / "a", problem="clustering", hyper_parameters={"n_clusters": 3})
    assert ran.code == 0, ran.err
    metrics = ran.json("metrics.json")
    rows = predictions(ran)
    assert len(rows) == 150
    sizes = {label: sum(row["predicted"] == label for row in rows) for label in "012"}
    assert metrics["train"]["sizes"] == sizes
    assert metrics["train"]["adjusted_rand"] > 0.5
    assert {"clusters.png", "model.joblib", "model.onnx"} <= set(ran.files)


def test_data_that_cannot_be_learned_from_are_refused_in_one_line(tmp_path: Path) -> None:
    letters = [{"x": at, "y": "ab"[at % 2]} for at in range(9)]
    one_class = [{"x": 1, "y": "a"}, {"x": 2, "y": "a"}]
    refused: dict[str, tuple[dict[str, bytes | Path], dict[str, object]]] = {
        "hyper_parameters: The 'C' parameter of SVC": ({}, {"estimator": "svm", "hyper_parameters": {"C": -1}}),
        "no column 'colour'": ({}, {"target": "colour"}),
        "has one class only": ({}, {"training_data": one_class, "target": "y"}),
        "regression learns numbers": ({}, {"training_data": letters, "target": "y", "problem": "regression"}),
        "is no npz file of plain arrays": ({"a.npz": b"x"}, {"training_data": "a.npz"}),
        "cannot be read": ({"a.parquet": b"x"}, {"training_data": "a.parquet", "target": "y"}),
    }
    tasks = [(files, {**IRIS, **fields}) for files, fields in refused.values()]
    for words, ran in zip(refused, program_runs.run_in_one_process(tmp_path, tasks), strict=True):
        assert ran.code == 2, (words, ran.err)
        assert words in ran.err
        assert len(ran.err.splitlines()) == 1
        assert "model.joblib" not in ran.files


OURS = {"n_jobs", "random_state", "verbose", "verbose_interval", "warm_start", "copy_X", "copy_x", "compute_score"}
OBJECTS = {
    *("estimator", "init", "metric_params", "precompute", "covariance_estimator", "constant", "monotonic_cst"),
    *("interaction_cst", "categorical_features", "means_init", "precisions_init", "weights_init", "compute_labels"),
}


def test_the_table_of_estimators_is_scikit_learns() -> None:
    from sklearn.utils import discovery  # noqa: PLC0415 - two seconds for each process that collects the tests

    classes = dict(discovery.all_estimators())
    for problems in estimators.SCIKIT_LEARN.values():
        for named in problems.values():
            there: dict[str, Any] = classes[named.name]().get_params()
            assert set(named.parameters) <= set(there), named.name
            deprecated = {name for name, value in there.items() if value == "deprecated"}
            assert not deprecated & set(named.parameters), named.name
            missing = set(there) - set(named.parameters) - deprecated - OURS - OBJECTS
            assert missing == set(), named.name


ALL = [(name, problem) for name, problems in estimators.SCIKIT_LEARN.items() for problem in problems]


@pytest.mark.long
@pytest.mark.parametrize(("estimator", "problem"), ALL)
def test_every_estimator_learns(tmp_path: Path, estimator: str, problem: str) -> None:
    data = {"dataset": "diabetes" if problem == "regression" else "wine"}
    ran = learn(tmp_path / "a", training_data=data, estimator=estimator, problem=problem)
    assert ran.code == 0, ran.err
    metrics = ran.json("metrics.json")
    if estimator == "baseline":
        assert "why_not" in metrics["onnx"]
        return
    assert "model.onnx" in ran.files, metrics["notes"]
    if problem == "classification":
        assert metrics["test"]["accuracy"] > 0.85
    elif problem == "regression" and estimator != "decision_tree":
        assert metrics["test"]["r2"] > 0
