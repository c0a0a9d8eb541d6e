"""A record for each single command that uses an engine: what a killed one left there is found by it and removed.

A command has no node to return to. Its record is a file, locked for as long as its process lives: one that nobody has
locked is that of a command that was killed, or whose engine did not answer at its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hivemind_worker import errors
from hivemind_worker.filesystem import private_dir, private_file
from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.runtime.docker import leftovers

FOLDER: Final = "commands"
"""Name of the folder of all records in the user's cache."""

_SUFFIX: Final = ".json"
_UNNAMED_BYTES: Final = 8
_UNNAMED: Final = "." + 2 * _UNNAMED_BYTES * "[0-9a-f]"
"""Names of records that are being written, as `Path.glob` has them."""


@dataclass(frozen=True, slots=True)
class Command:
    """What its containers bear as their node, and the engine that it used, as in DOCKER_HOST; empty: the usual one."""

    node_id: str
    docker_host: str


class Record:
    """The record of this process's command: ``begin`` it before anything is made at the engine.

    ``cache`` is the user's cache folder, ``node_id`` a name that no other process has ever had.
    """

    def __init__(self, cache: Path, node_id: str, docker_host: str) -> None:
        self._path = cache / FOLDER / f"{node_id}{_SUFFIX}"
        self._command = Command(node_id, docker_host)
        self._lock = -1

    def begin(self) -> None:
        """Write it, locked from the moment it has its name. Blocks on the disk. Raises OSError."""
        private_dir.make_enterable(self._path.parent.parent)
        private_dir.make(self._path.parent)
        content = {"node_id": self._command.node_id, "docker_host": self._command.docker_host}
        new, self._lock = self._unnamed()
        os.write(self._lock, json.dumps(content).encode())
        new.replace(self._path)

    def _unnamed(self) -> tuple[Path, int]:
        """Make the file of a record that has no name yet, and lock it; another, where a sweep came between the two."""
        while True:
            path = self._path.with_name(f".{secrets.token_hex(_UNNAMED_BYTES)}")
            lock = private_file.open_fd(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.fstat(lock).st_nlink:
                return path, lock
            os.close(lock)

    def end(self, *, is_clean: bool) -> None:
        """Let go of it; unless everything at the engine is gone (``is_clean``) it stays for the next command."""
        if self._lock >= 0:
            if is_clean:
                self._path.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = -1


async def sweep(cache: Path) -> tuple[leftovers.Removed, ...]:
    """Remove what commands that are over have left, and their records; where an engine does not answer they stay."""
    removed = []
    folder = cache / FOLDER
    await asyncio.to_thread(_remove_unnamed, folder)
    for path in await asyncio.to_thread(lambda: sorted(folder.glob(f"*{_SUFFIX}"))):
        with contextlib.suppress(errors.NodeFault), _taken(path) as command:
            if command is not None:
                removed.append(await _remove_all(command))
                path.unlink(missing_ok=True)
    return tuple(found for found in removed if found.containers or found.volumes)


def _remove_unnamed(folder: Path) -> None:
    """Remove what was killed between making its file and giving it its name: at the engine it had made nothing."""
    for path in folder.glob(_UNNAMED):
        with _locked(path) as is_ours:
            if is_ours:
                path.unlink(missing_ok=True)


async def _remove_all(command: Command) -> leftovers.Removed:
    engine = engines.Engine(command.docker_host)
    try:
        await engine.connect()
        return await leftovers.remove(engine, command.node_id, all_boots=True)
    finally:
        await engine.close()


@contextlib.contextmanager
def _taken(path: Path) -> Iterator[Command | None]:
    """Lock a record that nobody has: what it names; None where its command lives, or another sweeps it."""
    with _locked(path) as is_ours:
        found = None
        with contextlib.suppress(OSError):  # removed by whoever had it before
            found = _read(path) if is_ours else None
        yield found


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Lock a file that nobody has locked; false where it is in use, gone meanwhile, or another user's."""
    with contextlib.ExitStack() as opened:
        is_ours = False
        with contextlib.suppress(OSError):
            lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            opened.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = True
        yield is_ours


def _read(path: Path) -> Command | None:
    """A record that was cut off by a power cut names nothing."""
    try:
        content = json.loads(path.read_bytes())
        return Command(str(content["node_id"]), str(content["docker_host"]))
    except (ValueError, TypeError, KeyError):
        path.unlink(missing_ok=True)
        return None
