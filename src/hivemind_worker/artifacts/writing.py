"""Files in the making: a running sum, a size cap, holes kept as holes, and uploads that go on where they stopped."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from hivemind_worker import errors
from hivemind_worker.filesystem import private_file
from hivemind_worker.tasks import outcome

_ZEROS = bytes(1024 * 1024)
_READ = 1024 * 1024

_MANY = 32
"""From so many files on, one syncfs(2) is cheaper than an fsync(2) each (a few ms apiece on ext4)."""


class TooLarge(errors.UserError):
    """More bytes than were allowed or announced."""


class WrongContent(errors.Rejected):
    """What came is not what its name says."""


class TakenOver(errors.Rejected):
    """A newer upload of the same artifact goes on in this one's place."""


class Writer:
    """One new file. Not for several threads at once; one after the other is fine.

    ``after``: how many bytes of a file that an earlier process had begun are gone on with; what lies behind them goes,
    what is there is read again. Raises FileNotFoundError then, WrongContent where it is shorter.
    """

    def __init__(self, path: Path, limit: int | None, after: int | None = None) -> None:
        self.path = path
        self.promised = False
        """Whether a checkpoint names it: until its attempt is over another process may want to go on with it."""
        self._limit = limit
        new = os.O_CREAT | os.O_EXCL if after is None else 0
        self._fd = private_file.open_fd(path, os.O_RDWR | new)
        self._hash = hashlib.sha256()
        self._size = 0
        if after:
            self._go_on(after)

    @property
    def size(self) -> int:
        """Bytes so far, holes included."""
        return self._size

    def write(self, data: bytes) -> None:
        """Append. Raises TooLarge, with nothing of `data` written; OSError when the disk is full."""
        self._check(len(data))
        _write_all(self._fd, data, self._size)
        self._hash.update(data)
        self._size += len(data)

    def skip_to(self, offset: int) -> None:
        """Append a hole up to `offset`: it reads as zeros and takes no disk. Raises TooLarge, ValueError going back."""
        hole = offset - self._size
        if hole < 0:
            raise ValueError(f"a hole cannot end at byte {offset} of a file that has {self._size}")
        self._check(hole)
        os.ftruncate(self._fd, offset)
        self._size = offset
        view = memoryview(_ZEROS)
        for _ in range(hole // len(_ZEROS)):
            self._hash.update(view)
        self._hash.update(view[: hole % len(_ZEROS)])

    def sync(self) -> None:
        """Wait until the disk has it."""
        os.fsync(self._fd)

    def close(self) -> outcome.Artifact:
        """Nothing more comes: its size and sum."""
        self._close_fd()
        return outcome.Artifact(self._hash.hexdigest(), self._size)

    def abort(self) -> None:
        """Throw it away, unless it is promised; does nothing after it was committed."""
        self._close_fd()
        if not self.promised:
            self.path.unlink(missing_ok=True)

    def _go_on(self, after: int) -> None:
        if os.fstat(self._fd).st_size < after:
            self._close_fd()
            raise WrongContent(f"{self.path} has less than the {after} bytes that had been written")
        os.ftruncate(self._fd, after)
        while piece := os.pread(self._fd, _READ, self._size):
            self._hash.update(piece)
            self._size += len(piece)

    def _check(self, more: int) -> None:
        if self._limit is not None and self._size + more > self._limit:
            raise TooLarge(f"a file of more than {self._limit} bytes where no more are allowed")

    def _close_fd(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def finish(writers: Sequence[Writer]) -> list[outcome.Artifact]:
    """Make the files durable where they are, close them, return what they are. Raises OSError."""
    if len(writers) < _MANY or not _sync_file_system(writers[0].path.parent):
        for writer in writers:
            writer.sync()
    return [writer.close() for writer in writers]


def sync_folder(folder: Path) -> None:
    """Make renames within `folder` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Upload:
    """One artifact that comes from elsewhere, in order, over one or several connections.

    ``path`` is a file that this upload alone opens: what has been summed up is what the file holds. ``released`` is
    called when the upload is over, done or not.
    """

    def __init__(self, path: Path, artifact: outcome.Artifact, released: Callable[[Upload], None]) -> None:
        self.path = path
        self.artifact = artifact
        self._released = released
        self._lock = threading.Lock()
        self._taken_over = False
        self._hash = hashlib.sha256()
        self._fd = private_file.open_fd(path, os.O_RDWR | os.O_CREAT)
        self._offset = 0

    @property
    def offset(self) -> int:
        """The next byte to be sent."""
        return self._offset

    def go_on(self) -> None:
        """Sum up what is here already. Blocks. Raises TakenOver."""
        with self._lock:
            self._check_place()
            if os.fstat(self._fd).st_size > self.artifact.size:
                os.ftruncate(self._fd, 0)
            while piece := os.pread(self._fd, _READ, self._offset):
                self._check_place()
                self._hash.update(piece)
                self._offset += len(piece)

    def write(self, offset: int, data: bytes) -> None:
        """Take the bytes at `offset`; what is here already is passed over, so a repeated piece does no harm.

        Raises WrongContent for a gap, TooLarge beyond the announced size, TakenOver.
        """
        with self._lock:
            self._check_place()
            if offset > self._offset:
                raise WrongContent(f"bytes from {offset} on came, those from {self._offset} on are missing")
            new = data[self._offset - offset :]
            if self._offset + len(new) > self.artifact.size:
                raise TooLarge(f"more than the {self.artifact.size} bytes that were announced")
            _write_all(self._fd, new, self._offset)
            self._hash.update(new)
            self._offset += len(new)

    def verify(self) -> Path:
        """Close it and make it durable; where it lies. Raises WrongContent, after throwing it away."""
        with self._lock:
            self._check_place()
            came = outcome.Artifact(self._hash.hexdigest(), self._offset)
            try:
                if came == self.artifact:
                    os.ftruncate(self._fd, came.size)  # nothing behind it, of a write that failed half-way
                    os.fsync(self._fd)
            except OSError:
                self.path.unlink(missing_ok=True)  # what the disk has of it nobody knows
                raise
            finally:
                self._close_fd()
            if came != self.artifact:
                self.path.unlink(missing_ok=True)
                raise WrongContent(f"{came.size} bytes of sum {came.sha256} came, announced was {self.artifact}")
            return self.path

    def close(self) -> None:
        """Keep what came for another connection; does nothing a second time, or after the end."""
        self._released(self)

    def take_over(self) -> bool:
        """Another upload goes on in this one's place; whether there is anything to go on with."""
        self._taken_over = True  # before the lock: who reads a long file again lets go of it
        return self.end()

    def end(self) -> bool:
        """Write no more; whether this was still open, and so its file is there for another."""
        with self._lock:
            was_open = self._fd >= 0
            self._close_fd()
            return was_open

    def _check_place(self) -> None:
        if self._taken_over or self._fd < 0:
            raise TakenOver(f"another upload of {self.artifact.sha256} has begun; this one has lost its place")

    def _close_fd(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(fd, view, offset)
        view, offset = view[done:], offset + done


def _sync_file_system(folder: Path) -> bool:
    """One syncfs(2) for everything; false where the C library has none."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "syncfs"):
        return False
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, fd)
        if libc.syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    return True
