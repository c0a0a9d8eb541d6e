"""Which images are ours to remove: a file each, made when we fetched or built one; its time is the last use.

What stands in no file here is its owner's, whatever it looks like. A file that is lost or broken loses us the right to
remove an image, never the owner one of his. Several processes may write: each file is replaced as a whole.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import json
import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from hivemind_worker.filesystem import private_dir, private_file
from hivemind_worker.telemetry import logs

log = logs.StructuredLogger(__name__)


class Kind(enum.StrEnum):
    """How an image came to be ours."""

    IMAGE = "image"
    """Fetched from a registry, for a task or ahead of one."""

    ENVIRONMENT = "environment"
    """Made here, from an image and a task's requirements."""


@dataclass(frozen=True, slots=True)
class Record:
    """One image of ours. ``name`` is the reference it is asked for by; times are Unix seconds."""

    kind: Kind
    name: str
    image_id: str
    since: float
    last_used: float


class Ledger:
    """The records in one folder, which is made when first needed. Calls block for as long as a small file takes.

    Nothing here raises for a disk that is full or broken: a log line says so, and the image counts as not ours.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def note(self, name: str, image_id: str, kind: Kind = Kind.IMAGE) -> None:
        """Write down that the image is ours from now on, and used now."""
        said = {"kind": kind, "name": name, "image_id": image_id, "since": time.time()}
        fresh = self._folder / f"{uuid.uuid4().hex}.new"
        try:
            private_dir.make_enterable(self._folder.parent)
            private_dir.make(self._folder)
            private_file.write(fresh, json.dumps(said))
            fresh.replace(self._path(name))
        except (OSError, private_dir.NotPrivate) as error:
            log.log_system_event("image_not_noted", {"image": name}, level="warning", error=error)
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)

    def used(self, name: str) -> None:
        """Write down that it is used now; nothing if it is not ours."""
        with contextlib.suppress(OSError):
            os.utime(self._path(name))

    def forget(self, name: str) -> None:
        """It is gone, or not ours any more."""
        with contextlib.suppress(OSError):
            self._path(name).unlink()

    def get(self, name: str) -> Record | None:
        """The record of that name, if there is one."""
        return _read(self._path(name))

    def records(self) -> list[Record]:
        """All there are, by name."""
        found = (_read(path) for path in self._folder.glob("*.json"))
        return sorted((record for record in found if record is not None), key=lambda record: record.name)

    def _path(self, name: str) -> Path:
        return self._folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"


def _read(path: Path) -> Record | None:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        last_used = path.stat().st_mtime
        return Record(Kind(said["kind"]), str(said["name"]), str(said["image_id"]), float(said["since"]), last_used)
    except (OSError, ValueError, KeyError, TypeError):
        return None
