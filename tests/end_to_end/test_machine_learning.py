"""Each framework trains for real, in a container and in the sandbox: by name, by script, and the model used again."""

from __future__ import annotations

import base64
import csv
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import engine_api
import installed
import pytest
import waiting

from hivemind_worker.client import inputs, task_files

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "machine-learning"
FRAMEWORKS = ("scikit-learn", "pytorch", "tensorflow")
SECONDS = 800
BUSY = 900
LABEL = '{"label":["io.hivemind.environment"]}'
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
import csv, keras
from sklearn.datasets import load_diabetes
said = list(csv.DictReader(open("predictions.csv", encoding="utf-8")))
rows = load_diabetes().data.astype("float32")[[int(row["row"]) for row in said]]
model = keras.models.load_model("model.keras")
found = model.predict(rows, verbose=0).reshape(-1)
print("agreeing", sum(abs(a - float(row["predicted"])) < 0.01 for a, row in zip(found, said)) / len(said))
print("weights", sum(w.numpy().size for w in model.trainable_weights))
""",
}


@pytest.fixture
def up(fenced: installed.Shell, request: pytest.FixtureRequest) -> Iterator[installed.Up]:
    """A worker that makes real environments, from the index of this site and the wheels that lie here."""
    wheels = os.environ.get("PIP_FIND_LINKS", "")
    cache = Path(tempfile.mkdtemp(prefix="hivemind-test-cache-", dir="/var/tmp"))
    cache.chmod(0o755)  # the user of a sandbox must get there, and into pytest's own folders it does not
    more = [f"--cache-dir={cache}", *([f"--package-wheels={wheels}"] if wheels and Path(wheels).is_dir() else [])]
    engine = request.getfixturevalue("docker_url") if "docker" in fenced.flags else ""
    before = _environments(engine)
    try:
        with installed.running_up(fenced, *more) as found:
            yield found
    finally:
        shutil.rmtree(cache)
        for made in _environments(engine) - before:
            engine_api.delete(engine, f"/images/{made}")


def _environments(engine: str) -> set[str]:
    return {image["Id"] for image in engine_api.get(engine, "/images/json", filters=LABEL)} if engine else set()


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

    names = {"predictions.csv", "model.joblib", "model.pt", "model.torchscript.pt", "model.keras"}
    given = [path for path in (*folder.iterdir(), EXAMPLES / "penguins.csv") if path.name in {*names, "penguins.csv"}]
    files = {path.name: {"base64": base64.b64encode(path.read_bytes()).decode()} for path in given}
    again = up.submit(model_type=framework, code=AGAIN[framework], input_files=files, memory_limit="2g")
    _ended(up, again)
    said = dict(line.split() for line in up.ask("logs", again).text.splitlines() if line.startswith(("agree", "weig")))
    assert float(said["agreeing"]) == 1.0
    if framework != "scikit-learn":
        assert int(said["weights"]) == metrics["network"]["weights"]
    if framework == "tensorflow":  # 10 columns, layers of 32 and 16 as the task asks, one number
        assert int(said["weights"]) == 10 * 32 + 32 + 32 * 16 + 16 + 16 + 1


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


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.json")), ids=lambda path: path.stem)
def test_every_example_is_a_task(example: Path) -> None:
    (task,) = task_files.read(example)
    assert inputs.prepare(task, EXAMPLES).task.kind == "ml"
