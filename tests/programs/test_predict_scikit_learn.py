"""A kept model predicts new tables as it predicted the old one: what it has not seen is named."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import joblib
import program_runs
import pytest

LIBRARIES = ("numpy", "sklearn.ensemble", "matplotlib.pyplot", "skl2onnx")

pytestmark = pytest.mark.timeout(400)  # many runs in one interpreter

ROWS = 80
HEADER = "size;code;day;member;y"


def row(at: int, *, target: bool = True) -> str:
    code = ("01", "02", "10")[at % 3]
    member = ("no", "yes")[at % 2]
    cells = [f"{at * 1.5:.1f}".replace(".", ","), code, f"2026-01-{at % 28 + 1:02d}", member]
    return ";".join([*cells, f"{at * 2 + 7 * (code == '10') + 3 * (member == 'yes')}"] if target else cells)


def rows_of(run: program_runs.Ran) -> list[dict[str, Any]]:
    with (run.results / "predictions.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> program_runs.Ran:
    table = "\n".join([HEADER, *map(row, range(ROWS))]).encode()
    run = program_runs.run(
        tmp_path_factory.mktemp("predict") / "train",
        {"t.csv": table},
        model_type="scikit-learn",
        estimator="ridge",
        training_data="t.csv",
        target="y",
        problem="regression",
    )
    assert run.code == 0, run.err
    return run


def test_new_rows_are_predicted_as_the_old_ones_were(tmp_path: Path, trained: program_runs.Ran) -> None:
    model = trained.results / "model.joblib"
    bare = tmp_path / "bare.joblib"
    joblib.dump(joblib.load(model)[-1], bare)
    predict: dict[str, object] = {"model_type": "scikit-learn", "model": "m.joblib", "predict_data": "new.csv"}
    header = HEADER.removesuffix(";y")
    old = [int(each["row"]) for each in rows_of(trained)]
    # The column code holds no leading zero here, and the columns stand in another order.
    turned = "\n".join([*(";".join(reversed(row(at, target=False).split(";"))) for at in range(2, ROWS, 3))])
    tables = {
        "same": "\n".join([HEADER, *map(row, range(ROWS))]),
        "turned": ";".join(reversed(header.split(";"))) + "\n" + turned,
        "strange": header + "\n" + "1000,5;99;2026-01-02;no\n-;01;2026-01-02;yes\n",
        "absent": "size;code;day\n1,5;01;2026-01-02\n",
        "other": header + "\n1,5;01;soon;no\n2,5;01;late;no\n",
    }
    tasks: list[tuple[dict[str, bytes | Path], dict[str, object]]] = [
        ({"m.joblib": model, "new.csv": table.encode()}, predict) for table in tables.values()
    ]
    tasks += [({"m.joblib": bare, "new.csv": b"a\n1\n"}, predict), ({"m.joblib": b"x", "new.csv": b"a\n1\n"}, predict)]
    same, turned_run, strange, absent, other, foreign, broken = program_runs.run_in_one_process(tmp_path, tasks, 400)

    assert same.code == 0, same.err
    by_row = {each["row"]: each for each in rows_of(same)}
    for each in rows_of(trained):
        assert by_row[each["row"]]["predicted"] == each["predicted"]
    metrics = same.json("metrics.json")
    assert metrics["rows"] == {"train": 0, "test": ROWS}
    assert metrics["test"]["r2"] > 0.95
    assert metrics["trained_with"]["scikit-learn"] == metrics["versions"]["scikit-learn"]
    assert len(old) == 16

    assert turned_run.code == 0, turned_run.err
    answers = [float(each["predicted"]) for each in rows_of(turned_run)]
    assert answers == pytest.approx([float(by_row[str(at)]["predicted"]) for at in range(2, ROWS, 3)])

    notes = "\n".join(strange.json("metrics.json")["notes"])
    assert "column 'code': 1 values are categories that the model has not seen: '99'" in notes
    assert "column 'size': 1 missing values" in notes
    assert "1 values lie outside of what the model has seen" in notes

    assert "no column 'member'" in absent.err
    assert "column 'day' is" in other.err
    assert "does not say what it learned from" in foreign.err
    assert "cannot be loaded" in broken.err
    assert {run.code for run in (absent, other, foreign, broken)} == {2}
