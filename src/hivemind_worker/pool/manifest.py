"""What is in a backup: a file of JSON lines, one per file, with a last line that only a whole one has."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hivemind_worker import errors
from hivemind_worker.filesystem import private_file

_PATH = re.compile(
    r"pool\.sqlite|pool\.key|logs/[0-9a-f]{2}/[0-9a-f]{40}/\d+|objects/[0-9a-f]{2}/[0-9a-f]{64}", re.ASCII
)

FORMAT = 1
"""The number of this layout: a program refuses a larger one."""


@dataclass(frozen=True, slots=True)
class Head:
    """Of which store the backup is: its epoch, and when it was taken (Unix seconds)."""

    epoch: str
    made_at: float
    version: str
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class File:
    """A file of the backup: its path in it, its size in bytes and its SHA-256.

    ``written_ns`` is when the pool's own file was last written (nanoseconds), 0 where that does not matter.
    """

    path: str
    size: int
    sha256: str
    written_ns: int = 0


@dataclass(slots=True)
class Manifest:
    """All of a backup. ``missing`` names artifacts (SHA-256) that the pool itself did not have whole any more."""

    head: Head
    files: dict[str, File] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def add(self, file: File) -> None:
        """Take up a file."""
        self.files[file.path] = file

    def write(self, path: Path) -> None:
        """Write it, forced to the disk. Raises OSError."""
        running = hashlib.sha256()
        with private_file.open_binary(path, "xb") as file:
            for line in self._lines():
                running.update(line)
                file.write(line)
            file.write(_line({"end": running.hexdigest()}))
            file.flush()
            os.fsync(file.fileno())

    def _lines(self) -> Iterator[bytes]:
        yield _line({"head": asdict(self.head)})
        for entry in self.files.values():
            yield _line({"file": asdict(entry)})
        for sha256 in self.missing:
            yield _line({"missing": sha256})


def read(path: Path) -> Manifest:
    """Read one that is whole. Raises :class:`errors.BadSettings` for any other."""
    broken = errors.BadSettings(f"{path} is damaged or not whole: this backup cannot be used")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise errors.BadSettings(
            f"{path} cannot be read ({error.strerror}): this is no whole backup of a pool"
        ) from None
    body, _, last = content[:-1].rpartition(b"\n")
    body += b"\n"
    try:
        if json.loads(last)["end"] != hashlib.sha256(body).hexdigest():
            raise broken
        lines = [json.loads(line) for line in body.splitlines()]
        head = Head(**lines[0]["head"])
        manifest = Manifest(head)
        for line in lines[1:]:
            if "missing" in line:
                manifest.missing.append(line["missing"])
            else:
                entry = File(**line["file"])
                if not _PATH.fullmatch(entry.path):
                    raise broken
                manifest.add(entry)
    except (ValueError, KeyError, TypeError, IndexError):
        raise broken from None
    if head.format > FORMAT:
        raise errors.BadSettings(f"{path}: a newer version made this backup (format {head.format}): upgrade")
    return manifest


def _line(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"
