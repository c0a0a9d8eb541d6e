"""A task's output to ours: the same bytes, at once, each stream to its own; inert where a terminal would obey them."""

from __future__ import annotations

import locale
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hivemind_worker.cli import look
from hivemind_worker.telemetry import untrusted

if TYPE_CHECKING:
    from hivemind_worker.client import following

F = TypeVar("F", bound=Callable[..., Any])


def option(function: F) -> F:
    """Add ``--raw``."""
    text = "Let the task's output control the terminal: colours, cursor, title, clipboard."
    return click.option("--raw", is_flag=True, help=text)(function)


class Writer:
    """Writes what tasks wrote. A terminal is shown escape sequences as text unless ``raw``; a pipe gets the bytes."""

    def __init__(self, shown: look.Look, *, raw: bool) -> None:
        self._shown = shown
        self._raw = raw
        self._filters: dict[tuple[str, int], untrusted.OutputFilter] = {}

    def write(self, output: following.Output) -> None:
        """Pass it on; with --json as an object a line, in which undecodable bytes are replaced. May block, OSError."""
        if self._shown.json:
            text = output.data.decode("utf-8", "replace")
            fields = {"stream": output.stream, "offset": output.offset, "data": text, "attempt": output.attempt}
            self._shown.object({**fields, "missing_bytes": output.missing_bytes} if output.missing_bytes else fields)
            return
        if output.stream == "system" and self._shown.quiet and not output.missing_bytes:
            return  # the node's own words about the task, not what the task said
        self._put(output.stream, output.attempt, output.data)

    def finish(self) -> None:
        """Write the beginning of a character that no more bytes came for."""
        for stream, attempt in list(self._filters):
            self._put(stream, attempt, b"", final=True)
        self._filters.clear()

    def _put(self, stream: str, attempt: int, data: bytes, *, final: bool = False) -> None:
        target = sys.stdout if stream == "stdout" else sys.stderr
        target.buffer.write(data if self._raw or not target.isatty() else self._inert(stream, attempt, data, final))
        target.buffer.flush()

    def _inert(self, stream: str, attempt: int, data: bytes, final: bool) -> bytes:  # noqa: FBT001
        shown = self._filters.setdefault((stream, attempt), untrusted.OutputFilter())
        target = sys.stdout if stream == "stdout" else sys.stderr
        # A live line puts an object in the stream's place that names no encoding.
        encoding = target.encoding or locale.getpreferredencoding(do_setlocale=False)
        return shown.text(data, final=final).encode(encoding, "backslashreplace")
