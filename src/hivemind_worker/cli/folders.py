"""A private folder for as long as one command takes, and the removal of those whose commands were killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PREFIX = "hivemind-run-"

YOUNG_SECONDS = 60.0
"""A folder younger than this may have been made a moment ago, its lock still to come."""


@contextlib.contextmanager
def private() -> Iterator[Path]:
    """Have a folder of one's own within this block; it is removed in the end. Blocks on the disk. Raises OSError."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    # Held as long as we live: a folder that nobody has locked is that of a command that was killed.
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
        sweep(folder.parent)


def sweep(temporary: Path) -> None:
    """Remove the folders of commands that were killed and could not do it themselves: our own user's alone."""
    for folder in temporary.glob(f"{PREFIX}*"):
        # Gone meanwhile, another user's, or in use: not ours to remove.
        with contextlib.suppress(OSError), contextlib.ExitStack() as held:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            held.callback(os.close, lock)
            about = os.fstat(lock)
            if about.st_uid == os.geteuid() and time.time() - about.st_mtime > YOUNG_SECONDS:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
