"""The layers are watched: planted violations are caught, each by the contract that is there for it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINT = Path(sys.executable).parent / "lint-imports"

PLANTED = {
    "a task that knows the wire": (
        "tasks/state.py", "from hivemind_worker.wire import calls", "Layers: a package",
        "tasks.state -> hivemind_worker.wire.calls"),
    "the protocol of capsules knows a driver": (
        "runtime/capsule/messages.py", "from hivemind_worker.runtime.docker import engine", "Layers of the runtime",
        "runtime.capsule.messages -> hivemind_worker.runtime.docker.engine"),
    "neighbours": (
        "worker/__init__.py", "from hivemind_worker.pool.matching import assignment", "Layers: a package",
        "worker -> hivemind_worker.pool.matching.assignment"),
    "the store calls the calls": (
        "pool/store/clocks.py", "from hivemind_worker.pool.api import live", "Layers of the pool",
        "pool.store.clocks -> hivemind_worker.pool.api.live"),
    "the journal knows attempts": (
        "worker/journal/records.py", "from hivemind_worker.worker.attempts import keeping", "Layers of the worker",
        "worker.journal.records -> hivemind_worker.worker.attempts.keeping"),
    "a package without a layer": ("utils.py", "import json", "Layers: a package", "- hivemind_worker.utils"),
    "input and output among the words": (
        "tasks/spec.py", "import asyncio", "The words are plain Python", "tasks.spec -> asyncio"),
    "generated code outside the wire": (
        "worker/__init__.py", "from hivemind_worker.wire.generated import nodepool_pb2", "Generated protobuf",
        "worker -> hivemind_worker.wire.generated.nodepool_pb2"),
    "a second adapter": ("worker/__init__.py", "import psutil", "Each outside library", "worker -> psutil"),
    "kinds that know each other": (
        "tasks/kinds/command.py", "from hivemind_worker.tasks.kinds import python", "A kind does not know",
        "kinds.command -> hivemind_worker.tasks.kinds.python"),
    "a cycle within a package": (
        "tasks/names.py", "from hivemind_worker.tasks import spec", "No cycles", ".spec -> .names"),
}  # fmt: skip
"""The file, the line planted in it, the contract that must break, and how it names the import."""


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


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What is printed of the broken contracts when all violations are planted at once: each run reads all code."""
    copy = tmp_path_factory.mktemp("planted")
    shutil.copy(ROOT / "pyproject.toml", copy)
    shutil.copytree(ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__", "bin"))
    for where, line, _, _ in PLANTED.values():
        path = copy / "src" / "hivemind_worker" / where
        before = path.read_text(encoding="utf-8") if path.exists() else '"""Planted."""\n'
        path.write_text(f"{before}\n{line}  # planted\n", encoding="utf-8")
    seen = lint(copy)
    assert seen.returncode == 1, seen.stdout
    return seen.stdout.partition("Broken contracts")[2]


@pytest.mark.parametrize("crime", PLANTED)
def test_a_planted_violation_is_caught(broken: str, crime: str) -> None:
    _, _, contract, named = PLANTED[crime]
    found = re.search(rf"^{contract}[^\n]*\n-+\n(.*?)(?=^\S[^\n]*\n---|\Z)", broken, re.DOTALL | re.MULTILINE)
    assert found, broken
    assert named in found[1], broken
