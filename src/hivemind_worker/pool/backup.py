"""A backup of a pool, taken while it serves: its store at one moment, and every file and output that this names.

    DIR/current                    the name of the whole backup below
    DIR/2026-11-28T22-50-00-1f…/   pool.sqlite, logs, manifest.jsonl
    DIR/objects/ab/abcdef…         input and result files, by SHA-256; kept from one backup to the next

The store is copied first. What it names was there before it was named and is never removed by a pool, so what is copied
afterwards is at least that. `current` is replaced last: a backup that was broken off is never taken for a whole one,
and the one before stays until then. Everything here blocks.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import hivemind_worker
from hivemind_worker import errors
from hivemind_worker.artifacts import store as artifact_store
from hivemind_worker.artifacts import writing
from hivemind_worker.filesystem import private_dir, private_file
from hivemind_worker.pool import manifest
from hivemind_worker.pool.api import attempt_logs, following
from hivemind_worker.pool.store import database, locks, snapshot
from hivemind_worker.wire import calls

CURRENT = "current"
MANIFEST = "manifest.jsonl"
STORE = "pool.sqlite"
KEY = "pool.key"
OBJECTS = "objects"
LOGS = "logs"

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Folders:
    """Where a pool has its store, its log folder and its artifact folder."""

    store: Path
    logs: Path
    artifacts: Path


@dataclass(frozen=True, slots=True)
class Summary:
    """What a backup came to. ``missing``: artifacts (SHA-256) that the pool itself does not have whole."""

    path: Path
    epoch: str
    files: int
    size: int
    copied: int
    missing: tuple[str, ...] = ()


def make(pool: Folders, target: Path, *, with_key: bool = False) -> Summary:
    """Back a pool up into ``target``, whether it serves or not; what is there of an earlier backup is not copied again.

    ``with_key``: also the key of tasks' secrets, without which those in the backup cannot be read.

    Raises :class:`errors.BadSettings` where that cannot be, :class:`errors.StateInUse` where another backup is being
    made there, :class:`database.Damaged` where the store is damaged; then the earlier backup stays the current one.
    """
    if not pool.store.is_file():
        raise errors.BadSettings(f"there is no pool's store {pool.store}: name it with --store, or its --state-dir")
    # What a pool has not brought into the file yet lies in a log beside the name by which that pool opened it.
    database.check_one_name(pool.store.resolve())
    with _own(target):
        _clear(target)
        before = _current(target)
        folder = target / f"{time.strftime('%Y-%m-%dT%H-%M-%S', time.gmtime())}-{uuid.uuid4().hex[:8]}"
        private_dir.make_sub(folder)
        made_at = time.time()
        snapshot.take(pool.store, folder / STORE, made_at)
        whole = manifest.Manifest(manifest.Head(snapshot.epoch(folder / STORE), made_at, hivemind_worker.__version__))
        copying = _Copying(pool, target, folder, whole, before)
        copying.all()
        key = database.key_file(pool.store.resolve())
        if with_key and key.exists():
            whole.add(manifest.File(KEY, *copy(key, folder / KEY)))
        whole.write(folder / MANIFEST)
        for path in (folder, target):
            writing.sync_folder(path)
        _point(target, folder.name)
        _clear(target)
        _prune(target, whole)
    size = sum(entry.size for entry in whole.files.values())
    missing = tuple(whole.missing)
    return Summary(folder, whole.head.epoch, len(whole.files), size, copying.copied, missing)


def open_current(source: Path) -> tuple[Path, manifest.Manifest]:
    """Return the folder and the manifest of the whole backup in ``source``. Raises :class:`errors.BadSettings`."""
    found = _current(source)
    if found is None:
        raise errors.BadSettings(f"{source} has no whole backup of a pool: `hivemind pool backup` makes one")
    return found


def sum_of(path: Path) -> tuple[int, str]:
    """Return the size and the SHA-256 of a file. Raises OSError."""
    running = hashlib.sha256()
    size = 0
    with path.open("rb", buffering=0) as file:
        while piece := file.read(artifact_store.CHUNK):
            running.update(piece)
            size += len(piece)
    return size, running.hexdigest()


def copy(source: Path, target: Path, most: int | None = None) -> tuple[int, str]:
    """Copy a file, at most its first ``most`` bytes, forced to the disk, whole or not at all; return size and SHA-256.

    Raises OSError.
    """
    private_dir.make_sub(target.parent)
    part = target.with_name(f"{target.name}.part")
    running = hashlib.sha256()
    size = 0
    try:
        # Buffered: of a write without a buffer a disk that fills up takes a part, and says so by its number alone.
        with source.open("rb", buffering=0) as file, private_file.open_binary(part, "wb") as copied:
            while piece := file.read(artifact_store.CHUNK if most is None else min(artifact_store.CHUNK, most - size)):
                running.update(piece)
                copied.write(piece)
                size += len(piece)
            copied.flush()
            os.fsync(copied.fileno())
        part.replace(target)
    except OSError as error:
        error.filename = error.filename or str(target)  # a write does not name its file, and the user is told
        raise
    finally:
        part.unlink(missing_ok=True)
    return size, running.hexdigest()


class _Copying:
    """The copying of what a store's copy names."""

    def __init__(
        self,
        pool: Folders,
        target: Path,
        folder: Path,
        whole: manifest.Manifest,
        before: tuple[Path, manifest.Manifest] | None,
    ) -> None:
        self._pool = pool
        self._target = target
        self._folder = folder
        self._whole = whole
        self._before = before
        self._artifacts = artifact_store.Store(pool.artifacts)
        self._logs = attempt_logs.AttemptLogs(pool.logs)
        self.copied = 0
        """Bytes that were not there of the backup before."""

    def all(self) -> None:
        """Copy everything, and enter it in the manifest."""
        size, sha256 = sum_of(self._folder / STORE)
        self._whole.add(manifest.File(STORE, size, sha256))
        self.copied += size
        changed = {self._target}
        with contextlib.closing(database.reading(self._folder / STORE)) as sql:
            for sha256, needed in _named(sql):
                self._artifact(sha256, changed, needed=needed)
            for attempt in snapshot.all_attempts(sql):
                key = following.key_of(attempt.task_id, attempt.attempt, attempt.assigned)
                self._output(self._logs.path_of_output(key), self._logs.path(key).name, changed)
        for folder in sorted(changed):
            writing.sync_folder(folder)

    def _artifact(self, sha256: str, changed: set[Path], *, needed: bool) -> None:
        name = f"{OBJECTS}/{sha256[:2]}/{sha256}"
        if name in self._whole.files:
            return
        path, own = self._target / name, self._artifacts.path(sha256)
        try:
            size = path.stat().st_size if path.is_file() else -1
            # Of another length is one that an older version copied onto a disk without room.
            if size < 0 or (own.is_file() and own.stat().st_size != size):
                size, copied = copy(own, path)
                self.copied += size
                changed |= {path.parent, path.parent.parent}
                if copied != sha256:
                    path.unlink()
                    raise FileNotFoundError(sha256)  # noqa: TRY301  (damaged is as good as not there)
        except FileNotFoundError:
            if needed and sha256 not in self._whole.missing:
                self._whole.missing.append(sha256)
            return
        self._whole.add(manifest.File(name, size, sha256))

    def _output(self, source: Path, name: str, changed: set[Path]) -> None:
        try:
            segments = [path for path in source.iterdir() if path.name.isdigit()]
        except FileNotFoundError:
            return  # it wrote nothing
        for segment in segments:
            entry = f"{LOGS}/{name[:2]}/{name}/{segment.name}"
            path = self._folder / entry
            with contextlib.suppress(FileNotFoundError):  # the middle of a long output was given up meanwhile
                status = segment.stat()
                if self._linked(entry, status, path):
                    continue
                size, sha256 = copy(segment, path, status.st_size)
                self.copied += size
                self._whole.add(manifest.File(entry, size, sha256, status.st_mtime_ns))
                changed |= {path.parent, path.parent.parent, path.parent.parent.parent}

    def _linked(self, entry: str, status: os.stat_result, path: Path) -> bool:
        """Take output from the backup before, where the pool has not written to it since."""
        if self._before is None:
            return False
        folder, earlier = self._before
        same = earlier.files.get(entry)
        if same is None or (same.size, same.written_ns) != (status.st_size, status.st_mtime_ns):
            return False
        private_dir.make_sub(path.parent)
        try:
            path.hardlink_to(folder / entry)
        except OSError:  # a file system without such links
            return False
        self._whole.add(same)
        return True


def _named(sql: database.Connection) -> Iterator[tuple[str, bool]]:
    """The SHA-256 of every artifact that a store names, and whether something cannot be had without it."""
    for body in snapshot.task_bodies(sql):
        for ref in calls.pb.Task.FromString(body).input_artifacts.values():
            yield ref.sha256, True
    for report in snapshot.reports(sql):
        for file in calls.pb.TaskResult.FromString(report.body).files:
            yield file.sha256, report.accepted


@contextlib.contextmanager
def _own(target: Path) -> Iterator[None]:
    """Have the backup's folder alone. Raises :class:`errors.BadSettings` where it is none."""
    lock = locks.InodeLock(target, "wait until that has ended", is_folder=True, owner="another backup or restore")
    lock.take()
    try:
        there = {path.name for path in target.iterdir()}
        if there and not there & {CURRENT, OBJECTS} and not any((target / name / STORE).is_file() for name in there):
            raise errors.BadSettings(f"{target} is no backup of a pool and not empty: name an empty or new folder")
        yield
    finally:
        lock.release()


def _current(target: Path) -> tuple[Path, manifest.Manifest] | None:
    try:
        name = (target / CURRENT).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    folder = target / Path(name).name
    return folder, manifest.read(folder / MANIFEST)


def _point(target: Path, name: str) -> None:
    new = target / f"{CURRENT}.part"
    with private_file.open_binary(new, "wb") as file:
        file.write(f"{name}\n".encode())
        file.flush()
        os.fsync(file.fileno())
    new.replace(target / CURRENT)
    writing.sync_folder(target)


def _clear(target: Path) -> None:
    """Remove what is not the current backup: older ones, and those that were broken off."""
    current = _current(target)
    for path in target.iterdir():
        if path.is_dir() and path.name != OBJECTS and (current is None or path != current[0]):
            shutil.rmtree(path)


def _prune(target: Path, whole: manifest.Manifest) -> None:
    """Remove the artifacts that no backup names any more."""
    for path in (target / OBJECTS).glob("*/*"):
        if path.relative_to(target).as_posix() not in whole.files:
            path.unlink()
