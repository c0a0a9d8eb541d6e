"""The look at what a test leaves behind has teeth: each kind of leak, planted, fails."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import reap
import waiting

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"

LEAKS = {
    "threads": "threading.Thread(target=threading.Event().wait, daemon=True).start()",
    "open files": "KEPT.append(open('/etc/hostname'))",
    # It ends with its parent.
    "processes": "KEPT.append(subprocess.Popen(['setpriv', '--pdeathsig', 'KILL', 'sleep', '600']))",
    "tasks": "KEPT.append(asyncio.ensure_future(asyncio.Event().wait()))",
}
TIDY = "child = await asyncio.create_subprocess_exec('true')\n    await child.wait()"
HEADER = "import asyncio, subprocess, threading\nKEPT = []\n"


def planted(name: str, body: str) -> str:
    return f"\n\nasync def test_{name.replace(' ', '_')}():\n    {body}\n"


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What pytest prints about a file with all of them, and a tidy test behind them."""
    folder = tmp_path_factory.mktemp("planted")
    path = folder / "test_planted.py"
    bodies = [planted(kind, body) for kind, body in LEAKS.items()]
    path.write_text(HEADER + "".join([*bodies, planted("tidy", TIDY)]), encoding="utf-8")
    options = f"-c {ROOT / 'pyproject.toml'} -p conftest -p no:cacheprovider -W default -rA --tb=short".split()
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *options, f"--rootdir={folder}", str(path)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(TESTS), "LEAK_SECONDS": "0.3", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 1, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.parametrize("kind", LEAKS)
def test_a_planted_leak_fails(kind: str, verdicts: str) -> None:
    summary = f"ERROR test_planted.py::test_{kind.replace(' ', '_')} - AssertionError: left behind: {kind}"
    assert summary in verdicts, verdicts


def test_a_tidy_test_passes(verdicts: str) -> None:
    assert "PASSED test_planted.py::test_tidy\n" in verdicts, verdicts
    assert "test_planted.py::test_tidy -" not in verdicts, verdicts


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("sh -c 'sleep 0.2 & wait' & wait", 0),
        ("sleep 0.2 &", 0),
        ("exit 5", 5),
        ("env -i setsid sh -c 'sleep 600; :' &", reap.LEFT),
        ("env -i setsid sh -c 'sleep 600; :' & exit 3", 3),
    ],
    ids=["tidy", "ends soon", "fails", "leaves", "fails and leaves"],
)
def test_a_run_fails_that_leaves_a_process_however_far_down_and_ends_it(command: str, code: int) -> None:
    # No pipe: what is left would hold it open, and be waited for.
    with tempfile.TemporaryFile("w+") as output:
        ended = subprocess.run(
            [sys.executable, reap.__file__, "sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            env={**os.environ, "LEFT_SECONDS": "1"},
            check=False,
        )
        output.seek(0)
        pids = [int(pid) for pid in re.findall(r"process (\d+), ", output.read())]
    assert ended.returncode == code
    assert len(pids) == (2 if "600" in command else 0)
    waiting.wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), description="they are ended")
