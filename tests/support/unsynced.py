"""A power cut for one service: what it had not synced to its file systems is gone. Each folder is a mount.

`unsynced.c`, preloaded, writes an undo record before each change; after the processes were killed `roll_back` undoes
what no sync covers. Content is lost from some change on, file by file. A name that was made, moved or removed is
certain once its folder or the file itself was synced; before, it may be lost.
"""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Record:
    """One change as `unsynced.c` wrote it; ``offset`` is the file's mode where a name lost its file, -1 for no file."""

    kind: str
    at: int
    file: int
    folder: int
    offset: int
    old_size: int
    name: str
    content: bytes


def environment(roots: Sequence[Path], log: Path) -> Mapping[str, str]:
    """What a process with the library needs so that its changes below ``roots`` are tracked in ``log``, elsewhere."""
    boot = _boot(log)
    boot.write_text(f"{uuid.uuid4()}\n", encoding="ascii")
    return {"UNSYNCED_ROOTS": ":".join(map(str, roots)), "UNSYNCED_LOG": str(log), "UNSYNCED_BOOT_ID": str(boot)}


def _boot(log: Path) -> Path:
    return log.with_name(f"{log.name}.boot-id")


def roll_back(roots: Sequence[Path], log: Path, draw: random.Random) -> int:
    """Undo what was not synced, after all processes were killed; returns how many changes were undone.

    The machine, as far as processes with the library can see, has another boot id from then on.
    """
    _boot(log).write_text(f"{uuid.uuid4()}\n", encoding="ascii")
    records = sorted((each for path in log.iterdir() for each in _read(path.read_bytes())), key=lambda each: each.at)
    for path in log.iterdir():
        path.unlink()
    paths = _paths(roots)
    return sum(_undo(each, paths) for each in reversed(list(_lost(records, draw))))


def _read(data: bytes) -> Iterator[Record]:
    """Yield the records of one process; the last may be cut short by its kill: then its change was not begun."""
    at = 0
    while (end := data.find(b"\n", at)) >= 0:
        kind, *numbers = data[at:end].split()
        stamp, file, folder, offset, old_size, named, size = map(int, numbers)
        if len(data) < end + 1 + named + size:
            return
        name = data[end + 1 : end + 1 + named].decode()
        at = end + 1 + named + size
        yield Record(kind.decode(), stamp, file, folder, offset, old_size, name, data[end + 1 + named : at])


def _lost(records: Sequence[Record], draw: random.Random) -> Iterator[Record]:
    """Yield the changes that this power cut undoes."""
    synced = {each.file: each.at for each in records if each.kind == "S"}
    void = {(each.file, each.at) for each in _failed_renames(records)}
    open_changes = [
        each
        for each in records
        if each.kind != "S"
        and each.at > synced.get(each.file, -1)
        and (each.file, each.at) not in void
        and not (each.folder and each.at <= synced.get(each.folder, -1))
    ]
    times: dict[int, list[int]] = {}
    for each in open_changes:
        times.setdefault(_part(each), []).append(each.at)
    from_time: dict[int, float] = {}
    lost_renames: set[int] = set()
    for each in open_changes:
        key = _part(each)
        if key not in from_time:
            # All of it, or all from some change on.
            from_time[key] = draw.choice([times[key][0], draw.choice(times[key]), times[key][-1] + 1])
        # A rename is whole: R and the M after it go together.
        if each.file in lost_renames if each.kind == "M" else each.at >= from_time[key]:
            if each.kind == "R":
                lost_renames.add(each.file)
            yield each
        elif each.kind == "R":
            lost_renames.discard(each.file)


def _part(record: Record) -> int:
    """A file's content, or its names: each is lost by itself."""
    return record.file if record.kind in "WT" else -record.file


def _failed_renames(records: Sequence[Record]) -> Iterator[Record]:
    recent: dict[int, list[Record]] = {}
    for each in records:
        if each.kind == "X":
            yield from recent.pop(each.file, [])
            yield each
        elif each.kind in "RM":
            recent.setdefault(each.file, []).append(each)
            recent[each.file] = recent[each.file][-2:]


def _paths(roots: Sequence[Path]) -> dict[int, Path]:
    """Where each file and folder of some mounts is, by the key that `unsynced.c` gives it."""
    paths = {}
    for root in roots:
        for folder, _, names in os.walk(root):
            for path in (Path(folder), *(Path(folder, name) for name in names)):
                paths[_key(path)] = path
    return paths


def _key(path: Path) -> int:
    stat = path.lstat()
    return (stat.st_dev << 40) + stat.st_ino


def _undo(record: Record, paths: dict[int, Path]) -> bool:
    """Undo one change, and keep ``paths`` true."""
    path, folder = paths.get(record.file), paths.get(record.folder)
    if record.kind in "WT" and path is not None:
        with path.open("r+b") as file:
            file.seek(record.offset)
            file.write(record.content)
            file.truncate(record.old_size)
    elif record.kind == "C" and path is not None:
        path.unlink()
        del paths[record.file]
    elif record.kind == "M" and path is not None and folder is not None:
        paths[record.file] = path.rename(folder / record.name)
    elif record.kind in "RU" and record.offset >= 0 and folder is not None:
        target = folder / record.name
        target.write_bytes(record.content)
        target.chmod(record.offset)
        paths[_key(target) if record.kind == "R" else record.file] = target
    else:
        return False
    return True
