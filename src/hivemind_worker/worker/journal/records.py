"""What is written down about attempts, one line each; and what all lines together say is still held. Pure.

Version 1 knew neither store epochs nor runs, and wrote ``placed`` only of capsules that outlive their worker: an
attempt that it says was accepted and no more may have begun. It is read as one that was told to start.
Version 2 waited for the disk with every line, and named no boot of the machine.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hivemind_worker.tasks import attempt_id

HEADER = "hivemind-journal 3"
"""Begins the first line of every journal: what it is, and the version of its lines. Behind it stands the boot id."""

HEADER_V2 = "hivemind-journal 2"
HEADER_V1 = "hivemind-journal 1"
"""The older versions, which are still read; nothing stands behind these."""

NO_BOOT_ID = "-"
"""Stands for a boot id that was not known: everything was on the disk before it was acted upon."""

Key = attempt_id.AttemptId


@dataclass(frozen=True, slots=True)
class Accepted:
    """The attempt is ours: its task as the pool sent it (wire bytes), and the id of the one run that it will have.

    Written again, with one more in ``preparations``, by each process that prepares it after another was killed.
    """

    task_id: str
    attempt: int
    task: bytes
    store_epoch: str = ""
    run_id: str = ""
    preparations: int = 1


@dataclass(frozen=True, slots=True)
class Started:
    """Its task will be told to start; written before it is told, whatever runs it.

    ``capsule`` is what an executor needs to find it again and go on; empty where nothing of it outlives the worker.
    ``doubt`` says why it is only presumed to have started: its records cannot rule it out.
    """

    task_id: str
    attempt: int
    capsule: Mapping[str, str]
    store_epoch: str = ""
    run_id: str = ""
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """How it ended (wire bytes of the result); its files are on the disk. To be kept until it is delivered."""

    task_id: str
    attempt: int
    result: bytes
    store_epoch: str = ""
    run_id: str = ""


@dataclass(frozen=True, slots=True)
class Closed:
    """Nothing more is owed: the pool has acknowledged the end, or the attempt is not ours any more. ``why`` says."""

    task_id: str
    attempt: int
    why: str
    store_epoch: str = ""


Record = Accepted | Started | Ended | Closed

_KINDS: Mapping[str, type[Record]] = {"accepted": Accepted, "started": Started, "ended": Ended, "closed": Closed}
_KINDS_V1: Mapping[str, type[Record]] = {"accepted": Accepted, "placed": Started, "ended": Ended, "closed": Closed}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_FIELDS = {kind: tuple(part.name for part in dataclasses.fields(kind)) for kind in _NAMES}
_JSON = json.JSONEncoder(separators=(",", ":"), default=dict)


class Damaged(ValueError):
    """A line that is no record: torn, altered, or of a version that is not known."""


def key_of(record: Record) -> Key:
    """Return which attempt a record is about."""
    return Key(record.task_id, record.attempt, record.store_epoch)


@dataclass(slots=True)
class Held:
    """What the journal knows of one attempt that is not closed."""

    accepted: Accepted | None = None
    started: Started | None = None
    ended: Ended | None = None

    @property
    def run_id(self) -> str:
        """The id of its run, as far as any record tells."""
        records = (self.ended, self.started, self.accepted)
        return next((record.run_id for record in records if record is not None and record.run_id), "")

    def records(self) -> tuple[Record, ...]:
        """Return what has to be written to say the same again."""
        return tuple(record for record in (self.accepted, self.started, self.ended) if record is not None)


@dataclass(slots=True)
class Holdings:
    """Every attempt that is not closed, in the order of acceptance; ``lines`` counts the records that led here."""

    attempts: dict[Key, Held] = field(default_factory=dict)
    lines: int = 0

    def take(self, record: Record) -> None:
        """Add one record. In any order and repeated, as a journal put together again may have them."""
        self.lines += 1
        key = key_of(record)
        if isinstance(record, Closed):
            self.attempts.pop(key, None)
            return
        held = self.attempts.setdefault(key, Held())
        match record:
            case Accepted():
                held.accepted = record
            case Started():
                held.started = record
            case Ended():
                held.ended = record

    def records(self) -> Iterable[Record]:
        """Yield the fewest records that say the same."""
        for held in self.attempts.values():
            yield from held.records()

    def presume_started(self, doubt: str) -> tuple[Started, ...]:
        """Take each attempt that was accepted and no more as started: nothing here rules out that it was.

        Return what has to be written to say so.
        """
        presumed = []
        for key, held in self.attempts.items():
            if held.started is None and held.ended is None:
                held.started = Started(key.task_id, key.attempt, {}, key.store_epoch, held.run_id, doubt)
                presumed.append(held.started)
        return tuple(presumed)

    def name_runs(self) -> None:
        """Give an id to each run of a version that named none: the same each time the same records are read."""
        for key, held in self.attempts.items():
            text = json.dumps([key.task_id, key.attempt, dict(held.started.capsule) if held.started else {}])
            run_id = hashlib.sha256(text.encode()).hexdigest()[:32]
            if held.accepted is not None:
                held.accepted = dataclasses.replace(held.accepted, run_id=run_id)
            if held.started is not None:
                held.started = dataclasses.replace(held.started, run_id=run_id)
            if held.ended is not None:
                held.ended = dataclasses.replace(held.ended, run_id=run_id)


def header(boot_id: str) -> bytes:
    """Return the first line, with its end, of a journal that is written under this boot of the machine."""
    return f"{HEADER} {boot_id or NO_BOOT_ID}\n".encode()


def read_header(line: bytes) -> tuple[str, str] | None:
    """Read a first line, without its end: the version, and the boot id, empty for none. None: it is no journal's."""
    text = line.decode(errors="replace")
    if text in {HEADER_V1, HEADER_V2}:
        return text, ""
    version, _, boot_id = text.rpartition(" ")
    if version != HEADER or not boot_id:
        return None
    return version, "" if boot_id == NO_BOOT_ID else boot_id


def encode(record: Record) -> bytes:
    """Return the line of a record, its CRC-32 in front, with its end."""
    fields = {"kind": _NAMES[type(record)]}
    for name in _FIELDS[type(record)]:
        value = getattr(record, name)
        fields[name] = base64.b64encode(value).decode() if isinstance(value, bytes) else value
    text = _JSON.encode(fields).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def decode(line: bytes, header: str = HEADER) -> Record:
    """Read one whole line, without its end, of a journal with this header. Raises :class:`Damaged`."""
    try:
        if line[:9] != b"%08x " % zlib.crc32(line[9:]):
            raise Damaged("its sum is wrong")
        fields = json.loads(line[9:])
        kind = (_KINDS_V1 if header == HEADER_V1 else _KINDS)[fields.pop("kind")]
        types = {part.name: _READERS[str(part.type)] for part in dataclasses.fields(kind)}
        values: dict[str, Any] = {name: types[name](value) for name, value in fields.items()}
        return kind(**values)
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError, binascii.Error) as error:
        raise Damaged(str(error) or type(error).__name__) from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise Damaged(f"{value!r:.40} is no text")
    return value


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise Damaged(f"{value!r:.40} is no whole number")
    return value


def _bytes(value: object) -> bytes:
    return base64.b64decode(_text(value), validate=True)


def _texts(value: object) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise Damaged(f"{value!r:.40} is no mapping")
    return {_text(name): _text(text) for name, text in value.items()}


_READERS: Mapping[str, Callable[[object], object]] = {
    "str": _text,
    "int": _whole,
    "bytes": _bytes,
    "Mapping[str, str]": _texts,
}
"""By the declared type of a record's field. A line of right sum and wrong types is as damaged as any other."""


def is_whole(line: bytes) -> bool:
    """Say whether a line, with its end, is a record."""
    try:
        decode(line[:-1])
    except Damaged:
        return False
    return line.endswith(b"\n")
