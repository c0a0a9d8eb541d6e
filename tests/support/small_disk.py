"""A disk of a few MiB that can be filled to the last byte and emptied again: a tmpfs of the test's own."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

PIECE = bytes(1024 * 1024)


def can_mount() -> bool:
    """Whether this process may mount."""
    return os.geteuid() == 0


class SmallDisk:
    """A file system at ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    @property
    def free_inodes(self) -> int:
        """How many files may still be made."""
        return os.statvfs(self.path).f_favail

    @property
    def free_bytes(self) -> int:
        """What is left."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def fill(self, leave_bytes: int = 0) -> None:
        """Leave so many bytes, in whole pages."""
        with contextlib.suppress(OSError), self._filler.open("ab", buffering=0) as file:
            while True:
                # A piece that does not fit whole is written as far as it does; the next one fails.
                file.write(PIECE)
        os.truncate(self._filler, self._filler.stat().st_size - leave_bytes)

    def remount(self, *, read_only: bool) -> None:
        """Let nothing be written to it any more, as a kernel does with a disk that fails; or be written again."""
        mode = "ro" if read_only else "rw"
        subprocess.run(["mount", "-o", f"remount,{mode}", str(self.path)], check=True)

    def clear(self) -> None:
        """Give back what `fill` took."""
        self._filler.unlink(missing_ok=True)


@contextlib.contextmanager
def mounted(path: Path, mebibytes: int, inodes: int = 0) -> Iterator[SmallDisk]:
    """Have it within this block, with so many inodes (0: as many as usual); everything on it is gone afterwards."""
    path.mkdir(parents=True, exist_ok=True)
    options = f"size={mebibytes}m,mode=0711"
    options += f",nr_inodes={inodes}" if inodes else ""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "hivemind-test", str(path)], check=True)
    try:
        yield SmallDisk(path)
    finally:
        # Lazily: a process that is just ending may still have a file open.
        subprocess.run(["umount", "--lazy", str(path)], check=True)
