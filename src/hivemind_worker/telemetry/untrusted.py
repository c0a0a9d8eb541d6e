"""Text of tasks, nodes, registries and pools, made harmless for a terminal and for lines that are read: one helper.

Inert are C0 and C1 control characters (a C1 as one raw byte, too), DEL, marks of direction and other invisible ones,
separators of lines and lone surrogates: each is shown as its escape. Pure.
"""

from __future__ import annotations

import codecs
import re
from typing import Final

CONTINUED: Final = "    "
"""What the second and later lines of a message begin with: none of them can pass for a line of its own."""

# Task output keeps what scripts and emoji need: joiners, variation selectors, private use, spaces of every width.
_ACTIVE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"
    "\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_BREAKS: Final = re.compile("\r\n|[\n\r\x0b\x0c\x85\u2028\u2029]")


def escaped(text: str) -> str:
    """Return text in which whatever is not visible is shown as its escape."""
    return text.encode("unicode_escape").decode("ascii")


def line(text: str) -> str:
    """Return a name or a value as one visible line: line breaks and tabs are shown as escapes, too."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else escaped(char) for char in text)


def message(text: str) -> str:
    """Return a message, which may have several lines: the later ones are indented."""
    if text.isprintable():
        return text
    first, *more = (line(part.replace("\t", CONTINUED)) for part in _BREAKS.split(text))
    return "\n".join((first, *(f"{CONTINUED}{part}" for part in more)))


class OutputFilter:
    """A task's output as text for a terminal, however its bytes are cut: layout stays, everything else is inert.

    A carriage return begins a new line instead of writing over the last one.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._returned = False

    def text(self, data: bytes, *, final: bool = False) -> str:
        """Return what may be shown of the next bytes; with ``final`` also of a character that was cut off."""
        text = self._decoder.decode(data, final)
        if self._returned and text.startswith("\n"):
            text = text[1:]
            self._returned = False
        if text:
            self._returned = text.endswith("\r")
        return _ACTIVE.sub(lambda found: escaped(found[0]), text.replace("\r\n", "\n").replace("\r", "\n"))
