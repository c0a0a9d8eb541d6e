"""The files that the reference document names as files do what their names say."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import installed
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.sandbox
def test_run_task_runs_a_task_and_ends_with_its_code(tmp_path: Path) -> None:
    environment = {**installed.Shell(tmp_path).environment, "HIVEMIND_ISOLATION": "sandbox"}
    command: list[str | Path] = [ROOT / "deploy" / "run_task.sh", "--", "sh", "-c", "echo done; exit 3"]
    done = subprocess.run(command, capture_output=True, env=environment, cwd=tmp_path, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (3, b"done\n"), done.stderr.decode()


def _python(*words: str | Path, python: str | Path = sys.executable) -> str:
    done = subprocess.run([python, *words], capture_output=True, text=True, cwd=ROOT, check=False, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.long
@pytest.mark.timeout(600)
def test_build_makes_a_wheel_that_pip_installs(tmp_path: Path) -> None:
    _python(ROOT / "scripts" / "build.py", tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    assert list(tmp_path.glob("*.tar.gz"))
    inside = set(zipfile.ZipFile(wheel).namelist())
    for needed in (
        "wire/nodepool.proto",
        "runtime/capsule/init/bin/hivemind-init-x86_64",
        "tasks/kinds/programs/csv_analysis.py",
    ):
        assert f"hivemind_worker/{needed}" in inside


@pytest.mark.long
@pytest.mark.timeout(600)
def test_make_compiles_what_is_checked_in() -> None:
    assert "binaries and sources agree" in _python(ROOT / "scripts" / "make.py", "--check")


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_requirements_are_enough_for_worker_node(tmp_path: Path) -> None:
    """The document's first lines, word for word: install the requirements, start worker_node.py."""
    _python("-m", "venv", tmp_path)
    python = tmp_path / "bin" / "python"
    _python("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt", python=python)
    assert "--node-pool" in _python("worker_node.py", "--help", python=python)
