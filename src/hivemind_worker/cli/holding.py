"""One worker per state folder: a second one would clear away what the first still needs."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from hivemind_worker import errors
from hivemind_worker.filesystem import private_dir, private_file
from hivemind_worker.settings import state_lock

FILE_NAME = "worker.lock"


@contextlib.contextmanager
def folder(state_dir: Path) -> Iterator[state_lock.StateLock]:
    """Hold ``state_dir`` within this block, and give its lock; the kernel lets go of it when the process ends.

    Raises :class:`errors.StateInUse` where another worker holds it, :class:`errors.BadSettings` where it cannot be
    written or locked.
    """
    try:
        private_dir.make(state_dir)
        handle = private_file.open_fd(state_dir / FILE_NAME, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise errors.BadSettings(
            f"state_dir {state_dir} cannot be written ({error.strerror}): make it writable, or set another"
        ) from None
    try:
        _lock(handle, state_dir)
        yield state_lock.StateLock(handle)
    finally:
        os.close(handle)


def _lock(handle: int, state_dir: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise errors.StateInUse(
            f"another worker uses {state_dir}: stop it, or give this one a --state-dir of its own"
        ) from None
    except OSError as error:
        raise errors.NoFileLocks(state_dir, error) from None
