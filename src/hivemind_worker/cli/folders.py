"""A private folder for as long as one command takes, and the removal of those whose commands were killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hivemind_worker.filesystem import private_dir

PREFIX = "hivemind-run-"


@contextlib.contextmanager
def private() -> Iterator[Path]:
    """Have a folder of one's own within this block; it is removed in the end. Blocks on the disk. Raises OSError.

    What killed commands left is removed first: their folders may be what fills the disk, and a command that is killed
    again and again never comes to its end.
    """
    sweep()
    folder, lock = _locked_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
        sweep()


def sweep() -> None:
    """Remove the folders of commands that were killed and could not do it themselves: our own user's alone. Blocks."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        # Gone meanwhile, another user's, or in use: not ours to remove.
        with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            opened.callback(os.close, lock)
            if os.fstat(lock).st_uid == os.geteuid():
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)


def _locked_folder() -> tuple[Path, int]:
    """Make a folder, locked as long as we live: one that nobody has locked is that of a command that was killed.

    Another, where the sweep of another command came between making and locking it.
    """
    while True:
        folder = private_dir.temporary(PREFIX)
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_SH)
            except OSError:
                os.close(lock)
                folder.rmdir()
                raise
            if folder.exists():
                return folder, lock
            os.close(lock)
