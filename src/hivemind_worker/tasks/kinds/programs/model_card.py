"""model_card.md: what a model learned from, how good it is, what was assumed, and the exact versions. For people."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import given

_SCORES = 30
_PACKAGES = ("python", "scikit-learn", "torch", "tensorflow", "tensorflow-cpu", "keras", "numpy", "polars", "duckdb")
_CHUNK = 1 << 20


def write(metrics: dict[str, Any], training_data: Any) -> None:
    """Write the card from what metrics.json says and where the data came from."""
    target = f" of `{metrics['target']}`" if metrics["target"] else ""
    lines = [f"# {metrics.get('class') or metrics['estimator']}: {metrics['problem']}{target}", ""]
    lines += [*_data(metrics, training_data), *_inputs(metrics), *_scores(metrics), *_training(metrics)]
    if metrics["notes"]:
        lines += ["## Notes", *(f"- {_cell(note)}" for note in metrics["notes"]), ""]
    lines += ["## Versions", *_table(["package", "version"], _versions(metrics["versions"])), ""]
    lines.append("All packages stand in `versions.json`, all numbers in `metrics.json`.")
    (given.RESULTS / "model_card.md").write_text("\n".join(lines) + "\n", encoding="utf-8", errors="backslashreplace")


def _data(metrics: dict[str, Any], training_data: Any) -> list[str]:
    data, rows = metrics["data"], metrics["rows"]
    if isinstance(training_data, str):
        source = f"`{training_data}`, sha256 `{_sha256(training_data)}`"
    elif "dataset" in training_data:
        source = f"the data set {training_data['dataset']} of scikit-learn"
    else:
        source = "rows that stand in the task"
    split = f"{rows['train']:,} rows to learn from, {rows['test']:,} to be tested on, by the seed {metrics['seed']}."
    absent = f"{data['rows_left_out']:,} rows that do not fit the table, {data['rows_without_target']:,} without "
    absent += f"a target, {data['rows_with_missing_values_dropped']:,} with missing values."
    lines = ["## Data", f"{source}: {split} Left out: {absent}", ""]
    lines += [*(f"- {_cell(sentence)}" for sentence in data["assumptions"]), ""]
    if data["columns_left_out"]:
        pairs = [[column["name"], column["reason"]] for column in data["columns_left_out"]]
        lines += ["Columns left out:", "", *_table(["column", "reason"], pairs), ""]
    return lines


def _inputs(metrics: dict[str, Any]) -> list[str]:
    importance = metrics.get("importance", {})
    rows = [
        [
            column["name"],
            column.get("read_as", column["kind"]),
            str(column.get("missing", "")),
            f"{importance[column['name']]:.4g}" if column["name"] in importance else "",
        ]
        for column in metrics["inputs"]
    ]
    return ["## Inputs", *_table(["column", "read as", "missing", "importance"], rows), ""]


def _scores(metrics: dict[str, Any]) -> list[str]:
    parts = [part for part in ("test", "train", "baseline") if metrics.get(part)]
    names = [name for name, value in metrics[parts[0]].items() if not isinstance(value, dict)] if parts else []
    rows = [
        [name, *("" if metrics[part].get(name) is None else f"{metrics[part][name]:.4g}" for part in parts)]
        for name in names[:_SCORES]
    ]
    return ["## Scores", *_table(["score", *parts], rows), ""] if rows else []


def _training(metrics: dict[str, Any]) -> list[str]:
    parameters = [[name, json.dumps(value, default=str)] for name, value in metrics["hyper_parameters"].items()]
    lines = ["## Parameters", *_table(["parameter", "value"], parameters), ""]
    for name in ("search", "calibration", "class_weight", "missing"):
        value = metrics.get(name)
        if isinstance(value, dict):
            value = {key: inner for key, inner in value.items() if key != "bins"}
        if value:
            lines += [f"- {name}: `{json.dumps(value, default=str, ensure_ascii=False)[:500]}`"]
    return [*lines, ""]


def _versions(versions: dict[str, str]) -> list[list[str]]:
    return [[name, versions[name]] for name in _PACKAGES if name in versions]


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["", *("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)]


def _cell(text: str) -> str:
    """Text within one line that no reader takes for markup."""
    short = " ".join(str(text).split())
    return short.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")[:300]


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()
