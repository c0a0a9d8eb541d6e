"""The W3C trace context (`traceparent`): read, begun, and handed on. Pure but for the dice.

Whoever submits a task and is traced itself hands on its TRACEPARENT; where nobody is, a trace begins with the task.
Each attempt is a span of its own, whose name the task finds in its environment. Spans are not recorded here: every log
event of an attempt carries the trace's id, which is what finds them.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

VARIABLE = "TRACEPARENT"
"""Where a process finds the trace that it is part of."""

# version, trace id, parent's span id, flags; later versions may add more after these.
_FORM = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)


@dataclass(frozen=True, slots=True)
class Trace:
    """A place in a trace: whose trace, which span, and whether it is recorded (flag 01)."""

    trace_id: str
    span_id: str
    flags: str = "01"

    def child(self) -> Trace:
        """Return a new span of the same trace."""
        return Trace(self.trace_id, secrets.token_hex(8), self.flags)

    def __str__(self) -> str:
        """The header's value."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"


def begin() -> Trace:
    """Return the first span of a new trace."""
    return Trace(secrets.token_hex(16), secrets.token_hex(8))


def read(text: str) -> Trace | None:
    """Read a traceparent; ``None`` for what is none: it is then ignored, as the standard wants it."""
    found = _FORM.fullmatch(text.strip())
    if found is None or found["version"] == "ff" or (found["version"] == "00" and found["more"]):
        return None
    if not int(found["trace"], 16) or not int(found["span"], 16):
        return None
    return Trace(found["trace"], found["span"], found["flags"])


def after(text: str) -> Trace:
    """Return a new span of the trace that ``text`` names, or the first of a new one."""
    given = read(text)
    return given.child() if given is not None else begin()
