"""One pool per store and per folder: locks on the inodes themselves, which no other path to them can get around."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

from hivemind_worker import errors
from hivemind_worker.filesystem import private_dir, private_file

_TRIES = 5
"""How often a file is opened again that was replaced by another between its opening and its locking."""

_owned: set[tuple[int, int]] = set()
_owned_guard = threading.Lock()
# What this process has locked already is refused before it is opened: to close a second handle of a database would let
# go of SQLite's own locks on it (POSIX: they are the process's, not the handle's).


class InodeLock:
    """A file or a folder that is this process's alone for as long as it is locked, by whatever name others call it.

    A symbolic or hard link, a bind mount, another spelling lead to the same inode; the kernel lets go of it when the
    process ends, however it does. ``remedy`` is what to do where ``owner`` has it already.
    """

    def __init__(self, path: Path, remedy: str, *, is_folder: bool = False, owner: str = "another pool") -> None:
        self._path = path
        self._owner = owner
        self._remedy = remedy
        self._is_folder = is_folder
        self._fd = -1
        self._inode = (0, 0)

    def take(self) -> None:
        """Make it where it is not there, and lock it.

        Raises :class:`errors.StateInUse` where another pool has it, :class:`errors.BadSettings` where it cannot be
        written or locked.
        """
        for _ in range(_TRIES):
            fd = self._open()
            inode = _inode(os.fstat(fd))
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                raise self._in_use(_holder(inode)) from None
            except OSError as error:
                os.close(fd)
                raise errors.NoFileLocks(self._path, error) from None
            if self._is_at(inode):
                self._fd, self._inode = fd, inode
                with _owned_guard:
                    _owned.add(inode)
                return
            os.close(fd)
        raise errors.StateInUse(f"{self._path} is being replaced by another process: wait until that has ended")

    def release(self) -> None:
        """Let go. The file stays: to remove it would let two pools lock two files of one name."""
        if self._fd >= 0:
            with _owned_guard:
                _owned.discard(self._inode)
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> int:
        try:
            if self._is_folder:
                private_dir.make(self._path)
            self._check_this_process()
            if self._is_folder:
                return os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            return private_file.open_fd(self._path, os.O_RDWR | os.O_CREAT, several_names=True)
        except OSError as error:
            raise errors.BadSettings(f"{self._path} cannot be written: {error.strerror}") from None

    def _check_this_process(self) -> None:
        try:
            inode = _inode(self._path.stat())
        except FileNotFoundError:
            return
        with _owned_guard:
            if inode in _owned:
                raise self._in_use(os.getpid())

    def _is_at(self, inode: tuple[int, int]) -> bool:
        try:
            return _inode(self._path.stat()) == inode
        except FileNotFoundError:
            return False

    def _in_use(self, pid: int) -> errors.StateInUse:
        who = f"{self._owner} (process {pid})" if pid else self._owner
        return errors.StateInUse(f"{who} uses {self._path}: stop it, or {self._remedy}")


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _holder(inode: tuple[int, int], table: Path = Path("/proc/locks")) -> int:
    """The process that has locked an inode; 0 where the kernel does not say, as of one in another container."""
    name = f"{os.major(inode[0]):02x}:{os.minor(inode[0]):02x}:{inode[1]}"
    try:
        lines = table.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    for line in lines:
        fields = line.split()
        if len(fields) >= 6 and fields[1] == "FLOCK" and fields[5] == name:
            return max(int(fields[4]), 0)
    return 0
