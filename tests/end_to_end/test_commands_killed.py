"""`hivemind` killed or left by its terminal: the command ends, and the next one finds nothing of it."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import waiting
from installed import HIVEMIND, Shell

pytestmark = pytest.mark.sandbox

SANDBOX = ("--isolation", "sandbox")
STAGES = ("", "/pool.sqlite", "/worker.journal", "/output")
"""What is in a command's folder at the moment of its kill; the last comes from the task that runs."""


class Terminal:
    """A terminal with one command as its session, which ends when the terminal goes away."""

    def __init__(self, shell: Shell, *words: str) -> None:
        self._ours, its = pty.openpty()

        # Whatever runs these tests may ignore a hang-up.
        session = ("env", "--default-signal=HUP", "setsid", "--ctty")
        self.process = subprocess.Popen(
            [*session, HIVEMIND, *words], stdin=its, stdout=its, stderr=its, cwd=shell.home, env=shell.environment
        )
        os.close(its)

    def read_until(self, text: bytes) -> None:
        seen = b""
        while text not in seen:
            seen += os.read(self._ours, 65_536)

    def go_away(self) -> None:
        os.close(self._ours)


@pytest.fixture
def terminals(shell: Shell) -> Iterator[dict[str, Terminal]]:
    """By what each says once it is at work."""
    listening = ("--listen=127.0.0.1:0", f"--log-dir={shell.home}/log")
    state = f"--state-dir={shell.home}/"
    opened = {
        "spoken": Terminal(shell, "run", "-v", *SANDBOX, "--", "/bin/sh", "-c", "echo spo''ken; sleep 300"),
        "submit:": Terminal(shell, "up", *SANDBOX, *listening, f"{state}up"),
        "listens": Terminal(shell, "pool", *listening, f"{state}pool"),
    }
    yield opened
    for terminal in opened.values():
        terminal.process.kill()
        terminal.process.wait()


def _wait_for_end(process: subprocess.Popen[bytes], description: str) -> None:
    waiting.wait_for(lambda: process.poll() is not None, description=description, seconds=30)


@pytest.mark.long
def test_a_terminal_that_goes_away_ends_whatever_writes_to_it(shell: Shell, terminals: dict[str, Terminal]) -> None:
    for text, terminal in terminals.items():
        terminal.read_until(text.encode())
    for terminal in terminals.values():
        terminal.go_away()
    for text, terminal in terminals.items():
        _wait_for_end(terminal.process, f"the command that said {text!r} ends")
        assert terminal.process.returncode >= 0, "in order"
    assert not list(shell.home.glob("hivemind-run-*"))


@pytest.mark.long
def test_a_stop_is_taken_where_nothing_can_be_told_of_it(shell: Shell) -> None:
    with Path("/dev/full").open("wb") as full:
        process = subprocess.Popen(
            [HIVEMIND, "run", "-v", *SANDBOX, "--", "/bin/sh", "-c", "echo ready; sleep 300"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=full, cwd=shell.home, env=shell.environment,
        )  # fmt: skip
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
        _wait_for_end(process, "it ends")
    assert process.returncode == 130


@pytest.mark.long
def test_a_command_under_nohup_outlives_its_terminal(shell: Shell) -> None:
    process = subprocess.Popen(
        ["nohup", HIVEMIND, "run", *SANDBOX, "--", "/bin/sh", "-c", "echo ready; sleep 1; echo end"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=shell.home,
        env=shell.environment,
    )  # fmt: skip
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGHUP)
        assert process.stdout.read() == b"end\n"
    assert process.wait(timeout=30) == 0


def _wait_for_another(folder: Path, pattern: str, before: set[Path], process: subprocess.Popen[bytes]) -> None:
    try:
        waiting.wait_for(lambda: set(folder.glob(pattern)) - before, description=f"{pattern} is made", seconds=30)
    except AssertionError:
        process.terminate()  # in order, so that nothing of it stays with the tests behind this one
        process.communicate(timeout=60)
        raise


def _marked(pids: set[int]) -> set[str]:
    """Command lines of processes that bear the mark of a command with one of these numbers."""
    found = set()
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                known = (place / "cmdline").read_bytes() + (place / "environ").read_bytes()
            except OSError:
                continue
            mark = known.partition(b"hivemind-life-")[2].split(b"-")[:2]
            if len(mark) == 2 and mark[1].isdigit() and int(mark[1]) in pids:
                found.add(known.replace(b"\0", b" ").decode(errors="replace"))
    return found


def test_commands_killed_at_any_moment_leave_nothing_to_the_next(shell: Shell) -> None:
    killed = set()
    for stage in STAGES:
        pattern = f"hivemind-run-*{stage}"
        before = set(shell.home.glob(pattern))
        process = shell.start("run", *SANDBOX, "--", "/bin/sh", "-c", "echo x > results/x; echo ready; sleep 300")
        assert process.stdout is not None
        if stage == STAGES[-1]:
            assert process.stdout.readline() == b"ready\n"
        else:
            _wait_for_another(shell.home, pattern, before, process)
        process.kill()
        process.communicate(timeout=60)
        killed.add(process.pid)
        assert len(list(shell.home.glob("hivemind-*"))) == 1, "the last one's, which swept those before it"
    assert shell.run(*SANDBOX, "--", "/bin/sleep", "1").code == 0
    assert not list(shell.home.glob("hivemind-*"))
    waiting.wait_for(lambda: not _marked(killed), description="no process of theirs lives", seconds=20)
