"""What every target of the Makefile may count on, whatever the shell that calls it has set."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_what_python_compiles_is_stored_whatever_the_shell_forbids() -> None:
    probe = "--eval=probe: ; @env"
    ended = subprocess.run(
        ["make", "--no-print-directory", probe, "probe"],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    names = {row.partition("=")[0] for row in ended.stdout.splitlines()}
    assert "PATH" in names
    assert "PYTHONDONTWRITEBYTECODE" not in names
