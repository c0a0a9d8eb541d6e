"""What is written down about attempts, one line each; and what all lines together say is still held. Pure."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

HEADER = "hivemind-journal 1"
"""First line of every journal: what it is, and the version of its lines."""

Key = tuple[str, int]
"""An attempt: its task's id and its number."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The attempt is ours: its task as the pool sent it (wire bytes)."""

    task_id: str
    attempt: int
    task: bytes


@dataclass(frozen=True, slots=True)
class Placed:
    """Its capsule is there and will be told to start: what an executor needs to find it again and go on."""

    task_id: str
    attempt: int
    capsule: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Ended:
    """How it ended (wire bytes of the result); its files are on the disk. To be kept until it is delivered."""

    task_id: str
    attempt: int
    result: bytes


@dataclass(frozen=True, slots=True)
class Closed:
    """Nothing more is owed: the pool has acknowledged the end, or the attempt is not ours any more. ``why`` says."""

    task_id: str
    attempt: int
    why: str


Record = Accepted | Placed | Ended | Closed

_KINDS: Mapping[str, type[Record]] = {"accepted": Accepted, "placed": Placed, "ended": Ended, "closed": Closed}
_NAMES = {kind: name for name, kind in _KINDS.items()}


class Damaged(ValueError):
    """A line that is no record: torn, altered, or of a version that is not known."""


@dataclass(slots=True)
class Held:
    """What the journal knows of one attempt that is not closed."""

    accepted: Accepted | None = None
    placed: Placed | None = None
    ended: Ended | None = None

    def records(self) -> tuple[Record, ...]:
        """Return what has to be written to say the same again."""
        return tuple(record for record in (self.accepted, self.placed, self.ended) if record is not None)


@dataclass(slots=True)
class Holdings:
    """Every attempt that is not closed, in the order of acceptance; ``lines`` counts the records that led here."""

    attempts: dict[Key, Held] = field(default_factory=dict)
    lines: int = 0

    def take(self, record: Record) -> None:
        """Add one record. In any order and repeated, as a journal put together again may have them."""
        self.lines += 1
        key = (record.task_id, record.attempt)
        if isinstance(record, Closed):
            self.attempts.pop(key, None)
            return
        held = self.attempts.setdefault(key, Held())
        match record:
            case Accepted():
                held.accepted = record
            case Placed():
                held.placed = record
            case Ended():
                held.ended = record

    def records(self) -> Iterable[Record]:
        """Yield the fewest records that say the same."""
        for held in self.attempts.values():
            yield from held.records()


def encode(record: Record) -> bytes:
    """Return the line of a record, its CRC-32 in front, with its end."""
    said = {"kind": _NAMES[type(record)]}
    for name in (each.name for each in dataclasses.fields(record)):
        value = getattr(record, name)
        said[name] = base64.b64encode(value).decode() if isinstance(value, bytes) else value
    text = json.dumps(said, separators=(",", ":"), default=dict).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def decode(line: bytes) -> Record:
    """Read one whole line, without its end. Raises :class:`Damaged`."""
    try:
        if line[:9] != b"%08x " % zlib.crc32(line[9:]):
            raise Damaged("its sum is wrong")
        said = json.loads(line[9:])
        kind = _KINDS[said.pop("kind")]
        types = {each.name: each.type for each in dataclasses.fields(kind)}
        values: dict[str, Any] = {
            name: base64.b64decode(value) if types[name] == "bytes" else value for name, value in said.items()
        }
        return kind(**values)
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError, binascii.Error) as error:
        raise Damaged(str(error) or type(error).__name__) from None
