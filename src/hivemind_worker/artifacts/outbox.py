"""What the pool has not acknowledged yet, beside the result files in the store: output, and how far each capsule is.

    folder/3f2a….log         output of a run that still waits for the pool
    folder/3f2a….checkpoint  how far the conversation with its capsule was when it was last acknowledged

The names are of one run of one attempt of one epoch: nothing of another is ever taken for its own.

The ends themselves stand in the journal. Nothing that is owed is ever thrown away: whoever takes tasks in looks at
``full`` and takes no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Callable, Collection, Hashable
from concurrent import futures
from pathlib import Path

from hivemind_worker.artifacts import spool, writing
from hivemind_worker.filesystem import private_dir, private_file
from hivemind_worker.tasks import attempt_id

_FILE_KINDS = ("log", "checkpoint")


class Outbox:
    """A folder for one process.

    ``limit_bytes``: result files of ended attempts that may wait, ``limit_count``: such attempts; 0: no limit.
    """

    def __init__(self, folder: Path, limit_bytes: int = 0, limit_count: int = 0) -> None:
        self.on_change: Callable[[], None] = lambda: None
        """Called when it becomes full, and when it is no longer."""
        self._folder = folder
        self._limit = limit_bytes
        self._limit_count = limit_count
        self._owed: dict[Hashable, int] = {}
        self._has_files: set[attempt_id.RunKey] = set()
        """Runs of which something may be here besides the output that their spool removes."""
        # Threads of its own: a checkpoint holds up its capsule, and waits for no upload.
        self._threads = futures.ThreadPoolExecutor(2, thread_name_prefix="outbox")

    def prepare(self, kept: Collection[attempt_id.RunKey] = ()) -> None:
        """Make the folder and clear away what belongs to no run of ``kept``. Blocks. Raises OSError."""
        private_dir.make(self._folder)
        for run in kept:
            self._rename_older(run)
        self._has_files.update(kept)
        names = {run.file_name for run in kept}
        for found in self._folder.iterdir():
            if found.name.partition(".")[0] not in names or found.suffix == ".new":
                found.unlink(missing_ok=True)

    def spool(self, run: attempt_id.RunKey, *, is_new: bool = False) -> spool.Spool:
        """Return a run's output that waits; with what an earlier process had put there, unless the run ``is_new``."""
        return spool.Spool(self._path(run, "log"), is_new=is_new)

    async def save(self, run: attempt_id.RunKey, checkpoint: bytes) -> None:
        """Have a checkpoint on the disk, in the place of the one before. Raises OSError; the old one then stands."""
        path = self._path(run, "checkpoint")
        self._has_files.add(run)
        await asyncio.get_running_loop().run_in_executor(self._threads, self._save, path, checkpoint)

    def checkpoint(self, run: attempt_id.RunKey) -> bytes | None:
        """Return what was saved last, if anything. Blocks. Raises OSError."""
        self._rename_older(run)
        self._has_files.add(run)
        try:
            return self._path(run, "checkpoint").read_bytes()
        except FileNotFoundError:
            return None

    def forget(self, run: attempt_id.RunKey) -> None:
        """Remove what is here of a run, but for output that its spool has.

        What a disk does not let go of, full or broken, is cleared away by `prepare` at the next start.
        """
        if run not in self._has_files:
            return
        self._has_files.remove(run)
        for kind in _FILE_KINDS:
            with contextlib.suppress(OSError):
                self._path(run, kind).unlink()

    def close(self) -> None:
        """Let go of its threads, once what they write is on the disk. Blocks for as long as that takes."""
        self._threads.shutdown()

    def owe(self, key: Hashable, size: int) -> None:
        """Count so many bytes of result files as waiting."""
        was_full = self.full
        self._owed[key] = size
        if self.full is not was_full:
            self.on_change()

    def settled(self, key: Hashable) -> None:
        """They wait no more."""
        was_full = self.full
        self._owed.pop(key, None)
        if self.full is not was_full:
            self.on_change()

    @property
    def owed_bytes(self) -> int:
        """Result files of ended attempts that the pool does not have yet."""
        return sum(self._owed.values())

    @property
    def full(self) -> bool:
        """Whether so much waits that no further task should be begun."""
        return 0 < self._limit <= self.owed_bytes or 0 < self._limit_count <= len(self._owed)

    def _path(self, run: attempt_id.RunKey, kind: str) -> Path:
        return self._folder / f"{run.file_name}.{kind}"

    def _rename_older(self, run: attempt_id.RunKey) -> None:
        """Give files of a version that knew neither epochs nor runs the name that they have now."""
        about = run.attempt_id
        if about.store_epoch:
            return
        older = hashlib.sha256(f"{about.task_id}\0{about.attempt}".encode()).hexdigest()[:32]
        for kind in _FILE_KINDS:
            found, path = self._folder / f"{older}.{kind}", self._path(run, kind)
            if found.exists() and not path.exists():
                found.rename(path)

    def _save(self, path: Path, checkpoint: bytes) -> None:
        beside = path.with_name(path.name + ".new")
        with private_file.open_binary(beside, "wb") as file:
            file.write(checkpoint)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        writing.sync_folder(self._folder)
