"""The tutorial, word for word: every block in its order, what it shows is seen, what it makes is there."""

from __future__ import annotations

import collections
import csv
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import engine_api
import pages
import pytest
from PIL import Image

BLOCKS = pages.blocks("docs/tutorial.md")
UP = next(block for block in BLOCKS if block.kind == "background")
IMAGE = "python:3.11-slim"
SECONDS = 280
BUSY = 1700


@pytest.mark.long
@pytest.mark.sandbox
@pytest.mark.timeout(SECONDS)
def test_in_the_sandbox(tmp_path: Path) -> None:
    reader = pages.reader(tmp_path, HIVEMIND_ISOLATION="sandbox")
    _followed(reader, tmp_path, [block for block in BLOCKS if not block.kind], SECONDS)


@pytest.mark.long
@pytest.mark.docker
@pytest.mark.timeout(BUSY)
def test_in_containers_with_every_framework(engine: str, image: str, tmp_path: Path) -> None:
    assert image
    wheels = os.environ.get("PIP_FIND_LINKS", "")
    offered = {"HIVEMIND_PACKAGE_WHEELS": wheels} if wheels and Path(wheels).is_dir() else {}
    cache = {"HIVEMIND_CACHE_DIR": str(tmp_path / "cache")}
    reader = pages.reader(tmp_path, HIVEMIND_ISOLATION="docker", HIVEMIND_DOCKER_HOST=engine, **offered, **cache)
    folder = _followed(reader, tmp_path, [block for block in BLOCKS if block is not UP], BUSY)
    assert (folder / "pytorch" / "model.torchscript.pt").stat().st_size > 10_000
    assert _json(folder / "pytorch" / "metrics.json")["test"]["accuracy"] > 0.9
    assert _json(folder / "tensorflow" / "metrics.json")["test"]["r2"] > 0.25


@pytest.fixture
def image(docker_url: str, python_image: str) -> Iterator[str]:
    """The image that the page names, so named for as long as the test runs where it cannot be pulled."""
    if engine_api.has_image(docker_url, IMAGE):
        yield IMAGE
        return
    engine_api.tag_image(docker_url, python_image, IMAGE)
    yield IMAGE
    engine_api.delete(docker_url, f"/images/{IMAGE}")


def _followed(reader: Mapping[str, str], home: Path, wanted: list[pages.Block], seconds: float) -> Path:
    """Follow these blocks in one shell; return the folder that the page works in."""
    checkout = pages.checkout(home / "checkout")
    with pages.in_background(UP, reader, checkout):
        typed = home / "typed.sh"
        typed.write_text(pages.script(wanted), encoding="utf-8")
        shell = subprocess.run(
            ["bash", "-e", typed], cwd=checkout, env=reader, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=seconds,
        )  # fmt: skip
        assert shell.returncode == 0, shell.stdout[-5000:]
        said = pages.said_by(shell.stdout)
        otherwise = [
            f"{block.text}says\n{seen}and the page shows\n{block.shown}but not seen is: {missing}"
            for block, seen in zip(wanted, said, strict=True)
            if block.shown and (missing := pages.unseen(block.shown, seen))
        ]
        assert not otherwise, "\n\n".join(otherwise)
        _as_the_pool_tells(reader)
    folder = home / "hivemind-tutorial"
    _made(folder)
    return folder


def _as_the_pool_tells(reader: Mapping[str, str]) -> None:
    asked = subprocess.run(
        ["hivemind", "tasks", "--json"], env=reader, capture_output=True, text=True, check=True, timeout=60
    )
    tasks = [json.loads(line) for line in asked.stdout.splitlines()]
    assert {task["type"] for task in tasks} == {"command", "python", "ml", "data_processing"}
    ends = collections.Counter(task["reason"] or task["status"] for task in tasks)
    assert {name: ends[name] for name in ends if name != "completed"} == {
        "nonzero_exit": 2,
        "timeout": 1,
        "cancelled": 1,
    }


def _made(folder: Path) -> None:
    """What lies in the reader's folder at the end, looked at with other eyes."""
    darts = [_json(path) for path in folder.glob("sweep/*/pi.json")]
    assert {each["seed"] for each in darts} == set(range(1, 6))
    assert all(abs(each["pi"] - 3.1416) < 0.05 for each in darts)

    assert _json(folder / "penguins" / "metrics.json")["test"]["accuracy"] > 0.9
    assert (folder / "penguins" / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert _json(folder / "digits" / "metrics.json")["test_accuracy"] > 0.95
    made = ("model-results/model.joblib", "table-results/report.html", "picture-results/contact_sheet.jpg")
    for name in (*made, "text-results/keywords.csv", "script-results/8/squares.txt"):
        assert (folder / name).stat().st_size > 100

    with (folder / "weather.csv").open(newline="", encoding="utf-8") as file:
        rain = sorted((float(row["rain_mm"]) for row in csv.DictReader(file) if row["rain_mm"]), reverse=True)
    with (folder / "weather" / "wettest.csv").open(newline="", encoding="utf-8") as file:
        assert [float(row["rain_mm"]) for row in csv.DictReader(file)] == rain[:3]
    assert "<html" in (folder / "weather" / "report.html").read_text(encoding="utf-8")

    for path in (folder / "pictures-results" / "images" / "pictures").iterdir():
        with Image.open(path) as picture:
            assert (picture.format, picture.width) == ("WEBP", 200)
    with (folder / "texts-results" / "keywords.csv").open(newline="", encoding="utf-8") as file:
        found = collections.Counter(row["document"] for row in csv.DictReader(file))
    assert found == {"texts/en.txt": 5, "texts/ja.txt": 5}


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("shown", "said", "missing"),
    [
        ("a …\n", "a 12\n", ""),
        ("a …\n…\nz\n", "a 12\nb\nc\nz\n", ""),
        ("a\n…\nz\n", "a\nz\n", ""),
        ("…\n", "whatever\nit says\n", ""),
        ("a  b\n", "a b\n", ""),
        ("a\n", "b\n", "a"),
        ("a\nz\n", "a\nb\nz\n", "z"),
        ("a\n", "a\nb\n", "the end of 'a\\nb\\n'"),
        ("0.9…\n", "0.899\n", "0.9…"),
    ],
)
def test_a_page_that_shows_something_else_is_found_out(shown: str, said: str, missing: str) -> None:
    assert pages.unseen(shown, said) == missing
