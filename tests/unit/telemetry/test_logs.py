"""An event is one JSON line in the reference's keys, and writing it harms nobody."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import datetime as dt
import io
import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hivemind_worker.telemetry import logs, writing


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Stuck(io.StringIO):
    """A terminal that takes nothing until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()
        self.reached = threading.Event()

    def write(self, text: str) -> int:
        self.reached.set()
        assert self.released.wait(30)
        return super().write(text)


class Broken(io.StringIO):
    def write(self, _: str) -> int:
        raise BrokenPipeError


Say = Callable[[logs.StructuredLogger], None]


def _written(say: Say, stream: io.StringIO | None = None, **more: Any) -> str:
    out = io.StringIO() if stream is None else stream
    log = logs.StructuredLogger("hivemind_worker.worker.intake")
    with contextlib.closing(logs.configure("worker", stream=out, **more)):
        say(log)
    return out.getvalue()


def _events(say: Say, **more: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _written(say, **more).splitlines()]


def test_a_task_event_has_the_references_keys() -> None:
    [event] = _events(lambda log: log.log_task_event("task_started", "t-1", {"image": "python:3.11-slim"}))
    assert list(event) == ["timestamp", "level", "event_type", "task_id", "node_id", "details"]
    at = event.pop("timestamp")
    assert event == {
        "level": "info",
        "event_type": "task_started",
        "task_id": "t-1",
        "node_id": "",
        "details": {"module": "worker.intake", "image": "python:3.11-slim"},
    }
    assert at.endswith("Z")
    age = dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(at)
    assert dt.timedelta(0) <= age < dt.timedelta(minutes=1)


def test_a_system_event_has_no_task() -> None:
    [event] = _events(lambda log: log.log_system_event("registered", level="warning"))
    assert list(event) == ["timestamp", "level", "event_type", "node_id", "details"]
    assert event["level"] == "warning"


def raise_it(error: Exception) -> None:
    raise error


async def test_tasks_inherit_whose_node_they_are() -> None:
    async def speak(log: logs.StructuredLogger) -> None:
        log.log_system_event("beat")

    out = io.StringIO()
    log, fixed = logs.StructuredLogger("node"), logs.StructuredLogger("pool", node_id="fixed")
    with contextlib.closing(logs.configure("worker", stream=out)):
        with logs.bind(node_id="w-1"):
            inside = asyncio.create_task(speak(log))
            also = asyncio.create_task(speak(fixed))
        await asyncio.gather(inside, also)
        log.log_system_event("outside")
    assert [json.loads(line)["node_id"] for line in out.getvalue().splitlines()] == ["w-1", "fixed", ""]


def test_an_error_comes_with_its_trace_and_without_its_secrets() -> None:
    def say(log: logs.StructuredLogger) -> None:
        try:
            raise_it(OSError("cannot reach https://me:hunter2hunter2@host/"))
        except OSError as error:
            log.log_task_event("attempt_failed", "t", level="error", error=error)

    [event] = _events(say)
    assert event["details"]["error"] == "OSError: cannot reach https://[redacted]@host/"
    assert "in say" in event["details"]["trace"]
    assert "hunter2" not in json.dumps(event)


def test_what_libraries_say_comes_in_the_same_keys_from_warning_on() -> None:
    def say(_: logs.StructuredLogger) -> None:
        logging.getLogger("aiodocker").info("chatter")
        try:
            raise_it(ValueError("inner"))
        except ValueError:
            logging.getLogger("grpc.aio").exception("channel %s", "token=abcdefgh")

    [event] = _events(say, level="debug")
    assert (event["event_type"], event["level"]) == ("library", "error")
    assert event["details"]["module"] == "grpc.aio"
    assert event["details"]["message"] == "channel token=[redacted]"
    assert "ValueError: inner" in event["details"]["trace"]


def test_a_librarys_slip_in_its_message_is_still_shown() -> None:
    [event] = _events(lambda _: logging.getLogger("library").error("%d of %s", "one"))  # noqa: PLE1206  (that is the test)
    assert event["details"]["message"] == "%d of %s ['one']"


@pytest.mark.parametrize(("level", "count"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_less_important_events_are_not_written(level: Any, count: int) -> None:
    def say(log: logs.StructuredLogger) -> None:
        for each in ("debug", "info", "warning", "error"):
            log.log_system_event("x", level=each)

    assert len(_events(say, level=level)) == count


def test_a_terminal_gets_lines_for_people() -> None:
    text = _written(lambda log: log.log_task_event("task_started", "t-1", {"image": "a b", "n": 3}), stream=Terminal())
    assert text.rstrip().endswith("info    task_started task=t-1 image='a b' n=3")
    assert _written(lambda log: log.log_system_event("x"), stream=Terminal(), style="json").startswith("{")
    assert not _written(lambda log: log.log_system_event("x"), style="human").startswith("{")


def test_no_event_can_move_the_cursor_or_forge_a_line() -> None:
    def say(log: logs.StructuredLogger) -> None:
        log.log_task_event("e\x1b[2J", "t\r\n", {"a\n": "x\x1b]0;title\x07\n00:00:00 info forged", "b": ["\x9b31m"]})

    for style in ("human", "json"):
        text = _written(say, style=style)
        assert text.count("\n") == 1
        assert text.rstrip("\n").isprintable()


def test_files_are_json_and_rotated(tmp_path: Path) -> None:
    def say(log: logs.StructuredLogger) -> None:
        for n in range(100):
            log.log_system_event("tick", {"n": n, "pad": "x" * 100})

    _written(say, stream=Terminal(), log_dir=tmp_path / "logs", file_bytes=4000, file_count=3)
    files = sorted(path.name for path in (tmp_path / "logs").iterdir())
    assert files == ["worker.log", "worker.log.1", "worker.log.2", "worker.log.3"]
    assert all((tmp_path / "logs" / name).stat().st_size <= 4000 for name in files)
    last = (tmp_path / "logs" / "worker.log").read_text().splitlines()[-1]
    assert json.loads(last)["details"]["n"] == 99


def test_no_files_when_none_are_wanted(tmp_path: Path) -> None:
    _written(lambda log: log.log_system_event("x"), log_dir=tmp_path, file_count=0)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told_once_and_the_lines_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()

    def say(log: logs.StructuredLogger) -> None:
        for _ in range(5):
            log.log_system_event("x")

    assert len(_events(say, log_dir=tmp_path / "file")) == 5
    told = capsys.readouterr().err
    assert told.count("cannot be written") == 1
    assert str(tmp_path / "file" / "worker.log") in told


def test_a_file_that_is_taken_away_comes_back(tmp_path: Path) -> None:
    def say(log: logs.StructuredLogger) -> None:
        log.log_system_event("one")

    for _ in range(2):
        _written(say, log_dir=tmp_path / "logs")
        (tmp_path / "logs" / "worker.log").unlink()
        (tmp_path / "logs").rmdir()


def test_a_stuck_terminal_holds_nobody_up_and_the_losses_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "QUEUE_LIMIT", 10)
    out = Stuck()
    log = logs.StructuredLogger("node")
    with contextlib.closing(logs.configure("worker", stream=out)):
        log.log_system_event("first")
        assert out.reached.wait(30)
        for _ in range(50):
            log.log_system_event("flood")
        out.released.set()
    events = [json.loads(line) for line in out.getvalue().splitlines()]
    kinds = [event["event_type"] for event in events]
    assert kinds.count("flood") == 10
    [lost] = [event for event in events if event["event_type"] == "log_events_lost"]
    assert lost["details"]["count"] == 40
    assert lost["level"] == "warning"


def test_closing_does_not_wait_for_a_stuck_terminal_for_ever() -> None:
    out = Stuck()
    log = logs.StructuredLogger("node")
    running = logs.configure("worker", stream=out)
    log.log_system_event("first")
    assert out.reached.wait(30)
    assert running.close(0.01) is False
    out.released.set()


def test_a_terminal_that_is_gone_does_not_harm_the_file(tmp_path: Path) -> None:
    _written(lambda log: log.log_system_event("x"), stream=Broken(), log_dir=tmp_path)
    assert json.loads((tmp_path / "worker.log").read_text())["event_type"] == "x"


def test_details_that_break_when_read_do_not_break_who_logs() -> None:
    class Breaks(collections.UserDict[str, Any]):
        def __getitem__(self, _: str) -> Any:
            raise RuntimeError("no")

    class AlsoBreaks(dict[str, Any]):
        def items(self) -> Any:
            raise RuntimeError("no")

    def say(log: logs.StructuredLogger) -> None:
        log.log_system_event("x", Breaks(a=1))
        log.log_system_event("x", {"inside": AlsoBreaks(a=1)})

    for event in _events(say):
        assert event["level"] == "error"
        assert event["details"]["message"] == "an event of worker.intake could not be written: RuntimeError"


def test_closing_puts_logging_back_as_it_was() -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers), logging.getLogger("hivemind").level)
    _written(lambda log: log.log_system_event("x"), level="debug")
    assert (root.level, list(root.handlers), logging.getLogger("hivemind").level) == before


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name == "log writer":
            thread.join(30)
            assert not thread.is_alive()


def test_logging_unconfigured_is_silent_and_safe(capsys: pytest.CaptureFixture[str]) -> None:
    logs.StructuredLogger("node").log_system_event("x", {"a": 1})
    assert capsys.readouterr() == ("", "")


def test_a_last_flush_to_a_full_disk_ends_no_writer() -> None:
    full = logging.FileHandler("/dev/full")
    assert full.stream is not None
    full.stream.write("what lies in the buffer as it is closed")
    closed = Closed()
    writer = writing.Writer([full, closed], lambda _: logging.makeLogRecord({}))
    assert writer.finish(10)
    assert closed.was_closed


class Closed(logging.NullHandler):
    was_closed = False

    def close(self) -> None:
        self.was_closed = True
        super().close()
