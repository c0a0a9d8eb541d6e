"""A disk of a few MiB that can be filled to the last byte and emptied again: a tmpfs, or a quota on a Btrfs."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

PIECE = bytes(1024 * 1024)


def can_mount() -> bool:
    """Whether this process may mount."""
    return os.geteuid() == 0


def can_set_quota() -> bool:
    """Whether this process may mount, and has what makes a Btrfs."""
    return can_mount() and shutil.which("mkfs.btrfs") is not None and "btrfs" in Path("/proc/filesystems").read_text()


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
        if leave_bytes:
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


class Quota(SmallDisk):
    """A folder at ``path`` that may have so much, on a disk that has room."""

    def clear(self) -> None:
        """Give back what `fill` took: a quota counts it until the file system's next commit."""
        super().clear()
        subprocess.run(["btrfs", "filesystem", "sync", str(self.path)], check=True, capture_output=True)


@contextlib.contextmanager
def under_quota(path: Path, mebibytes: int) -> Iterator[Quota]:
    """Have a folder within this block whose writes end with EDQUOT at so much; `statvfs` knows nothing of that."""
    with tempfile.TemporaryDirectory() as beside:
        image, point = Path(beside, "image"), Path(beside, "disk")
        with image.open("wb") as file:
            file.truncate(256 * 1024**2)  # the least that a Btrfs needs is 109 MiB
        point.mkdir()
        subprocess.run(["mkfs.btrfs", "--quiet", str(image)], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(point)], check=True)
        try:
            folder = point / "folder"
            for arguments in (
                ["quota", "enable", str(point)],
                ["subvolume", "create", str(folder)],
                ["qgroup", "limit", f"{mebibytes}M", str(folder)],
            ):
                subprocess.run(["btrfs", *arguments], check=True, capture_output=True)
            path.symlink_to(folder)
            yield Quota(folder)
        finally:
            subprocess.run(["umount", "--lazy", str(point)], check=True)
