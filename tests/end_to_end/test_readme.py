"""What the README, the task reference and the operators' page tell a reader to type does what they say: each is run."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import installed
import pytest
import waiting

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
PAGES = ("README.md", "docs/tasks.md")
BLOCK = re.compile(r"^```sh( background)?\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(pages: tuple[str, ...] = PAGES) -> list[tuple[bool, list[str]]]:
    found = [block for page in pages for block in BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))]
    return [(bool(background), text.strip().splitlines()) for background, text in found]


def run(line: str, environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        shlex.split(line), cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=100
    )


@pytest.fixture
def reader(tmp_path: Path) -> dict[str, str]:
    """The environment of somebody who has no engine, and keeps our state apart from this machine's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HIVEMIND_")}
    return {
        **kept,
        "PATH": f"{BIN}{os.pathsep}{kept['PATH']}",
        "HOME": str(tmp_path),
        "HIVEMIND_STATE_DIR": str(tmp_path / "state"),
        "HIVEMIND_LOG_DIR": str(tmp_path / "log"),
        "HIVEMIND_ISOLATION": "sandbox",
        **installed.WHATEVER,
        "TERM": "dumb",
    }


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the commands refer to, in a folder that may be written to."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "examples").symlink_to(ROOT / "examples")
    return folder


@pytest.fixture
def background(reader: dict[str, str], checkout: Path, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    (line,) = next(lines for in_background, lines in blocks() if in_background)
    with (tmp_path / "up.log").open("wb") as log:
        process = subprocess.Popen(shlex.split(line), cwd=checkout, env=reader, stdout=log, stderr=log)
    yield process
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)


@pytest.mark.sandbox
@pytest.mark.timeout(300)
def test_every_command(
    reader: dict[str, str], checkout: Path, background: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    def ready() -> bool:
        assert background.poll() is None, (tmp_path / "up.log").read_text(encoding="utf-8")
        seen = run("hivemind nodes --json", reader, checkout)
        return seen.returncode == 0 and bool(seen.stdout.strip())

    waiting.wait_for(ready, description="`hivemind up` has a node", seconds=30)
    submitted: list[str] = []
    all_submitted: list[str] = []
    for in_background, lines in blocks():
        for line in lines if not in_background else []:
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
    assert (checkout / "table-results" / "report.html").exists()
    assert (checkout / "picture-results" / "contact_sheet.jpg").exists()
    assert (checkout / "text-results" / "keywords.csv").exists()
    assert (checkout / "words-results" / "plots.png").exists()
    assert (checkout / "primes-results" / "primes.txt").read_text(encoding="utf-8").endswith("199999")
    assert run("hivemind run -- echo hello", reader, checkout).stdout == "hello\n"
    for _, lines in blocks(("docs/operations.md",)):
        for line in lines:
            if not line.startswith("curl ") or shutil.which("curl"):
                seen = run(shlex.join(["bash", "-c", line]), reader, checkout)
                assert seen.returncode == 0, f"{line}\n{seen.stdout}{seen.stderr}"
                assert seen.stdout
