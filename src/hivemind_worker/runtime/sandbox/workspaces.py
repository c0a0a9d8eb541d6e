"""Workspaces too large for memory: folders on a disk, each for one attempt, locked while it lasts, removed after it.

Each lies in a sticky folder that everyone may enter (the sandbox is made by an unprivileged user, who could not reach
the worker's own folders), under a name that cannot be guessed, open to its user alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hivemind_worker import errors
from hivemind_worker.filesystem import private_dir
from hivemind_worker.runtime.sandbox import reach

_PREFIX: Final = "hivemind-workspace-"

YOUNG_SECONDS: Final = 60.0
"""A folder younger than this may have been made a moment ago, its lock still to come."""


@dataclass(frozen=True, slots=True)
class Found:
    """A workspace that is there: since when it is as it is (Unix seconds), and whether its worker has died."""

    folder: Path
    changed_at: float
    abandoned: bool


class Workspace:
    """One folder. Made in a thread: it blocks on the disk."""

    def __init__(self, folder: Path) -> None:
        """Take up one that is there, and lock it. Raises OSError."""
        self.folder = folder
        # Held as long as we live, whoever we are: a folder that nobody has locked is a dead worker's.
        self.lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        fcntl.flock(self.lock, fcntl.LOCK_SH)

    @classmethod
    def made(cls, scratch: Path, owner: int | None) -> Workspace:
        """Make a new one that belongs to `owner`. Raises OSError."""
        workspace = None
        while workspace is None:
            # A sweep of another worker may come between making a folder and locking it.
            with contextlib.suppress(FileNotFoundError):
                workspace = cls._locked_before_a_sweep(private_dir.workspace(_PREFIX, scratch))
        if owner is not None:
            os.chown(workspace.lock, owner, owner)
        return workspace

    @classmethod
    def _locked_before_a_sweep(cls, folder: Path) -> Workspace | None:
        workspace = cls(folder)
        if folder.exists():
            return workspace
        os.close(workspace.lock)
        return None

    async def size(self) -> int:
        """How many bytes it has on disk. Raises OSError when that cannot be found out."""
        return await size_of(self.folder)

    async def remove(self) -> None:
        """Remove it with all that is in it; nobody lives in it any more. Raises OSError."""
        try:
            await remove(self.folder)
        finally:
            os.close(self.lock)


async def sweep(scratch: Path, owner: int | None) -> None:
    """Make the folder for them where there is none, and remove those of workers that died.

    Raises BadSettings where it cannot be made, or not be entered by `owner`, the user that sandboxes are made under.
    """
    try:
        await asyncio.to_thread(private_dir.make_enterable, scratch)
    except OSError as error:
        raise errors.BadSettings(f"temp_dir {scratch} cannot be made ({error.strerror}): set another") from None
    closed = None if owner is None else await asyncio.to_thread(reach.closed_to_others, scratch)
    if closed is not None:
        raise errors.BadSettings(
            f"temp_dir {scratch} is out of reach of the user that sandboxes are made under, uid {owner}: "
            f"`chmod o+x {closed}`, or set another"
        )
    for found in await asyncio.to_thread(there, scratch, 0.0):
        if found.abandoned:
            await remove_abandoned(found.folder)


async def size_of(folder: Path) -> int:
    """How many bytes a folder has on disk. Raises OSError when that cannot be found out."""
    du = ("du", "-s", "-x", "--block-size=1", "--", str(folder))
    quiet = asyncio.subprocess.DEVNULL
    asked = await asyncio.create_subprocess_exec(*du, stdin=quiet, stdout=asyncio.subprocess.PIPE, stderr=quiet)
    try:
        said, _ = await asked.communicate()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            asked.kill()
        await asked.wait()
        raise
    if not said:
        raise OSError(f"du cannot count {folder}")
    return int(said.split()[0])


def there(scratch: Path, young_seconds: float = YOUNG_SECONDS) -> list[Found]:
    """Tell of every workspace below ``scratch``; abandoned is what nobody has locked, once it is not young. Blocks."""
    found = []
    for folder in scratch.glob(f"{_PREFIX}*"):
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue  # gone meanwhile, or another user's
        changed_at = os.fstat(lock).st_ctime
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found.append(Found(folder, changed_at, time.time() - changed_at >= young_seconds))
        except BlockingIOError:
            found.append(Found(folder, changed_at, abandoned=False))
        finally:
            os.close(lock)
    return found


async def remove_abandoned(folder: Path) -> bool:
    """Remove one that nobody has locked, itself locked meanwhile; false where somebody has it. Raises OSError."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False  # gone meanwhile, or another user's
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        await remove(folder)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


async def remove(folder: Path) -> None:
    """Remove a folder by ordinary programs: they follow no links and need no memory, however deep. Raises OSError."""
    rm = (shutil.which("rm") or "rm", "-rf", "--one-file-system", "--", str(folder))
    open_up = ("chmod", "-R", "u+rwX", "--", str(folder))
    quiet = asyncio.subprocess.DEVNULL
    for argv in (rm, open_up, rm):  # a worker that is not root cannot pass folders that the task has closed
        done = await asyncio.create_subprocess_exec(*argv, stdin=quiet, stdout=quiet, stderr=quiet)
        await done.wait()
        if not await asyncio.to_thread(folder.exists):
            return
    raise OSError(f"{folder} could not be removed; remove it by hand")
