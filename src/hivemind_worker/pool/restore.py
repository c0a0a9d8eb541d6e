"""A pool from a backup: the copy checked first, then put in place as a store of a new epoch, its store last.

A restore that was broken off leaves `pool.sqlite.restoring`: no pool opens such a store. Everything here blocks.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hivemind_worker import errors
from hivemind_worker.artifacts import store as artifact_store
from hivemind_worker.artifacts import writing
from hivemind_worker.filesystem import private_file
from hivemind_worker.pool import backup, manifest
from hivemind_worker.pool.store import database, history_mark, locks, snapshot

_TOLD = 5
"""How many damaged files are named."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a restore came to. ``set_aside``: where the store and the output that were there before are now."""

    epoch: str
    made_at: float
    files: int
    missing: tuple[str, ...] = ()
    set_aside: tuple[Path, ...] = ()
    unreadable: int = 0
    """How many tasks have secrets that no key here can read."""


def restore(source: Path, pool: backup.Folders, *, replace: bool = False) -> Summary:
    """Put the current backup in ``source`` in a pool's place; with ``replace`` what is there is set aside, not removed.

    Raises :class:`errors.BadSettings` where the backup is not whole or damaged, or something is there already;
    :class:`errors.StateInUse` where a pool has the folders. Then nothing has been changed.
    """
    folder, whole = backup.open_current(source)
    _check(source, folder, whole)
    store = database.prepare(pool.store)
    with _own(store, pool):
        broken_off = database.restoring(store).exists()
        there = [path for path in (store, pool.logs, pool.artifacts) if _has_content(path)]
        if there and not replace and not broken_off:
            raise errors.BadSettings(
                f"there is a pool's data already ({', '.join(map(str, there))}): restore into an empty folder, or say "
                "--replace to have it set aside"
            )
        new = database.restoring(store)
        # What an earlier one left of it is written over, never removed: without it a pool would begin empty. Its log
        # is removed: SQLite would bring that into this backup.
        for extra in ("-wal", "-shm"):
            new.with_name(new.name + extra).unlink(missing_ok=True)
        backup.copy(folder / backup.STORE, new)
        epoch = snapshot.renew(new, time.time(), _reason(whole))
        set_aside = _set_aside(store, pool.logs)
        _place(source, folder, whole, pool)
        set_aside += _place_key(folder, whole, store)
        unreadable = 0 if database.key_file(store).exists() else snapshot.sealed_secrets(new)
        with new.open("rb") as file:
            os.fsync(file.fileno())
        history_mark.remove(store)
        new.replace(store)
        writing.sync_folder(store.parent)
    return Summary(epoch, whole.head.made_at, len(whole.files), tuple(whole.missing), tuple(set_aside), unreadable)


def _check(source: Path, folder: Path, whole: manifest.Manifest) -> None:
    damaged = []
    for entry in whole.files.values():
        try:
            if backup.sum_of(_path(source, folder, entry)) == (entry.size, entry.sha256):
                continue
        except OSError:
            pass
        damaged.append(entry.path)
    if damaged:
        more = f" and {len(damaged) - _TOLD} more" if len(damaged) > _TOLD else ""
        raise errors.BadSettings(
            f"this backup is damaged, and nothing was restored: {', '.join(damaged[:_TOLD])}{more}"
        )
    snapshot.check(folder / backup.STORE)


def _path(source: Path, folder: Path, entry: manifest.File) -> Path:
    return (source if entry.path.startswith(backup.OBJECTS) else folder) / entry.path


def _reason(whole: manifest.Manifest) -> str:
    at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(whole.head.made_at))
    return f"restored from the backup of {at}"


@contextlib.contextmanager
def _own(store: Path, pool: backup.Folders) -> Iterator[None]:
    """Have all of a pool's places, as a pool that serves has them."""
    remedy = "restore into another folder"
    with contextlib.ExitStack() as undo:
        for path, is_folder in (
            (store.with_name(f"{store.name}.lock"), False),
            *([(store, False)] if store.exists() else []),
            (pool.logs, True),
            (pool.artifacts, True),
        ):
            lock = locks.InodeLock(path, remedy, is_folder=is_folder)
            lock.take()
            undo.callback(lock.release)
        yield


def _has_content(path: Path) -> bool:
    if path.is_dir():
        # The folders alone are no content: a pool makes them before it has anything to put there.
        return any(found.is_file() for found in path.rglob("*"))
    return path.exists() and path.stat().st_size > 0


def _set_aside(store: Path, logs: Path) -> list[Path]:
    """Rename what is there of a store and of output; artifacts stay, they are named by their content.

    The store first: whether it is in its place says whether anything was set aside, see `database.check_restored`.
    """
    suffix = _unused_suffix(store, logs)
    moved = []
    for path in (store, store.with_name(f"{store.name}-wal"), store.with_name(f"{store.name}-shm")):
        if path.exists():
            extra = path.name.removeprefix(store.name)
            aside = store.with_name(f"{store.name}{suffix}{extra}")
            path.replace(aside)
            moved.append(aside)
    if _has_content(logs):
        aside = logs.with_name(logs.name + suffix)
        logs.replace(aside)
        moved.append(aside)
    return moved


def _unused_suffix(*paths: Path) -> str:
    """Return a suffix that nothing beside ``paths`` has: not even a restore of the same second is written over."""
    at = time.strftime("%Y-%m-%dT%H-%M-%S", time.gmtime())
    suffixes = (f".replaced-{at}" if number == 1 else f".replaced-{at}-{number}" for number in itertools.count(1))
    return next(
        suffix for suffix in suffixes if not any(any(path.parent.glob(f"{path.name}{suffix}*")) for path in paths)
    )


def _place(source: Path, folder: Path, whole: manifest.Manifest, pool: backup.Folders) -> None:
    artifacts = artifact_store.Store(pool.artifacts)
    changed = set[Path]()
    for entry in whole.files.values():
        kind, _, name = entry.path.partition("/")
        if kind in {backup.STORE, backup.KEY}:
            continue
        target = pool.logs / name if kind == backup.LOGS else artifacts.path(entry.sha256)
        if kind == backup.OBJECTS and target.is_file() and backup.sum_of(target) == (entry.size, entry.sha256):
            continue
        backup.copy(_path(source, folder, entry), target)
        if kind == backup.OBJECTS:
            private_file.freeze(target)
        changed |= {target.parent, target.parent.parent}
    for path in changed:
        writing.sync_folder(path)


def _place_key(folder: Path, whole: manifest.Manifest, store: Path) -> list[Path]:
    """Put the backup's key in its place, if there is one; a key that is there and another is set aside."""
    if backup.KEY not in whole.files:
        return []
    target, moved = database.key_file(store), list[Path]()
    if target.exists() and backup.sum_of(target)[1] != whole.files[backup.KEY].sha256:
        moved.append(target.with_name(target.name + _unused_suffix(target)))
        target.replace(moved[0])
    backup.copy(folder / backup.KEY, target)
    return moved
