"""What the pool has not acknowledged yet, beside the result files in the store: output, and how far each capsule is.

    folder/3f2a….log         output of an attempt that still waits for the pool
    folder/3f2a….checkpoint  how far the conversation with its capsule was when it was last acknowledged

The ends themselves stand in the journal. Nothing that is owed is ever thrown away: whoever takes tasks in looks at
``full`` and takes no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Collection, Hashable
from pathlib import Path

from hivemind_worker.artifacts import spool, writing


class Outbox:
    """A folder for one process. ``limit_bytes``: result files of ended attempts that may wait; 0: no limit."""

    def __init__(self, folder: Path, limit_bytes: int = 0) -> None:
        self._folder = folder
        self._limit = limit_bytes
        self._owed: dict[Hashable, int] = {}

    def prepare(self, kept: Collection[tuple[str, int]] = ()) -> None:
        """Make the folder and clear away what belongs to no attempt of ``kept``. Blocks. Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        names = {_name(task_id, attempt) for task_id, attempt in kept}
        for found in self._folder.iterdir():
            if found.name.partition(".")[0] not in names or found.suffix == ".new":
                found.unlink(missing_ok=True)

    def spool(self, task_id: str, attempt: int) -> spool.Spool:
        """Return an attempt's output that waits; with what an earlier process had put there."""
        return spool.Spool(self._path(task_id, attempt, "log"))

    async def save(self, task_id: str, attempt: int, checkpoint: bytes) -> None:
        """Have a checkpoint on the disk, in the place of the one before. Raises OSError; the old one then stands."""
        await asyncio.to_thread(self._save, self._path(task_id, attempt, "checkpoint"), checkpoint)

    def checkpoint(self, task_id: str, attempt: int) -> bytes | None:
        """Return what was saved last, if anything. Blocks. Raises OSError."""
        try:
            return self._path(task_id, attempt, "checkpoint").read_bytes()
        except FileNotFoundError:
            return None

    def forget(self, task_id: str, attempt: int) -> None:
        """Remove what is here of an attempt."""
        for kind in ("log", "checkpoint"):
            with contextlib.suppress(FileNotFoundError):
                self._path(task_id, attempt, kind).unlink()

    def owe(self, key: Hashable, size: int) -> None:
        """Count so many bytes of result files as waiting."""
        self._owed[key] = size

    def settled(self, key: Hashable) -> None:
        """They wait no more."""
        self._owed.pop(key, None)

    @property
    def owed_bytes(self) -> int:
        """Result files of ended attempts that the pool does not have yet."""
        return sum(self._owed.values())

    @property
    def full(self) -> bool:
        """Whether so much waits that no further task should be begun."""
        return 0 < self._limit <= self.owed_bytes

    def _path(self, task_id: str, attempt: int, kind: str) -> Path:
        return self._folder / f"{_name(task_id, attempt)}.{kind}"

    def _save(self, path: Path, checkpoint: bytes) -> None:
        beside = path.with_name(path.name + ".new")
        with beside.open("wb") as file:
            file.write(checkpoint)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        writing.sync_folder(self._folder)


def _name(task_id: str, attempt: int) -> str:
    """Never the id itself, which a task may choose."""
    return hashlib.sha256(f"{task_id}\0{attempt}".encode()).hexdigest()[:32]
