"""One JSON line per event, in the reference's keys: timestamp, event_type, task_id, node_id, details; and the level.

Each module makes its logger once, `log = logs.StructuredLogger(__name__)`, and says what happened with
`log_task_event` or `log_system_event`. Whose node and which task it was comes from the context (`bind`), which asyncio
tasks inherit.
Nothing here blocks or raises into whoever logs.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TextIO

from hivemind_worker.telemetry import redaction, untrusted, writing
from hivemind_worker.telemetry.lean import structlog

Level = Literal["debug", "info", "warning", "error"]
LEVELS: Mapping[str, int] = logging.getLevelNamesMapping()
KEYS = ("timestamp", "level", "event_type", "task_id", "node_id", "details")

# Our own events all come through this logger; what libraries say comes through the root.
_OURS = logging.getLogger("hivemind")
_OURS.addHandler(logging.NullHandler())


class StructuredLogger:
    """Says what happened, as events with details. Safe anywhere: before `configure`, in threads, in signal handlers.

    `name` is the module that speaks. `node_id` fixes the node; without it, it is the one bound in the context.
    """

    def __init__(self, name: str, node_id: str = "") -> None:
        self._name = name.removeprefix("hivemind_worker.")
        self._node_id = node_id
        self._logger = structlog.wrap_logger(
            _OURS,
            processors=[
                structlog.stdlib.filter_by_level,
                structlog.contextvars.merge_contextvars,
                _event,
                structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
            ],
            wrapper_class=structlog.stdlib.BoundLogger,
        ).bind()  # once, not at each event

    def log_task_event(
        self,
        event_type: str,
        task_id: str,
        details: Mapping[str, Any] | None = None,
        *,
        level: Level = "info",
        error: BaseException | None = None,
    ) -> None:
        """Something happened to a task. An `error` is added to the details, with its trace."""
        self._log(event_type, level, details, error, {"task_id": task_id})

    def log_system_event(
        self,
        event_type: str,
        details: Mapping[str, Any] | None = None,
        *,
        level: Level = "info",
        error: BaseException | None = None,
    ) -> None:
        """Something happened to this node or pool. An `error` is added to the details, with its trace."""
        self._log(event_type, level, details, error, {})

    def _log(
        self,
        event_type: str,
        level: Level,
        details: Mapping[str, Any] | None,
        error: BaseException | None,
        more: dict[str, str],
    ) -> None:
        try:
            said = dict(details or {})
            if error is not None:
                said |= {"error": f"{type(error).__name__}: {error}", "trace": _trace(error)}
            if self._node_id:
                more["node_id"] = self._node_id
            self._logger.log(LEVELS[level.upper()], event_type, details=said, module=self._name, **more)
        except Exception as fault:  # noqa: BLE001  (a log that fails must not fail what is logged)
            _OURS.error("an event of %s could not be written: %s", self._name, type(fault).__name__)


@contextlib.contextmanager
def bind(**context: str) -> Iterator[None]:
    """Within this block, and in asyncio tasks started in it, events name this `node_id`, `task_id` or `trace_id`."""
    with structlog.contextvars.bound_contextvars(**context):
        yield


class Logs:
    """Logging in force, until `close`. Made by `configure`."""

    def __init__(self, writer: writing.Writer, before: tuple[int, list[logging.Handler], int]) -> None:
        self._writer = writer
        self._before = before

    def level(self, level: Level) -> None:
        """Write events from this level on."""
        _OURS.setLevel(LEVELS[level.upper()])

    def close(self, seconds: float = 2.0) -> bool:
        """Write what is queued, for so long at most, and put all back as it was; true if all of it was written."""
        root = logging.getLogger()
        root_level, handlers, our_level = self._before
        root.removeHandler(self._writer)
        root.handlers[:] = handlers
        root.setLevel(root_level)
        _OURS.setLevel(our_level)
        return self._writer.finish(seconds)


def configure(
    name: str,
    *,
    level: Level = "info",
    style: Literal["auto", "json", "human"] = "auto",
    log_dir: Path | None = None,
    file_bytes: int = 10 * 1024 * 1024,
    file_count: int = 5,
    stream: TextIO | None = None,
) -> Logs:
    """Put logging in force for the whole process: lines on standard error, and JSON in `log_dir`/`name`.log.

    `auto` is human lines on a terminal and JSON elsewhere. No files without `log_dir` or with `file_count` 0. What
    libraries say is written from warning level on, as events of the type `library`. Never raises for a folder that
    cannot be written: that is said on standard error, and the lines go on there.
    """
    out = stream or sys.stderr
    as_lines = style == "human" or (style == "auto" and out.isatty())
    shown = writing.ErrorStream(out)
    shown.setFormatter(_formatter(_human if as_lines else _json))
    handlers: list[logging.Handler] = [shown]
    if log_dir is not None and file_count > 0:
        kept = writing.RotatedFile(log_dir / f"{name}.log", file_bytes, file_count)
        kept.setFormatter(_formatter(_json))
        handlers.append(kept)
    writer = writing.Writer(handlers, _lost)
    root = logging.getLogger()
    logs = Logs(writer, (root.level, list(root.handlers), _OURS.level))
    root.handlers[:] = [writer]
    root.setLevel(logging.WARNING)
    _OURS.setLevel(LEVELS[level.upper()])
    return logs


def _formatter(render: structlog.typing.Processor) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[_library_event],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        use_get_message=False,  # a library's message that cannot be made is shown with its parts instead
        pass_foreign_args=True,
    )


def _event(_: Any, method: str, said: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """What was said, as the event that is written: cleaned here, while nobody else changes it."""
    details = redaction.clean(said.get("details", {}))
    if "trace_id" in said:
        details["trace_id"] = redaction.text(str(said["trace_id"]), redaction.NAME_LIMIT)
    event = {
        "timestamp": _now(),
        "level": logging.getLevelName(said["level"]).lower() if "level" in said else method,
        "event_type": redaction.text(str(said["event"]), redaction.NAME_LIMIT),
        "node_id": redaction.text(str(said.get("node_id", "")), redaction.NAME_LIMIT),
        "details": {"module": said["module"], **details},
    }
    if "task_id" in said:
        event["task_id"] = redaction.text(str(said["task_id"]), redaction.NAME_LIMIT)
    return event


def _library_event(_: Any, method: str, said: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """A library's record in our keys."""
    record: logging.LogRecord = said["_record"]
    details: dict[str, Any] = {"message": _message(said["event"], said["positional_args"])}
    error = (said.get("exc_info") or (None, None))[1]
    if error is not None:
        details |= {"error": f"{type(error).__name__}: {error}", "trace": _trace(error)}
    said.update(
        _event(_, method, {"event": "library", "details": details, "module": record.name, "level": record.levelno})
    )
    return said


def _message(form: str, arguments: Any) -> str:
    try:
        return form % arguments if arguments else form
    except Exception:  # noqa: BLE001  (a library's slip in its own message; what it meant is still shown)
        return f"{form} {redaction.clean(arguments)}"


def _lost(count: int) -> logging.LogRecord:
    """The record that stands for events that came faster than they could be written."""
    details = {"count": count}
    said = {"event": "log_events_lost", "details": details, "module": "telemetry.logs", "level": logging.WARNING}
    record = _OURS.makeRecord(_OURS.name, logging.WARNING, __file__, 0, "", (), None)
    arguments, extra = structlog.stdlib.ProcessorFormatter.wrap_for_formatter(_OURS, "warning", _event(None, "", said))
    record.msg = arguments[0]
    record.__dict__ |= extra["extra"]
    return record


def _json(_: Any, __: str, event: structlog.typing.EventDict) -> str:
    line = json.dumps({key: event[key] for key in KEYS if key in event}, ensure_ascii=False)
    # JSON leaves some control and direction marks as they are; a terminal that shows the file must not obey them.
    return line if line.isprintable() else "".join(_plain(each) for each in line)


def _plain(character: str) -> str:
    return character if character.isprintable() else json.dumps(character)[1:-1]


def _human(_: Any, __: str, event: structlog.typing.EventDict) -> str:
    """A line for a person: the time of day, the level when it matters, the event and its details."""
    at = dt.datetime.fromisoformat(event["timestamp"]).astimezone()
    details = dict(event["details"])
    trace = details.pop("trace", None)
    parts = [f"{at:%H:%M:%S}", f"{event['level']:<7}", untrusted.line(event["event_type"])]
    if event.get("task_id"):
        parts.append(f"task={untrusted.line(event['task_id'])}")
    parts += [f"{untrusted.line(name)}={_shown(value)}" for name, value in details.items() if name != "module"]
    lines = [" ".join(parts), *(f"    {untrusted.line(line)}" for line in (trace or "").splitlines())]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return untrusted.line(value) if value and " " not in value else f"'{untrusted.line(value)}'"
    return untrusted.line(json.dumps(value, ensure_ascii=False))


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def _now() -> str:
    """RFC 3339 in UTC, to the millisecond."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
