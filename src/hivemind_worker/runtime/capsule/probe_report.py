"""What hivemind-probe prints, as facts: lines by their first word, and what follows from a few of them. Pure."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

REFUSED: Final = frozenset({errno.EPERM, errno.ENOSYS})
"""How the filter refuses a call. Any other answer comes from the kernel, which the call has reached."""

SIGNAL: Final = 1000
"""Added to the number of a signal that ended an attempt."""


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/self/mountinfo: where, of which type, with which options of the mount and the file system."""

    point: str
    type: str
    options: frozenset[str]
    source: str

    @property
    def read_only(self) -> bool:
        """Whether nothing can be written through it."""
        return "ro" in self.options


class Report:
    """The lines of one probe. What is not in them was not tried, or not heard."""

    def __init__(self, text: str) -> None:
        self._lines: dict[str, list[str]] = {}
        for line in text.splitlines():
            word, _, rest = line.partition(" ")
            self._lines.setdefault(word, []).append(rest)

    @property
    def is_whole(self) -> bool:
        """Whether the probe came to its end."""
        return "end" in self._lines

    def lines(self, word: str) -> tuple[str, ...]:
        """The rests of all lines with this first word."""
        return tuple(self._lines.get(word, ()))

    def numbers(self, word: str) -> Mapping[str, tuple[int, ...]]:
        """Lines `word NAME NUMBER…`, by their name; a line that is none of these is left out."""
        rows: dict[str, tuple[int, ...]] = {}
        for line in self.lines(word):
            name, _, rest = line.partition(" ")
            parts = rest.split()
            if parts and all(part.lstrip("-").isdigit() for part in parts):
                rows[name] = tuple(map(int, parts))
        return rows

    def values(self, word: str) -> tuple[int, ...] | None:
        """The numbers of the only line `word NUMBER…`; None where there is none."""
        for line in self.lines(word):
            parts = line.split()
            if parts and all(part.lstrip("-").isdigit() for part in parts):
                return tuple(map(int, parts))
        return None

    def status(self, process: str) -> Mapping[str, tuple[str, ...]]:
        """Fields of /proc/PID/status of `self` or the `first` process."""
        rows = {}
        for line in self.lines("status"):
            name, _, rest = line.partition(" ")
            field, _, value = rest.partition(":")
            if name == process:
                rows[field] = tuple(value.split())
        return rows

    def mounts(self) -> tuple[Mount, ...]:
        """Every mount that the task sees."""
        rows = []
        for line in self.lines("mount"):
            before, _, after = line.partition(" - ")
            own, behind = before.split(), after.split()
            if len(own) > 5 and len(behind) > 2:
                options = frozenset((*own[5].split(","), *behind[2].split(",")))
                if "rw" in own[5].split(","):
                    options -= {"ro"}
                rows.append(Mount(own[4], behind[0], options, f"{behind[1]} {own[3]}"))
        return tuple(rows)


def is_refused(number: int) -> bool:
    """Whether an attempt was ended by the filter, or by a signal."""
    return number in REFUSED or number >= SIGNAL
