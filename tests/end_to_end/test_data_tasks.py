"""Data tasks where they are fenced, with their packages: a table larger than the memory, pictures, texts."""

from __future__ import annotations

import csv
import functools
import io
import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import installed
import numpy as np
import pytest
import waiting
from PIL import Image

MEMORY = 224 * 1024 * 1024
ROWS, TIMES = 20_000, 280
"""A block of rows, repeated: what numpy says of the block tells what must come out of the whole."""


def block(seed: int) -> tuple[str, dict[str, list[str]]]:
    drawn = random.Random(seed)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    columns: dict[str, list[str]] = {"when": [], "shop": [], "amount": [], "items": [], "comment": []}
    for at in range(ROWS):
        row = [
            f"2026-{at % 12 + 1:02}-{at % 28 + 1:02} {at % 24:02}:30:00",
            drawn.choice(["Taipei", "Tainan", "花蓮"]),
            "" if drawn.random() < 0.05 else f"{drawn.lognormvariate(3, 1):.2f}",
            str(drawn.randrange(1, 40)),
            drawn.choice(['a "quoted", word', "plain words of some length", "x" * 30]),
        ]
        writer.writerow(row)
        for name, value in zip(columns, row, strict=True):
            columns[name].append(value)
    return text.getvalue(), columns


@pytest.fixture
def up(fenced: installed.Shell) -> Iterator[installed.Up]:
    """With a cache of environments that the sandbox's user may enter: a test's own folder is closed to it."""
    with tempfile.TemporaryDirectory(prefix="hivemind-cache-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        fenced.environment["HIVEMIND_CACHE_DIR"] = folder
        with installed.running_up(fenced) as found:
            yield found


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_table_larger_than_the_memory(up: installed.Up, tmp_path: Path) -> None:
    text, columns = block(3)
    with (tmp_path / "sales.csv").open("w", encoding="utf-8", newline="") as file:
        file.write(",".join(columns) + "\n")
        for _ in range(TIMES):
            file.write(text)
    assert (tmp_path / "sales.csv").stat().st_size > 1.3 * MEMORY
    task = {
        "id": "large",
        "processing_type": "csv_analysis",
        "input_data": "sales.csv",
        "input_files": {"sales.csv": {"file": "sales.csv"}},
        "group_by": ["shop"],
        "queries": {"top": "SELECT amount FROM data WHERE amount IS NOT NULL ORDER BY amount DESC, items LIMIT 1000"},
        "memory_limit": str(MEMORY),
        "disk_limit": "4g",
        "timeout": 600,
    }
    (tmp_path / "task.json").write_text(json.dumps(task), encoding="utf-8")
    submitted = up.ask("submit", "task.json", "--json")
    assert submitted.objects == [{"id": "large"}], submitted.err

    def ended() -> bool:
        return up.ask("status", "large", "--json").objects[0]["status"] in {"completed", "failed"}

    waiting.wait_for(ended, description="the large table is analysed", seconds=800)
    told = up.ask("status", "large", "--json").objects[0]
    assert told["status"] == "completed", (told["error"], up.ask("logs", "large"))
    assert told["usage"]["peak_memory_bytes"] <= MEMORY
    fetched = up.ask("results", "large", "-o", "out")
    assert fetched.code == 0, fetched.err

    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert summary["rows"] == ROWS * TIMES
    found = {column["name"]: column for column in summary["columns"]}
    assert [column["type"] for column in found.values()] == ["timestamp", "text", "number", "integer", "text"]
    amounts = np.array([float(value) for value in columns["amount"] if value])
    amount = found["amount"]
    assert amount["missing"] == (ROWS - len(amounts)) * TIMES
    assert amount["sum"] == pytest.approx(amounts.sum() * TIMES, rel=1e-9)
    assert amount["mean"] == pytest.approx(amounts.mean(), rel=1e-9)
    assert amount["std"] == pytest.approx(amounts.std(), rel=1e-6)
    assert (amount["min"], amount["max"]) == (amounts.min(), amounts.max())
    for label, at in (("p05", 5), ("median", 50), ("p95", 95)):
        low, high = np.percentile(amounts, [at - 1, at + 1])
        assert low <= amount["quantiles"][label] <= high  # estimates, beyond a million rows
    counts = np.histogram(amounts, bins=amount["histogram"]["edges"])[0]
    assert amount["histogram"]["counts"] == (counts * TIMES).tolist()
    assert {each["value"]: each["count"] for each in found["comment"]["top"]} == {
        value: columns["comment"].count(value) * TIMES for value in set(columns["comment"])
    }
    with (tmp_path / "out" / "group_by.csv").open(encoding="utf-8", newline="") as file:
        groups = {row["shop"]: row for row in csv.DictReader(file)}
    for shop in set(columns["shop"]):
        items = [int(value) for value, of in zip(columns["items"], columns["shop"], strict=True) if of == shop]
        assert int(groups[shop]["count"]) == len(items) * TIMES
        assert int(groups[shop]["items_sum"]) == sum(items) * TIMES
    best = np.repeat(np.sort(amounts)[::-1], TIMES)[:1000]
    with (tmp_path / "out" / "top.csv").open(encoding="utf-8") as file:
        assert [float(line) for line in file.read().split()[1:]] == pytest.approx(best)


def _ended(up: installed.Up, task: str) -> bool:
    return up.ask("status", task, "--json").objects[0]["status"] in {"completed", "failed"}


@pytest.mark.long
@pytest.mark.timeout(900)
def test_pictures_and_texts_with_their_packages(up: installed.Up, tmp_path: Path) -> None:
    Image.new("RGB", (64, 48), "#3366cc").save(tmp_path / "a.png")
    (tmp_path / "tamil.txt").write_text("தமிழ் செம்மொழி ஆகும்.", encoding="utf-8")
    (tmp_path / "thai.html").write_text("<html><p>ภาษาไทย</html>", encoding="utf-8")
    pictures = up.submit(
        processing_type="image_processing",
        input_data="a.png",
        input_files={"a.png": {"file": str(tmp_path / "a.png")}},
        steps=[{"op": "watermark", "text": "蜂"}, {"op": "convert", "format": "webp"}],
        timeout=600,
    )
    texts = up.submit(
        processing_type="text_analysis",
        input_data=["tamil.txt", "thai.html"],
        input_files={name: {"file": str(tmp_path / name)} for name in ("tamil.txt", "thai.html")},
        timeout=600,
    )
    for task in (pictures, texts):
        waiting.wait_for(functools.partial(_ended, up, task), description="the task has ended", seconds=600)
        assert up.ask("wait", task).code == 0, up.ask("logs", task)
        assert up.ask("results", task, "-o", task).code == 0
    with Image.open(tmp_path / pictures / "images" / "a.webp") as image:
        assert image.size == (64, 48)
    documents = json.loads((tmp_path / texts / "summary.json").read_text(encoding="utf-8"))["documents"]
    assert [(each["language"], each["format"], each["words"]) for each in documents] == [
        ("ta", "text", 3),
        ("th", "html", 2),
    ]
