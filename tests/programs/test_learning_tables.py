"""Tables to learn from: as people send them, and random ones in random dialects with a known relation.

What is learned is what scikit-learn learns of the values, and what is left out is named with its reason.
"""

from __future__ import annotations

import csv
import datetime as dt
import json
import random
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import program_runs
import pytest

FOLDER = Path(__file__).parent / "learning"

CASES: dict[str, dict[str, Any]] = {
    "m01_decimal_comma.csv": {"inputs": {"x": "number", "z": "number"}, "r2": 0.95, "words": "decimal comma"},
    "m02_cp1252.csv": {"inputs": {"größe": "number", "typ": "category"}, "target": "ziel", "words": "cp1252"},
    "m03_space_after_comma.csv": {
        "inputs": {"age": "number", "hours": "number"},
        "target": "income",
        "classes": ["<=50K", ">50K"],
    },
    "m09_bool_target.csv": {"inputs": {"x": "number"}, "classes": ["false", "true"], "accuracy": 1},
    "m10_datetime.csv": {
        "inputs": {"when": "number", "x": "number"},
        "problem": "regression",
        "r2": 0.9,
        "words": "as days since 1970",
    },
    "m15_leading_zero_label.csv": {"inputs": {"x": "number"}, "classes": ["01", "02"], "accuracy": 1},
    "m21_nul_words.csv": {"inputs": {"x": "number"}, "words": "count as missing: '-'"},
    "m29_date_only.csv": {"inputs": {"when": "number"}, "problem": "regression", "r2": 0.9},
    "m40_category_column.parquet": {"inputs": {"colour": "category"}, "accuracy": 1},
}
"""Each file's columns that must be inputs, its classes, the lowest score, and words of what was assumed."""


ROWS = 60
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
Column = tuple[list[str], list[float]]
"""Cells as they stand in the file, and what each adds to the target."""


@dataclass
class Table:
    """One random table: the bytes of its file, and the values that a person reads there (missing: NaN or None)."""

    content: bytes = b""
    numbers: dict[str, list[float]] = field(default_factory=dict)
    categories: dict[str, list[str]] = field(default_factory=dict)
    target: list[float] = field(default_factory=list)
    told: list[str] = field(default_factory=list)


class Writer:
    """Makes columns of random values, each of which adds to the target, and spells them in a random dialect."""

    def __init__(self, seed: int) -> None:
        self.chance = chance = random.Random(seed)
        comma = chance.random() < 0.4
        self.delimiter = chance.choice(";\t|" if comma else ",;\t|")
        self.decimal = "," if comma else "."
        self.gap = chance.choice(["", "", "NA", "n/a", "-", "null"])
        self.table = Table(told=[f"seed {seed}"])
        self.columns: dict[str, list[str]] = {}
        self.effects = [0.0] * ROWS

    def write(self) -> Table:
        chance, table = self.chance, self.table
        makers = [self.number, self.whole, self.day, self.moment, self.flag, self.word]
        chosen = [self.number, *(chance.choice(makers) for _ in range(chance.randint(1, 5)))]
        names = chance.sample(["x", "Größe", "2019", "a b", "Preis (€)", "id no", "z_1", "été"], len(chosen))
        for name, make in zip(names, chosen, strict=True):
            self.columns[name], effects = make(name)
            self.effects = [sum(pair) for pair in zip(self.effects, effects, strict=True)]
        table.target = [round(effect + chance.gauss(0, 1), 4) for effect in self.effects]
        self.columns["target_y"] = [self.spell(value, 4) for value in table.target]
        order = list(self.columns)
        chance.shuffle(order)
        quoted = chance.random() < 0.3
        blank = " " if self.delimiter in ",;" and chance.random() < 0.3 else ""
        rows = [order, *([self.columns[name][at] for name in order] for at in range(ROWS))]
        joint = self.delimiter + blank
        lines = [joint.join(f'"{cell}"' if quoted else cell for cell in row) for row in rows]
        if chance.random() < 0.25:
            lines = [chance.choice(["Report of 2026", "# made by a logger"]), "", *lines]
        text = chance.choice(["\n", "\r\n"]).join(lines) + chance.choice(["", "\n"])
        encoding = chance.choice(["utf-8", "utf-8-sig", "cp1252", "utf-16"])
        table.told += [repr(self.delimiter), self.decimal, self.gap, encoding, repr(blank), *lines[:4]]
        table.content = text.encode(encoding)
        return table

    def spell(self, value: float, digits: int) -> str:
        return f"{value:.{digits}f}".replace(".", self.decimal)

    def number(self, name: str) -> Column:
        digits, size = self.chance.choice([1, 2, 3]), 10 ** self.chance.randint(1, 5)
        values = [round(self.chance.uniform(-size, size), digits) for _ in range(ROWS)]
        share = self.chance.choice([0, 0.1])
        holes = [self.chance.random() < share for _ in range(ROWS)]
        self.table.numbers[name] = [float("nan") if hole else value for hole, value in zip(holes, values, strict=True)]
        cells = [self.gap if hole else self.spell(value, digits) for hole, value in zip(holes, values, strict=True)]
        return cells, [value / size * 10 for value in values]

    def whole(self, name: str) -> Column:
        values = [self.chance.randint(-50, 5_000) for _ in range(ROWS)]
        self.table.numbers[name] = [float(value) for value in values]
        return [str(value) for value in values], [value / 500 for value in values]

    def day(self, name: str) -> Column:
        values = [self.chance.randint(18_262, 19_000) for _ in range(ROWS)]
        form = self.chance.choice(["%Y-%m-%d", "%d.%m.%Y"])
        self.table.numbers[name] = [float(value) for value in values]
        return [(EPOCH + dt.timedelta(days=value)).strftime(form) for value in values], [0.0] * ROWS

    def moment(self, name: str) -> Column:
        values = [self.chance.randint(18_262 * 86_400, 19_000 * 86_400) for _ in range(ROWS)]
        form = self.chance.choice(["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S"])
        self.table.numbers[name] = [value / 86_400 for value in values]
        cells = [(EPOCH + dt.timedelta(seconds=value)).strftime(form) for value in values]
        return cells, [value / 10**7 for value in values]

    def flag(self, name: str) -> Column:
        words = self.chance.choice([("false", "true"), ("False", "True"), ("no", "yes"), ("FALSE", "TRUE")])
        values = [self.chance.randint(0, 1) for _ in range(ROWS)]
        self.table.numbers[name] = [float(value) for value in values]
        return [words[value] for value in values], [3.0 * value for value in values]

    def word(self, name: str) -> Column:
        choices = self.chance.choice(
            [["rot", "grün", "blau"], ["Málaga", "Coruña", "León"], ["01", "02"], ["a b", "c"]]
        )
        values = [self.chance.choice(choices) for _ in range(ROWS)]
        self.table.categories[name] = values
        return values, [5.0 * choices.index(value) for value in values]


def expected_score(table: Table) -> float:
    """R² of scikit-learn's linear regression on the values themselves."""
    from sklearn import linear_model, model_selection  # noqa: PLC0415 - seconds for each process that collects the tests

    train, test = model_selection.train_test_split(np.arange(ROWS), test_size=12, random_state=0)
    train, test = np.sort(train), np.sort(test)
    parts = []
    for values in table.numbers.values():
        column = np.array(values)
        parts.append(np.where(np.isnan(column), np.nanmedian(column[train]), column))
    for words in table.categories.values():
        seen = sorted({words[at] for at in train})
        parts += [np.array([float(word == one) for word in words]) for one in (seen[1:] if len(seen) == 2 else seen)]
    inputs = np.column_stack(parts)
    target = np.array(table.target)
    scale = inputs[train].std(axis=0)
    inputs = (inputs - inputs[train].mean(axis=0)) / np.where(scale > 0, scale, 1)
    return float(linear_model.LinearRegression().fit(inputs[train], target[train]).score(inputs[test], target[test]))


def odd_table() -> bytes:
    """Columns that are no features as they stand, and truth values in words."""
    rows = [
        f"{at},{at % 24:02d}:30,p{at},{'x' if at == 7 else at % 9},,{'yes' if at % 3 else 'no'}" for at in range(60)
    ]
    return "\n".join([",clock,name,nearly,empty,y", *rows]).encode()


INLINE = {
    "columns": {
        "x": [at % 7 if at % 9 else "n/a" for at in range(60)],
        "mixed": ["a" if at % 2 else 5 for at in range(60)],
        "day": [f"2026-01-{at % 28 + 1:02d}" for at in range(60)],
        "y": [at % 7 > 3 for at in range(60)],
    }
}

Task = tuple[dict[str, bytes | Path], dict[str, object]]


def case_task(name: str) -> Task:
    case = CASES[name]
    fields: dict[str, object] = {
        "model_type": "scikit-learn",
        "training_data": name,
        "target": case.get("target", "y"),
        "hyper_parameters": {"n_estimators": 10},
        **({"problem": case["problem"]} if "problem" in case else {}),
    }
    return {name: (FOLDER / name).read_bytes()}, fields


def random_task(table: Table) -> Task:
    fields = {"model_type": "scikit-learn", "estimator": "linear_regression", "training_data": "t.csv"}
    return {"t.csv": table.content}, {**fields, "target": "target_y"}


TREE = {"model_type": "scikit-learn", "estimator": "decision_tree", "target": "y"}
TASKS: Mapping[str, Task] = {
    **{name: case_task(name) for name in CASES},
    **{f"random {seed}": random_task(Writer(seed).write()) for seed in range(6)},
    "odd": ({"odd.csv": odd_table()}, {**TREE, "training_data": "odd.csv"}),
    "inline": ({}, {**TREE, "training_data": INLINE}),
    "no header": ({"n.csv": b"1,2\n" * 9}, {**TREE, "training_data": "n.csv"}),
}

# What the program does before it trains: training, plots and ONNX take most of the time, and the long tests do it all.
_READER = """
import json, os, sys
sys.path.insert(0, os.path.join(sys.argv[1], ".hivemind"))
import given, learning_columns, learning_data, learning_problem
for folder in sys.argv[1:]:
    os.chdir(folder)
    settings = given.settings()
    try:
        data = learning_data.read(settings)
        problem = learning_problem.find(settings, data, list(settings["classes"]))
        columns = learning_columns.prepare(data.features, settings["features"], data.notes)
        data.left_out |= columns.left_out
        answer = {
            "problem": problem,
            "inputs": columns.describe(),
            "values": columns.table.to_dict(as_series=False),
            "target": data.target.tolist(),
            "notes": [*data.notes, *columns.notes],
            "data": data.describe(),
        }
    except given.Refusal as refusal:
        answer = {"refused": str(refusal)}
    print(json.dumps(answer))
"""


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the program makes of each task's table."""
    folder = tmp_path_factory.mktemp("learning")
    folders = [folder / str(number) for number in range(len(TASKS))]
    for place, (files, fields) in zip(folders, TASKS.values(), strict=True):
        program_runs._lay_out(place, files, fields)
    ended = subprocess.run(
        [sys.executable, "-c", _READER, *map(str, folders)], capture_output=True, text=True, check=False, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    lines = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    return dict(zip(TASKS, lines, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_a_table_is_read_as_a_person_reads_it(name: str, read: dict[str, dict[str, Any]]) -> None:
    case, result = CASES[name], read[name]
    assert "refused" not in result, result
    used = {column["name"]: column["kind"] for column in result["inputs"]}
    assert case["inputs"].items() <= used.items()
    if "classes" in case:
        assert sorted(set(result["target"])) == case["classes"]
    assert case.get("words", "") in "\n".join([*result["notes"], *result["data"]["assumptions"]])


@pytest.mark.parametrize("seed", range(6))
def test_a_table_in_any_dialect_has_its_values(seed: int, read: dict[str, dict[str, Any]]) -> None:
    table, result = Writer(seed).write(), read[f"random {seed}"]
    assert "refused" not in result, (table.told, result)
    assert result["data"]["columns_left_out"] == [], table.told
    assert result["target"] == pytest.approx(table.target), table.told
    numbers = {name: result["values"].pop(name) for name in table.numbers}
    assert result["values"] == table.categories, table.told
    for name, values in table.numbers.items():
        assert numbers[name] == pytest.approx(values, nan_ok=True, rel=1e-12), table.told


def test_what_is_left_out_or_taken_for_something_is_named(read: dict[str, dict[str, Any]]) -> None:
    result = read["odd"]
    reasons = {column["name"]: column["reason"] for column in result["data"]["columns_left_out"]}
    assert reasons["column_1"].startswith("it numbers the rows")
    assert "60 different texts" in reasons["name"]
    assert reasons["empty"] == "every value is missing"
    assert {column["name"]: column["kind"] for column in result["inputs"]} == {"clock": "number", "nearly": "category"}
    assert set(result["target"]) == {"no", "yes"}
    assert any("nearly: nearly all are numbers" in note for note in result["notes"])
    assert any("clock: times of day" in note for note in result["notes"])

    result = read["inline"]
    assert {column["name"]: (column["read_as"], column["missing"]) for column in result["inputs"]} == {
        "x": ("number", 7),
        "mixed": ("category", 0),
        "day": ("date", 0),
    }
    assert set(result["target"]) == {"false", "true"}
    assert any("among numbers these count as missing: 'n/a'" in note for note in result["notes"])
    assert "no row of names" in read["no header"]["refused"]


@pytest.mark.long
@pytest.mark.timeout(400)
def test_each_case_is_learned(tmp_path: Path) -> None:
    runs = program_runs.run_in_one_process(tmp_path, [TASKS[name] for name in CASES], 400)
    for (name, case), run in zip(CASES.items(), runs, strict=True):
        assert run.code == 0, (name, run.err)
        metrics = run.json("metrics.json")
        if "classes" in case:
            assert metrics["classes"] == case["classes"]
            with (run.results / "predictions.csv").open(encoding="utf-8") as file:
                assert {row["actual"] for row in csv.DictReader(file)} == set(case["classes"])
        for score in {"r2", "accuracy"} & case.keys():
            assert metrics["test"][score] >= case[score], metrics


def check(table: Table, ran: program_runs.Ran) -> None:
    assert ran.code == 0, (table.told, ran.err)
    metrics = ran.json("metrics.json")
    assert metrics["data"]["rows_read"] == ROWS, table.told
    assert metrics["data"]["columns_left_out"] == [], table.told
    kinds = {column["name"]: column["kind"] for column in metrics["inputs"]}
    assert kinds == dict.fromkeys(table.numbers, "number") | dict.fromkeys(table.categories, "category"), table.told
    assert metrics["test"]["r2"] == pytest.approx(expected_score(table), abs=1e-6), table.told


@pytest.mark.long
def test_moments_a_second_apart_are_told_apart(tmp_path: Path) -> None:
    rows = [f"2026-01-02 03:{at // 60:02d}:{at % 60:02d},{at * at}" for at in range(200)]
    run = program_runs.run(
        tmp_path / "a",
        {"t.csv": "\n".join(["when,y", *rows]).encode()},
        model_type="scikit-learn",
        estimator="decision_tree",
        target="y",
        training_data="t.csv",
        problem="regression",
    )
    assert run.code == 0, run.err
    assert run.json("metrics.json")["test"]["r2"] > 0.99


@pytest.mark.long
@pytest.mark.timeout(1_500)
def test_many_tables_in_any_dialect(tmp_path: Path) -> None:
    tables = [Writer(seed).write() for seed in range(1_000, 1_060)]
    refused = 0
    for table, run in zip(
        tables, program_runs.run_in_one_process(tmp_path, [random_task(table) for table in tables], 1_400), strict=True
    ):
        if run.code == 2:  # a refusal is not wrong, if it says why and is rare
            refused += 1
            assert len(run.err) > 40, table.told
        else:
            check(table, run)
    assert refused <= 5
