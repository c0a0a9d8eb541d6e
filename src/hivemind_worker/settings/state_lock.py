"""The lock of a state folder: an id that no copy of the folder has, and whether the folder is a copy."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Return the id that the kernel gave itself when the machine was started; empty where it gives none."""
    with contextlib.suppress(OSError):
        return _BOOT_ID.read_text(encoding="ascii").strip()
    return ""


class StateLock:
    """A lock file that this process has locked; ``handle`` is its open file, which stays the caller's."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        status = os.fstat(handle)
        self._place = f"{status.st_dev} {status.st_ino}"
        written = os.pread(handle, 100, 0).decode(errors="replace").strip()
        self.is_copy = bool(written) and written != self._place
        """Whether the folder was copied, restored or moved: the worker it was copied from may be alive."""
        if not written:
            self.take_over()

    @property
    def id(self) -> str:
        """Name the lock: 64 hexadecimal characters, of this boot of the kernel and the file's inode.

        Who shows the same id has locked the same file, so that whoever held it before is dead.
        """
        return self.id_under(boot_id())

    def id_under(self, boot: str) -> str:
        """Return the id that it has, or had, under a boot of the kernel."""
        return hashlib.sha256(f"{boot} {self._place}".encode()).hexdigest()

    def take_over(self) -> None:
        """Write down that the folder is its own original from now on. A disk that is full leaves it a copy."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, f"{self._place}\n".encode(), 0)
            self.is_copy = False
