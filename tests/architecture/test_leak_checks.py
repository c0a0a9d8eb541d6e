"""The look at what a test leaves behind has teeth: each kind of leak, planted, fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"

LEAKS = {
    "threads": "threading.Thread(target=threading.Event().wait, daemon=True).start()",
    "open files": "KEPT.append(open('/etc/hostname'))",
    "processes": "KEPT.append(subprocess.Popen(['sleep', '20']))",
    "tasks": "KEPT.append(asyncio.ensure_future(asyncio.Event().wait()))",
}
HEADER = "import asyncio, subprocess, threading\nKEPT = []\n\n\nasync def test_it():\n    "


def verdict(folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_planted.py").write_text(HEADER + body + "\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pytest",
        "-c",
        ROOT / "pyproject.toml",
        "-p",
        "conftest",
        "-p",
        "no:cacheprovider",
    ]
    return subprocess.run(
        [*command, f"--rootdir={folder}", "-W", "default", str(folder / "test_planted.py")],
        cwd=folder,
        env={**environment, "LEAK_SECONDS": "0.3"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("kind", LEAKS)
def test_a_planted_leak_fails(kind: str, tmp_path: Path) -> None:
    seen = verdict(tmp_path, LEAKS[kind])
    assert seen.returncode == 1, seen.stdout
    assert f"left behind: {kind}" in seen.stdout


def test_a_tidy_test_passes(tmp_path: Path) -> None:
    seen = verdict(tmp_path, "child = await asyncio.create_subprocess_exec('true')\n    await child.wait()")
    assert seen.returncode == 0, seen.stdout + seen.stderr
