"""A task's output to ours: the same bytes, at once, each stream to its own."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from hivemind_worker.cli import look

if TYPE_CHECKING:
    from hivemind_worker.client import following


def write(shown: look.Look, output: following.Output) -> None:
    """Pass on what a task wrote; with --json as an object a line, in which undecodable bytes are replaced."""
    if shown.json:
        text = output.data.decode("utf-8", "replace")
        fields = {"stream": output.stream, "offset": output.offset, "data": text, "attempt": output.attempt}
        shown.object({**fields, "missing_bytes": output.missing_bytes} if output.missing_bytes else fields)
        return
    if output.stream == "system" and shown.quiet and not output.missing_bytes:
        return  # the node's own words about the task, not what the task said
    target = sys.stdout.buffer if output.stream == "stdout" else sys.stderr.buffer
    target.write(output.data)
    target.flush()
