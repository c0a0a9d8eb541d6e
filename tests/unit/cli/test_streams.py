"""What a task wrote reaches a terminal as text, unless --raw; pipes get every byte."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import sys
import tty
from collections.abc import Callable, Iterator

import pytest
from rich import console, live

from hivemind_worker.cli import look, streams
from hivemind_worker.cli.commands import status
from hivemind_worker.client import following, shapes
from hivemind_worker.tasks import outcome, state

END = b"\0end\0"
EVIL = b"\x1b]52;c;cm0gLXJmIH4=\x07\x1b[2J\x9b31m\x1b]0;title\x1b\\gone\rhere \xe2\x80\xae\n"


@contextlib.contextmanager
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], bytes]]:
    """Have standard output and error be a terminal; gives a function that reads all that it was sent."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs)

    def written() -> bytes:
        """A terminal passes on what it is sent piece by piece, so read up to a mark written last."""
        stream.flush()
        os.write(theirs, END)
        sent = b""
        while not sent.endswith(END):
            sent += os.read(ours, 65_536)
        return sent.removesuffix(END)

    with open(theirs, "w", encoding="utf-8") as stream, monkeypatch.context() as patched:  # noqa: PTH123
        patched.setattr(sys, "stdout", stream)
        patched.setattr(sys, "stderr", stream)
        yield written
    os.close(ours)


def _write(stream: str, *, raw: bool = False) -> None:
    writer = streams.Writer(look.Look(), raw=raw)
    for at in range(0, len(EVIL), 7):
        writer.write(following.Output(stream, at, EVIL[at : at + 7], 1))
    writer.finish()


@pytest.mark.parametrize("stream", ["stdout", "stderr", "system"])
def test_a_terminal_is_shown_escape_sequences_as_text(monkeypatch: pytest.MonkeyPatch, stream: str) -> None:
    with on_terminal(monkeypatch) as written:
        _write(stream)
        shown = written().decode()
    assert all(char.isprintable() or char == "\n" for char in shown), shown
    assert "\\x1b]52;c;" in shown


def test_beside_a_live_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with on_terminal(monkeypatch) as written:
        with live.Live(console=console.Console(force_terminal=True), refresh_per_second=0.1):
            _write("stdout")
        assert b"\\x1b]52;c;" in written()


def test_raw_sends_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with on_terminal(monkeypatch) as written:
        _write("stdout", raw=True)
        assert written() == EVIL


def test_a_pipe_gets_every_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", pipe)
    _write("stdout")
    assert pipe.buffer.getvalue() == EVIL


def test_no_name_forges_a_line_of_status(capsys: pytest.CaptureFixture[str]) -> None:
    forged = "x\nstatus:      completed\x1b[2K\u202e\u2028"
    result = outcome.Outcome(
        outcome.Status.FAILED, outcome.Reason.INTERNAL, error=forged, isolation=forged, image_digest=forged,
        results=(outcome.ResultFile(forged, outcome.Artifact("0" * 64, 1)),),
        skipped=(outcome.SkippedFile(forged, forged),), timings={forged: 1.0}, limits_hit=(forged,),
    )  # fmt: skip
    event = shapes.Event(1.0, forged, 1, forged, forged)
    task = shapes.Task("t", forged, state.TaskState.FAILED, result=result, labels={"k": forged}, story=(event,),
                       node_id=forged, waiting_because=forged, phase=forged, traceparent=forged)  # fmt: skip
    status.show(task, look.Look())
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("status:")] == ["status:      failed (internal)"]
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("quiet", [False, True])
def test_no_cell_forges_a_row_of_a_table(capsys: pytest.CaptureFixture[str], *, quiet: bool) -> None:
    look.Look(quiet=quiet).table(("name", "why"), [("a\nforged  row", "\x1b[8m\nforged  row")])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == (1 if quiet else 2)
    assert all(line.isprintable() for line in lines)


def test_no_note_begins_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    look.Look().note("it waits: \nhivemind: all is well\x1b]52;c;aa\x07")
    assert [line[:9] for line in capsys.readouterr().err.splitlines()] == ["it waits:", "    hivem"]
