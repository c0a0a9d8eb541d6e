"""The floors are watched: planted violations are caught, each by the contract that is there for it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINT = Path(sys.executable).parent / "lint-imports"

PLANTED = {
    "a word that knows its reader": ("task/state.py", "from hivemind_worker.kinds import command", "Floors"),
    "an edge that uses work": ("containers/engine.py", "from hivemind_worker.executors import executor", "Floors"),
    "neighbours": ("node/__init__.py", "from hivemind_worker.nodepool import assignment", "Floors"),
    "a room without a floor": ("utils.py", "import json", "Floors"),
    "input and output among the words": ("task/spec.py", "import asyncio", "The words are plain Python"),
    "generated code outside the wire": (
        "node/__init__.py",
        "from hivemind_worker.wire.generated import nodepool_pb2",
        "Generated protobuf",
    ),
    "a second door": ("node/__init__.py", "import psutil", "Each outside library"),
    "kinds that know each other": (
        "kinds/command.py",
        "from hivemind_worker.kinds import python",
        "A kind does not know its neighbours",
    ),
    "a cycle within a room": ("task/names.py", "from hivemind_worker.task import spec", "No cycles"),
}


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    # The copy is found before the installed package, as the working directory is.
    return subprocess.run(
        [LINT, "--no-cache", "--config", folder / "pyproject.toml"],
        cwd=folder / "src",
        env={"PYTHONPATH": str(folder / "src"), "PATH": "/usr/bin:/bin", "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "bin"))
    return tmp_path


def test_as_it_stands(copy: Path) -> None:
    seen = lint(copy)
    assert seen.returncode == 0, seen.stdout
    assert "0 broken" in seen.stdout


@pytest.mark.parametrize("crime", PLANTED)
def test_a_planted_violation_is_caught(copy: Path, crime: str) -> None:
    where, line, contract = PLANTED[crime]
    path = copy / "src" / "hivemind_worker" / where
    before = path.read_text(encoding="utf-8") if path.exists() else '"""Planted."""\n'
    path.write_text(f"{before}\n{line}  # planted\n", encoding="utf-8")
    seen = lint(copy)
    assert seen.returncode == 1, seen.stdout
    broken = [row for row in seen.stdout.splitlines() if " BROKEN" in row]
    assert any(row.startswith(contract) for row in broken), seen.stdout
