"""Private files and sockets: opened for their user alone, never through a link, never something else than a file."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import socket
import stat
from pathlib import Path
from typing import BinaryIO

from hivemind_worker.filesystem import permissions

PRIVATE = 0o600
_CHUNK = 1024 * 1024
_WRITES = os.O_WRONLY | os.O_RDWR

log = logging.getLogger(__name__)


def open_fd(path: str | Path, flags: int, mode: int = PRIVATE, *, several_names: bool = False) -> int:
    """As os.open, for a file in a private folder or one that may lie anywhere; ``mode`` is that of a new file.
    ``several_names``: whoever calls judges hard links.

    A file that is open to other users is closed to them, and the log says so. Raises OSError, whose text says what is
    wrong where it belongs to another user, has several names, or is no regular file; then nothing was changed.
    """
    # A FIFO would hold us up, a link lead elsewhere; and nothing is cut off before it is known whose it is.
    wanted = flags & ~os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        fd = os.open(path, wanted, mode)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a symbolic link", str(path)) from None
        if error.errno == errno.ENXIO:
            raise OSError(errno.EPERM, "it is no regular file", str(path)) from None
        raise
    try:
        status = _checked(path, os.fstat(fd), writes=bool(flags & _WRITES) and not several_names)
        if status.is_open:
            os.fchmod(fd, stat.S_IMODE(status.mode) & ~permissions.OTHERS)
            _report(path, status)
        if flags & os.O_TRUNC:
            os.ftruncate(fd, 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def opener(path: str, flags: int) -> int:
    """For the ``opener`` of built-in open. Raises as `open_fd`."""
    return open_fd(path, flags)


def open_binary(path: Path, mode: str, buffering: int = -1) -> BinaryIO:
    """Open as built-in open does, ``mode`` such as "wb". Raises as `open_fd`."""
    return open(path, mode, buffering, opener=opener)  # type: ignore[return-value]


def write(path: Path, content: bytes | str) -> None:
    """Write a whole file, text as UTF-8. Raises as `open_fd`."""
    with open_binary(path, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)


def copy(source: Path, target: Path) -> None:
    """Copy the content of a file into a private one. Raises as `open_fd`."""
    with source.open("rb") as file, open_binary(target, "wb") as copied:
        shutil.copyfileobj(file, copied, _CHUNK)


def make(path: Path) -> None:
    """Have an empty file where there is none, and check the one that is there without opening it.

    For files that a library opens by their names: what SQLite has open must never be opened and closed beside it.
    Raises as `open_fd`.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE))
    check(path)


def check(path: Path) -> None:
    """Check and repair a file without opening it; nothing where there is none. Raises as `open_fd`."""
    try:
        status = _checked(path, path.lstat(), writes=False)
    except FileNotFoundError:
        return
    if status.is_open:
        path.chmod(stat.S_IMODE(status.mode) & ~permissions.OTHERS)
        _report(path, status)


def freeze(path: Path) -> None:
    """Let a private file be written to no more. Raises OSError."""
    path.chmod(0o400)


def bind(listener: socket.socket, address: str) -> None:
    """Bind a Unix socket that no other user can connect to, from its first moment. Raises OSError."""
    os.fchmod(listener.fileno(), PRIVATE)
    listener.bind(address)


def _checked(path: str | Path, found: os.stat_result, *, writes: bool) -> permissions.Status:
    status = permissions.Status(found.st_mode, found.st_uid, found.st_gid, found.st_nlink)
    if problem := permissions.file_problem(status, os.geteuid(), writes=writes):
        raise OSError(errno.EPERM, f"it {problem}", str(path))
    return status


def _report(path: str | Path, status: permissions.Status) -> None:
    log.warning(
        "%s was open to other users (mode %04o): it is its owner's alone from now on; they may have read what was in "
        "it before",
        path,
        stat.S_IMODE(status.mode),
    )
