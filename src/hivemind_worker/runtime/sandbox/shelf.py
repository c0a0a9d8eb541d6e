"""The environments and packages that lie in the cache: listed with their last use, removed when nobody is in them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hivemind_worker.runtime.environments import staging

_ABOUT: Final = staging.ABOUT
_MAKING: Final = staging.MAKING


@dataclass(frozen=True, slots=True)
class Lying:
    """One that lies there: what is in it, its bytes, its last use (Unix seconds), and whether somebody is in it."""

    folder: Path
    contents: tuple[str, ...]
    size: int
    last_used: float
    in_use: bool


class Shelf:
    """What one cache folder holds, whoever made it. Calls block on the disk."""

    def __init__(self, cache: Path) -> None:
        self._environments = cache / "environments"
        self.downloads = cache / "downloads"

    def environments(self) -> list[Lying]:
        """Every whole environment."""
        found = []
        for about in self._environments.glob(f"[!.]*/{_ABOUT}"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # gone meanwhile, or none of ours
                said, known = json.loads(about.read_text(encoding="utf-8")), about.stat()
                with _locked(about.parent) as free:
                    contents = tuple(str(each) for each in said["contents"])
                    found.append(Lying(about.parent, contents, int(said["bytes"]), known.st_mtime, not free))
        return found

    def remove(self, lying: Lying) -> bool:
        """Remove one; false when somebody is in it, or has been since it was listed. Raises OSError."""
        with _locked(lying.folder) as free:
            about = lying.folder / _ABOUT
            if not free or about.stat().st_mtime != lying.last_used:
                return False
            about.unlink()  # from now on it counts as not there, also for who waits for our lock
            going = lying.folder.with_name(f"{_MAKING}{uuid.uuid4().hex}")  # what is left of it a dead worker's
            lying.folder.rename(going)
            shutil.rmtree(going)
        return True

    def making(self) -> bool:
        """Whether an environment is being made now, which reads and writes the packages."""
        for folder in self._environments.glob(f"{_MAKING}*"):
            with contextlib.suppress(OSError), _locked(folder) as free:
                if not free:
                    return True
        return False

    def remove_downloads(self) -> bool:
        """Remove the packages; false while an environment is being made. Raises OSError."""
        if self.making() or not self.downloads.exists():
            return False
        going = self.downloads.with_name(f"downloads-{uuid.uuid4().hex}.gone")
        self.downloads.rename(going)
        shutil.rmtree(going)
        return True


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Hold the folder alone within this block, if nobody else is in it; gives whether that is so. Raises OSError."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(lock)
