"""The docs name nothing that is not there, and their drawn pages equal what the code would draw now."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path

import draw_docs
import pytest

from hivemind_worker.settings import reference
from hivemind_worker.tasks import outcome

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
# A path of this repository: begins with one of its folders, or is a file at its root.
FOLDERS = ("src/", "tests/", "scripts/", "docs/", "examples/", "benchmarks/", ".ci/")
ROOM_FILE = re.compile(r"[a-z_]+(?:/[a-z_]+)*/(?:[a-z_]+\.(?:py|proto))?")
SYMBOL = re.compile(r"hivemind_worker(?:\.[A-Za-z_]+)+")
ROOT_FILE = re.compile(r"[A-Za-z_.]+\.(?:md|py|toml|lock|yaml)|Makefile|LICENSE")
# Named in the docs, but not files of the repository: what a task finds, writes or is given, and what a run makes.
ELSEWHERE = {"hivemind.toml", "hello.py", "task.json", "train.py", "script.py", "model_card.md"}

# What the reference document calls its files.
THEIRS = {
    *("resource_monitor.py", "docker_manager.py", "task_executor.py", "nodepool_pb2.py", "nodepool_pb2_grpc.py"),
    *("build.py", "make.py", "README.en.md", "hivemind_worker/", "static/", "templates/"),
}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def spoken(page: Path) -> list[str]:
    """What a page sets in code type, outside its blocks of commands."""
    return CODE.findall(FENCED.sub("", page.read_text(encoding="utf-8")))


def stands(text: str) -> bool:
    """Whether a path stands in the repository, be it named from its root or, as rooms are, from the package."""
    return any((base / text).exists() for base in (ROOT, ROOT / "src" / "hivemind_worker", ROOT / "tests"))


def resolves(symbol: str) -> bool:
    parts = symbol.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def paths_that_do_not_exist(page: Path) -> list[str]:
    words = [word.split(":")[0].split("{")[0] for word in spoken(page)]
    paths = [
        word for word in words if word.startswith(FOLDERS) or ROOM_FILE.fullmatch(word) or ROOT_FILE.fullmatch(word)
    ]
    # One page speaks of another product's files, and has a test of its own for ours.
    theirs = THEIRS if page.name == "reference.md" else ELSEWHERE
    return [path for path in paths if path not in theirs and not stands(path)]


def links_to_nowhere(page: Path) -> list[str]:
    links = LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8")))
    here = [link for link in links if "://" not in link]
    return [link for link in here if not (page.parent / link).exists()]


def symbols_that_do_not_exist(page: Path) -> list[str]:
    symbols = SYMBOL.findall(page.read_text(encoding="utf-8"))
    return [symbol for symbol in symbols if not resolves(symbol)]


@pytest.mark.parametrize("wrong", [paths_that_do_not_exist, links_to_nowhere, symbols_that_do_not_exist])
def test_the_docs_name_only_what_exists(wrong: Callable[[Path], list[str]]) -> None:
    assert len(PAGES) > 20
    assert {name(page): found for page in PAGES if (found := wrong(page))} == {}


def test_the_looks_above_find_what_is_wrong() -> None:
    assert not stands("worker/nowhere.py")
    assert stands("tasks/state.py")
    assert not resolves("hivemind_worker.tasks.nothing")
    assert resolves("hivemind_worker.tasks.state.TaskState")


@pytest.mark.parametrize("drawn", draw_docs.PAGES)
def test_drawn_pages_are_up_to_date(drawn: str) -> None:
    stands_there = (ROOT / "docs" / drawn).read_text(encoding="utf-8")
    assert stands_there == draw_docs.PAGES[drawn](), "run: .venv/bin/python scripts/draw_docs.py"


def test_no_package_is_missing_from_the_list_of_files() -> None:
    packages = {path.parent.name for path in (ROOT / "src" / "hivemind_worker").glob("*/__init__.py")}
    assert {package for _, listed in draw_docs.LAYERS for package in listed if package} == packages


def test_every_setting_is_complete() -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    for row in reference.settings():
        assert re.fullmatch(r"--[a-z][a-z-]*", row.flag)
        assert row.variables[0] == f"HIVEMIND_{row.key.upper()}"
        assert len(row.help) > 20
        for said in (f"### {row.key}\n", row.help, f"`{row.flag}`", *(f"`{variable}`" for variable in row.variables)):
            assert said in page


def test_the_task_reference_explains_every_reason() -> None:
    page = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    table = page.partition("## Reasons")[2].partition("\n## ")[0]
    told = {word for row in table.splitlines() if row.startswith("| `") for word in CODE.findall(row.split("|")[1])}
    assert told == {str(reason) for reason in outcome.Reason}


def test_no_two_settings_share_a_name() -> None:
    rows = reference.settings()
    flags = [row.flag for row in rows]
    variables = [variable for row in rows for variable in row.variables]
    assert len(set(flags)) == len(flags)
    assert len(set(variables)) == len(variables)
