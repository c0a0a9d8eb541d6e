"""What draws pictures says nothing of its own: whatever is on standard error is about the submitter's task."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hivemind_worker.tasks.kinds import kind

PROGRAMS = Path(kind.__file__).with_name("programs")

# The library says that it builds its cache once that has taken 5 s: here at once.
SLOW_MACHINE = """
import sys, threading

class Timer(threading.Timer):
    def __init__(self, seconds, function):
        super().__init__(seconds, function)
        function()

threading.Timer = Timer
sys.path.insert(0, sys.argv[1])
"""


@pytest.mark.long
@pytest.mark.parametrize(
    "draw",
    [
        pytest.param("import learning_plots", id="learning"),
        pytest.param("import text_plots; text_plots.draw('a', [('b', 1)], [('b', 1.0)], {1: 1}, {1: 1})", id="text"),
    ],
)
def test_a_machine_on_which_the_fonts_are_searched_for_long_says_nothing_of_it(draw: str, tmp_path: Path) -> None:
    for name in ("results", ".hivemind"):
        (tmp_path / name).mkdir()
    ran = subprocess.run(
        [sys.executable, "-c", SLOW_MACHINE + draw, str(PROGRAMS)],
        cwd=tmp_path,
        env={**os.environ, "MPLCONFIGDIR": str(tmp_path / "cache"), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert "font cache" not in ran.stderr
    assert ran.returncode == 0, ran.stderr
