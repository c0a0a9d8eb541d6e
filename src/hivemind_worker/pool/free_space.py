"""Whether the pool's disks could take the result of another task, by their free room and by writes that failed.

A pool whose disk is full and that goes on handing out has every node run tasks whose results nobody can take. So it
hands out nothing below a mark, or after a write that failed until one succeeds, and says why; it recovers by itself.
"""

from __future__ import annotations

import asyncio
import errno
import os
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from hivemind_worker import errors
from hivemind_worker.concurrency import periodic, stopping
from hivemind_worker.filesystem import private_file
from hivemind_worker.pool import readiness
from hivemind_worker.units import MIB

LOOK_SECONDS = 2.0
"""From one look to the next: a system call for each disk."""

MIN_FREE_BYTES = 256 * MIB
"""The default mark: as many results as a hundred attempts leave behind that are on their way when it is reached."""

MAX_PART = 0.05
"""Never more than a twentieth of the disk, of its bytes and of its inodes: a small disk is no full one."""

MIN_FREE_INODES = 10_000

AGAIN = 1.25
"""How much more than the mark must be free until the pool is ready again: it must not flutter."""

_PROBE_BYTES = 64 * 1024
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})


class FreeSpace:
    """One loop over the pool's folders; ``probe_folder`` is where a failed write is tried again."""

    def __init__(
        self,
        folders: Sequence[Path],
        probe_folder: Path,
        ready: readiness.Readiness,
        min_free_bytes: int = MIN_FREE_BYTES,
        stat: Callable[[Path], os.statvfs_result] = os.statvfs,
    ) -> None:
        self._folders = tuple(folders)
        self._probe_folder = probe_folder
        self._readiness = ready
        self._min_free_bytes = min_free_bytes
        self._stat = stat
        self._low: set[str] = set()
        self._is_failing = False

    async def run(self, stop: stopping.Stop) -> None:
        """Look until the stop."""
        async for _ in periodic.every(LOOK_SECONDS, stop):
            await self.look()

    async def look(self) -> None:
        """One look at each disk, and a write where the last one failed."""
        for folder in self._folders:
            cause = f"disk of {folder}"
            reason = await asyncio.to_thread(self._lacking, folder, cause in self._low)
            if reason:
                self._low.add(cause)
                self._readiness.set_unready(cause, reason)
            else:
                self._low.discard(cause)
                self._readiness.set_ready(cause)
        if self._is_failing and await asyncio.to_thread(self._can_write):
            self._is_failing = False
            self._readiness.set_ready("writes")

    def write_failed(self, error: OSError) -> None:
        """Take note that a file could not be written, where that is the disk's fault."""
        if error.errno in _FULL:
            self._is_failing = True
            reason = f"files cannot be written to {self._probe_folder}: {error.strerror}; it is tried again and again"
            self._readiness.set_unready("writes", reason)

    def need(self, size: int, *, spare_results: bool) -> None:
        """Make sure that a file of so many bytes has room; with ``spare_results`` above the mark. Blocks.

        Raises :class:`errors.Unavailable`: it is refused before it has come, and may fit later.
        """
        disk = self._stat(self._probe_folder)
        free = disk.f_bavail * disk.f_frsize
        mark = self._marks(disk)[0] if spare_results else 0
        if free - size < mark:
            raise errors.Unavailable(
                f"the pool's disk has {free // MIB} MiB free; a file of {size} bytes has no room there now"
            )

    def _marks(self, disk: os.statvfs_result) -> tuple[int, int]:
        free_bytes = min(self._min_free_bytes, int(disk.f_blocks * disk.f_frsize * MAX_PART))
        return free_bytes, min(MIN_FREE_INODES, int(disk.f_files * MAX_PART))  # a disk without a number says 0

    def _lacking(self, folder: Path, was_low: bool) -> str:  # noqa: FBT001  (called in a thread, by position)
        try:
            disk = self._stat(folder)
        except OSError as error:
            return f"{folder} cannot be looked at: {error.strerror}"
        factor = AGAIN if was_low else 1.0
        free, (min_bytes, min_inodes) = disk.f_bavail * disk.f_frsize, self._marks(disk)
        if free < min_bytes * factor:
            return f"the disk of {folder} has {free // MIB} MiB free, less than pool_min_free_bytes: make room there"
        if disk.f_favail < min_inodes * factor:
            return f"the disk of {folder} has {disk.f_favail} inodes free, less than {min_inodes}: make room there"
        return ""

    def _can_write(self) -> bool:
        path = self._probe_folder / f"probe-{uuid.uuid4().hex}.part"
        try:
            fd = private_file.open_fd(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            try:
                os.write(fd, bytes(_PROBE_BYTES))
                os.fsync(fd)
            finally:
                os.close(fd)
                path.unlink()
        except OSError:
            return False
        return True
