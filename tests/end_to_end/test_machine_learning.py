"""Each framework trains for real, in a container and in the sandbox: by name, by script, and the model used again."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import installed
import numpy as np
import pytest
import waiting

from hivemind_worker.client import inputs, task_files

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "machine-learning"
PAGE = EXAMPLES.parents[1] / "docs" / "machine-learning.md"
FRAMEWORKS = ("scikit-learn", "pytorch", "tensorflow")
SECONDS = 800
BUSY = 900
# Loads the model as its users do, in its framework's own environment, and answers for the test rows once more.
AGAIN = {
    "scikit-learn": """
import csv, json, joblib, polars
model = joblib.load("model.joblib")
said = list(csv.DictReader(open("predictions.csv", encoding="utf-8")))
table = polars.read_csv("penguins.csv", null_values="NA").fill_null(strategy="zero")[[int(r["row"]) for r in said]]
whole = [at for at, row in enumerate(table["sex"]) if row]
table = table.with_columns(polars.col(polars.Int64).cast(polars.Float64))
found = model.predict(table)
print("agreeing", sum(found[at] == said[at]["predicted"] for at in whole) / len(whole))
""",
    "pytorch": """
import csv, torch
from sklearn.datasets import load_digits
said = list(csv.DictReader(open("predictions.csv", encoding="utf-8")))
images = torch.from_numpy(load_digits().images).float()[[int(row["row"]) for row in said]]
model = torch.jit.load("model.torchscript.pt")
with torch.inference_mode():
    found = model(images.unsqueeze(-1)).argmax(dim=1).tolist()
print("agreeing", sum(a == int(row["predicted"]) for a, row in zip(found, said)) / len(said))
content = torch.load("model.pt", weights_only=True)
print("weights", sum(each.numel() for name, each in content["state_dict"].items() if not name.startswith("0.")))
""",
    "tensorflow": """
import csv, joblib, keras, polars
from sklearn.datasets import load_diabetes
said = list(csv.DictReader(open("predictions.csv", encoding="utf-8")))
bunch = load_diabetes()
table = polars.DataFrame(bunch.data, schema=list(bunch.feature_names))[[int(row["row"]) for row in said]]
rows = joblib.load("preprocessing.joblib").transform(table).astype("float32")
model = keras.models.load_model("model.keras")
found = model.predict(rows, verbose=0).reshape(-1)
print("agreeing", sum(abs(a - float(row["predicted"])) < 0.01 for a, row in zip(found, said)) / len(said))
print("weights", sum(w.numpy().size for w in model.trainable_weights))
""",
}


# What the examples do not use: colour images, normalization, weights of classes, other optimizers, gaps, folds.
COLOURED: dict[str, Any] = {
    "training_data": "images.npz",
    "estimator": "cnn",
    "epochs": 12,
    "batch_size": 53,
    "hyper_parameters": {
        "batch_normalization": True,
        "class_weight": "balanced",
        "optimizer": "sgd",
        "learning_rate": 0.05,
        "filters": [4, 6],
        "kernel_size": 3,
        "hidden_layers": [],
        "activation": "gelu",
    },
}
COLOURED_WEIGHTS = (3 * 9 * 4 + 4) + 2 * 4 + (4 * 9 * 6 + 6) + 2 * 6 + (6 * 2 * 3 * 2 + 2)
HEAVY: dict[str, Any] = {
    "training_data": "penguins.csv",
    "target": "body_mass_g",
    "epochs": 40,
    "early_stopping": 15,
    "cross_validation": 2,
    "hyper_parameters": {"optimizer": "adamw", "learning_rate": 0.02, "hidden_layers": [12], "weight_decay": 1},
}
TOO_FAST: dict[str, Any] = {
    "training_data": {"dataset": "diabetes"},
    "hyper_parameters": {"optimizer": "sgd", "learning_rate": 10},
}


def _images() -> bytes:
    """Small colour images: the brighter half is above or below, and those above are rare."""
    chance = np.random.default_rng(1)
    pixels = chance.integers(0, 100, size=(400, 9, 12, 3)).astype("u1")
    above = np.arange(400) % 4 == 0
    pixels[above, :4] += 80
    pixels[~above, 5:] += 80
    packed = io.BytesIO()
    np.savez_compressed(packed, images=pixels, labels=np.where(above, "above", "below"))
    return packed.getvalue()


@pytest.fixture(scope="module")
def cache() -> Iterator[Path]:
    """Where sandboxes find their environments: made once for all tests here."""
    folder = Path(tempfile.mkdtemp(prefix="hivemind-test-cache-", dir="/var/tmp"))
    folder.chmod(0o755)  # the user of a sandbox must get there, and into pytest's own folders it does not
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def up(fenced: installed.Shell, cache: Path, request: pytest.FixtureRequest) -> Iterator[installed.Up]:
    """A worker that makes real environments, from the index of this site and the wheels that lie here."""
    if "docker" in fenced.flags:
        request.getfixturevalue("engine")
    wheels = os.environ.get("PIP_FIND_LINKS", "")
    offered = [f"--package-wheels={wheels}"] if wheels and Path(wheels).is_dir() else []
    with installed.running_up(fenced, f"--cache-dir={cache}", *offered) as found:
        yield found


def _ended(up: installed.Up, task_id: str) -> dict[str, Any]:
    """The task once it has ended: environments of a gigabyte take their time."""

    def ended() -> dict[str, Any] | None:
        (task,) = up.ask("status", task_id, "--json").objects
        return task if task["status"] in {"completed", "failed", "cancelled"} else None

    task = waiting.wait_for(ended, description=f"{task_id} ended", seconds=SECONDS)
    assert task is not None
    log = up.ask("logs", task_id)
    assert task["status"] == "completed", (task["error"], log.text[-3000:], log.err[-3000:])
    return task


def _results(up: installed.Up, task_id: str, folder: str) -> Path:
    assert up.ask("results", task_id, "-o", folder).code == 0
    return up.shell.home / folder


def _submit(up: installed.Up, example: str) -> str:
    said = up.ask("submit", str(EXAMPLES / example), "--json")
    assert said.code == 0, said.err
    return str(said.objects[0]["id"])


@pytest.mark.long
@pytest.mark.timeout(BUSY)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_trained_measured_and_used_again(up: installed.Up, framework: str) -> None:
    by_name, by_script = _submit(up, f"{framework}.json"), _submit(up, f"{framework}-script.json")
    task = _ended(up, by_name)
    assert task["isolation"] == up.shell.flags[1]
    assert task["limits_hit"] == []
    log = up.ask("logs", by_name).text
    assert ("epoch 5 of" if framework != "scikit-learn" else "fold 5 of 5: accuracy") in log
    folder = _results(up, by_name, "named")
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == metrics["rows"]["test"]
    _scores_are_true(metrics, rows)
    plots = {"learning_curve.png", "residuals.png" if framework == "tensorflow" else "confusion.png"}
    for name in plots:
        assert (folder / name).read_bytes().startswith(b"\x89PNG")

    _ended(up, by_script)
    own = json.loads((_results(up, by_script, "own") / "metrics.json").read_text(encoding="utf-8"))
    assert own["test_accuracy"] > 0.85

    names = {"predictions.csv", "model.joblib", "model.pt", "model.torchscript.pt", "model.keras", "penguins.csv"}
    names.add("preprocessing.joblib")
    given = [path for path in (*folder.iterdir(), EXAMPLES / "penguins.csv") if path.name in names]
    files = {path.name: {"base64": base64.b64encode(path.read_bytes()).decode()} for path in given}
    again = up.submit(model_type=framework, code=AGAIN[framework], input_files=files, memory_limit="2g")
    _ended(up, again)
    said = dict(line.split() for line in up.ask("logs", again).text.splitlines() if line.startswith(("agree", "weig")))
    assert float(said["agreeing"]) == 1.0
    if framework != "scikit-learn":
        assert int(said["weights"]) == metrics["network"]["weights"]
    if framework == "tensorflow":  # 10 columns, layers of 32 and 16 as the task asks, one number
        assert int(said["weights"]) == 10 * 32 + 32 + 32 * 16 + 16 + 16 + 1


@pytest.mark.long
@pytest.mark.docker
@pytest.mark.timeout(BUSY)
@pytest.mark.parametrize("fenced", ["docker"], indirect=True)
@pytest.mark.parametrize("framework", FRAMEWORKS[1:])
def test_networks_do_as_their_parameters_say(up: installed.Up, framework: str) -> None:
    images = {"images.npz": {"base64": base64.b64encode(_images()).decode()}}
    table = {"penguins.csv": (EXAMPLES / "penguins.csv").read_text(encoding="utf-8")}
    coloured = up.submit(model_type=framework, input_files=images, **COLOURED)
    again = up.submit(model_type=framework, input_files=images, **COLOURED)
    heavy = up.submit(model_type=framework, input_files=table, **HEAVY)
    too_fast = up.submit(model_type=framework, **TOO_FAST)

    _ended(up, coloured)
    metrics = json.loads((_results(up, coloured, "coloured") / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["classes"] == ["above", "below"]
    assert metrics["network"]["weights"] == COLOURED_WEIGHTS
    assert metrics["test"]["balanced_accuracy"] > 0.9
    _ended(up, again)
    for name in ("predictions.csv", "history.csv"):  # the same task, the same seed: the same bytes
        first, second = (_results(up, task_id, task_id) / name for task_id in (coloured, again))
        assert first.read_bytes() == second.read_bytes()

    _ended(up, heavy)
    metrics = json.loads((_results(up, heavy, "heavy") / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["problem"] == "regression"
    assert metrics["test"]["r2"] > 0.7
    assert len(metrics["cross_validation"]["r2"]["folds"]) == 2
    assert metrics["epochs"]["kept"] <= metrics["epochs"]["run"] <= 40
    assert {each["name"] for each in metrics["inputs"] if each["kind"] == "category"} == {"species", "island", "sex"}

    endless = up.submit(
        model_type=framework,
        training_data={"dataset": "iris"},
        epochs=1_000_000,
        hyper_parameters={"learning_rate": 1e-6},
    )
    waiting.wait_for(
        lambda: re.search(r"epoch [2-9]\d* of 1000000: loss \d", up.ask("logs", endless).text),
        description="a training that takes hours tells how far it is",
        seconds=120,
    )
    assert up.ask("status", endless, "--json").objects[0]["status"] == "running"
    assert up.ask("cancel", endless).code == 0

    assert up.ask("wait", too_fast, "--timeout", "50").code == 2
    assert "try a lower hyper_parameters.learning_rate" in up.ask("logs", too_fast).err


def _scores_are_true(metrics: dict[str, Any], rows: list[dict[str, str]]) -> None:
    """Recomputed from the predictions, and better than knowing nothing."""
    test, baseline = metrics["test"], metrics["baseline"]
    if metrics["problem"] == "classification":
        right = sum(row["actual"] == row["predicted"] for row in rows) / len(rows)
        assert test["accuracy"] == pytest.approx(right)
        assert right > 0.9 > baseline["accuracy"]
        return
    actual, said = ([float(row[name]) for row in rows] for name in ("actual", "predicted"))
    mean = sum(actual) / len(actual)
    error = sum((a - b) ** 2 for a, b in zip(actual, said, strict=True))
    assert test["r2"] == pytest.approx(1 - error / sum((a - mean) ** 2 for a in actual))
    assert test["root_mean_squared_error"] == pytest.approx((error / len(rows)) ** 0.5)
    assert test["r2"] > 0.25 > baseline["r2"]


@pytest.mark.parametrize("block", re.findall(r"```json\n(\{.*?\})\n```", PAGE.read_text(encoding="utf-8"), re.DOTALL))
def test_every_task_of_the_page_is_one(block: str, tmp_path: Path) -> None:
    task = json.loads(block)
    shutil.copytree(EXAMPLES, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.joblib").touch()  # an earlier task's
    (tmp_path / "new.csv").touch()
    assert inputs.prepare(task, tmp_path).task.kind == "ml"


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.json")), ids=lambda path: path.stem)
def test_every_example_is_a_task(example: Path) -> None:
    (task,) = task_files.read(example)
    assert inputs.prepare(task, EXAMPLES).task.kind == "ml"
