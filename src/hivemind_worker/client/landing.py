"""One file arriving in a folder: a safe place, a part that can be resumed, put in its place whole and checked."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import sys
from pathlib import Path
from typing import Self

from hivemind_worker import errors
from hivemind_worker.filesystem import umask
from hivemind_worker.tasks import outcome, result_names

if sys.platform != "win32":
    import fcntl

_CHUNK = 1024 * 1024

# What some file system reads as something else than a name: parts of Windows paths, streams and devices.
_FOREIGN = '\\:*?"<>|' if sys.platform == "win32" else ""


_NAMES_FAULT = frozenset({
    errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ,
    errno.ELOOP,
})  # fmt: skip
"""What a file system says of a name that it cannot have, or that stands for something else already."""


class NoPlace(errors.Rejected):
    """A result's name leads to no place in the folder that is its own; other results may be fetched."""


def identity(path: Path) -> tuple[int, int]:
    """Return what tells the file at ``path`` from all others, whatever its name. Raises OSError."""
    found = path.lstat()
    return found.st_dev, found.st_ino


def place(directory: Path, name: str) -> Path:
    """Return where a result called ``name`` belongs beneath ``directory``.

    Raises :class:`NoPlace` for a name that leads elsewhere, whether by itself or through a link that lies in
    the directory.
    """
    parts = name.split("/")
    bad = result_names.problem(name)
    if not bad and any(char in part for part in parts for char in _FOREIGN):
        bad = f"name: it holds one of {_FOREIGN}"
    if bad:
        raise NoPlace(f"the pool names a result {name[:80]!r}, which cannot be fetched: {bad}")
    path = directory.joinpath(*parts)
    if not path.parent.resolve().is_relative_to(directory.resolve()):
        raise NoPlace(f"{path.parent} leads outside {directory} (a link lies there)")
    return path


class Landing:
    """One result file on its way to ``path``, beneath ``directory``; an asynchronous context for as long as it is open.

    What has arrived waits in a hidden part beside its place, held by a lock so that two downloads never write one.
    The calls block on the disk, except where said.
    """

    def __init__(self, directory: Path, path: Path, file: outcome.ResultFile) -> None:
        self._directory = directory
        self._path = path
        self._file = file
        # Of constant length, for names that are as long as the file system allows.
        named = hashlib.sha256(file.name.encode()).hexdigest()[:16]
        self._part = path.parent / f".hivemind-{named}-{file.artifact.sha256[:16]}.part"
        self._handle = -1
        self._sum = hashlib.sha256()
        self.offset = 0
        self.done = False

    async def __aenter__(self) -> Self:
        """Look what is there already. Not blocking: in a thread."""
        try:
            await asyncio.to_thread(self._open)
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Keep what has arrived, for another time."""
        self._close()

    def _close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _open(self) -> None:
        if self._is_there():
            self.offset, self.done = self._file.artifact.size, True
            return
        try:
            umask.make_output_dir(self._path.parent)
            place(self._directory, self._file.name)  # the folders are there now: look again where they lead
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
            self._handle = os.open(self._part, flags | getattr(os, "O_BINARY", 0), 0o600)
        except OSError as error:
            raise self._refusal(error, "written") from None
        self._lock()
        self._resume()

    def _is_there(self) -> bool:
        """Whether the very content lies in its place."""
        if self._path.is_symlink() or not self._path.is_file():
            return False
        if self._path.stat().st_size != self._file.artifact.size:
            return False
        with self._path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == self._file.artifact.sha256

    def _lock(self) -> None:
        if sys.platform == "win32":
            return
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Locked, but by now put in its place by whoever had it: then it is no part any more.
            free = self._part.stat().st_ino == os.fstat(self._handle).st_ino
        except OSError:
            free = False
        if not free:
            raise errors.StateInUse(f"another download writes {self._path}; try again when it has ended") from None

    def _resume(self) -> None:
        """Take what an earlier download left into the sum, and go on behind it."""
        if os.fstat(self._handle).st_size > self._file.artifact.size:
            self._begin_again()
        while data := os.read(self._handle, _CHUNK):
            self._sum.update(data)
            self.offset += len(data)

    def write(self, data: bytes) -> None:
        """Put the next bytes behind what is there."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._handle, view) :]
        except OSError as error:
            raise errors.UserError(f"{self._path} cannot be written: {error.strerror}") from None
        self._sum.update(data)
        self.offset += len(data)

    def finish(self) -> bool:
        """Put the file in its place if it is what it should be; otherwise begin again, and return False."""
        if self._sum.hexdigest() != self._file.artifact.sha256:
            self._begin_again()
            return False
        try:
            os.ftruncate(self._handle, self.offset)
            if sys.platform != "win32":
                # As if the submitter had made the file: whoever asked for it can read it, and others as umask says.
                os.fchmod(self._handle, self._file.mode & 0o777 & ~umask.USER | 0o600)
                os.fsync(self._handle)
            self._part.replace(self._path)
        except OSError as error:
            refusal = self._refusal(error, "put in its place")
            if isinstance(refusal, NoPlace):
                self._part.unlink(missing_ok=True)
            raise refusal from None
        self.done = True
        return True

    def _refusal(self, error: OSError, what: str) -> errors.HiveMindError:
        """Whether this name is to blame, or the folder that the user named."""
        kind = NoPlace if error.errno in _NAMES_FAULT else errors.UserError
        return kind(f"{self._path} cannot be {what}: {error.strerror}")

    def _begin_again(self) -> None:
        os.lseek(self._handle, 0, os.SEEK_SET)
        os.ftruncate(self._handle, 0)
        self._sum = hashlib.sha256()
        self.offset = 0
