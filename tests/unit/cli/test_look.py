"""Tables on a terminal: what there is room for, whole; an id is never cut short."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

from hivemind_worker.cli import look

TASK = "01a215ad-0af4-72eb-9316-0a1b889e1c6f"
SCRIPT = """
import sys
from hivemind_worker.cli import look
rows = [(sys.argv[1], "failed", "", "7.30", "worker-90c1ad00", "the machine is busy with other things")]
look.Look().table(("id", "status", "reason", "seconds", "node", "message"), rows, prose=("message",))
"""


def on_terminal(columns: int) -> list[str]:
    """What a table looks like on a terminal so wide, line by line."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, TASK], stdin=theirs, stdout=theirs, stderr=theirs, check=False,
        env={**environment, "TERM": "xterm", "NO_COLOR": "1"},
    )  # fmt: skip
    os.close(theirs)
    said = b""
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        try:
            while piece := terminal.read(4096):
                said += piece
        except OSError:
            pass  # how a terminal says that its other side is closed
    assert done.returncode == 0, said
    return said.decode().splitlines()


@pytest.mark.parametrize(
    ("room", "shown"),
    [
        (200, [0, 1, 3, 4]),
        (36 + 2 + 9 + 2 + 16 + 2 + 15, [0, 1, 3, 4]),
        (36 + 2 + 9 + 2 + 16 + 2 + 14, [0, 1, 4]),
        (36 + 2 + 16 + 2 + 8, [0, 4]),
        (10, [0, 4]),
    ],
)
def test_what_has_no_room_is_left_out_but_the_first_column_and_prose(room: int, shown: list[int]) -> None:
    assert look.fitting([36, 9, 0, 15, 60], {4}, room) == shown


def test_a_narrow_column_takes_the_room_that_a_wide_one_before_it_cannot() -> None:
    assert look.fitting([10, 50, 5], (), 20) == [0, 2]


def test_an_id_is_whole_on_any_terminal_and_what_is_left_out_is_said() -> None:
    wide = on_terminal(140)
    assert wide[1].split(maxsplit=4) == [
        TASK,
        "failed",
        "7.30",
        "worker-90c1ad00",
        "the machine is busy with other things",
    ]
    assert "reason" not in wide[0]
    assert len(wide) == 2
    narrow = on_terminal(80)
    assert narrow[1].startswith(f"{TASK}  failed  7.30")
    assert "not shown, for want of width: node (--json tells all)" in narrow
    assert " ".join(line[54:].strip() for line in narrow[1:-1]) == "the machine is busy with other things"
