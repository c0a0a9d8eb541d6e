"""What the README, the task reference and the operators' page tell a reader to type does what they say: each is run."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pages
import pytest

BLOCKS = [block for page in ("README.md", "docs/tasks.md") for block in pages.blocks(page)]


def run(line: str, environment: Mapping[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        shlex.split(line), cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=100
    )


@pytest.mark.sandbox
@pytest.mark.timeout(300)
def test_every_command(tmp_path: Path) -> None:
    reader = pages.reader(tmp_path, HIVEMIND_ISOLATION="sandbox")
    checkout = pages.checkout(tmp_path / "checkout")
    (up,) = [block for block in BLOCKS if block.kind == "background"]
    with pages.in_background(up, reader, checkout):
        _typed(reader, checkout)


def _typed(reader: Mapping[str, str], checkout: Path) -> None:
    submitted: list[str] = []
    all_submitted: list[str] = []
    for line in (line for block in BLOCKS if not block.kind for line in block.lines):
        typed = re.sub(r"\bID\b", submitted[-1] if submitted else "ID", line)
        seen = run(f"{typed} --json" if " submit " in line else typed, reader, checkout)
        assert seen.returncode == 0, f"{typed}\n{seen.stdout}{seen.stderr}"
        if " submit " in line:
            submitted = [json.loads(row)["id"] for row in seen.stdout.splitlines()]
            all_submitted += submitted
    assert len(all_submitted) == 5
    run(f"hivemind wait {' '.join(all_submitted)}", reader, checkout)
    told = [json.loads(row) for row in run("hivemind tasks --json", reader, checkout).stdout.splitlines()]
    assert {task["id"]: task["status"] for task in told}.items() >= dict.fromkeys(all_submitted, "completed").items()
    assert (checkout / "words-results" / "plots.png").exists()
    assert (checkout / "primes-results" / "primes.txt").read_text(encoding="utf-8").endswith("199999")
    assert run("hivemind run -- echo hello", reader, checkout).stdout == "hello\n"
    for block in pages.blocks("docs/operations.md"):
        for line in block.lines:
            if not line.startswith("curl ") or shutil.which("curl"):
                seen = run(shlex.join(["bash", "-c", line]), reader, checkout)
                assert seen.returncode == 0, f"{line}\n{seen.stdout}{seen.stderr}"
                assert seen.stdout or seen.stderr  # an empty list says so beside it
