"""A folder in which one environment is made: locked while that lasts, so that a dead worker's can be told from ours."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from hivemind_worker.filesystem import private_dir, private_file

YOUNG_SECONDS: Final = 60.0
"""A folder younger than this may be somebody's who has not locked it yet."""

MAKING: Final = ".making-"
ABOUT: Final = "about.json"
ENVIRONMENT: Final = "environment"


class Staging:
    """One such folder beneath `parent`. Calls block."""

    def __init__(self, parent: Path) -> None:
        self.folder = parent / f"{MAKING}{uuid.uuid4().hex}"
        private_dir.make_public(self.folder)
        self._lock = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        for name in (ENVIRONMENT, "scratch", "cache", "wheels"):  # the places of what is bound in there, too
            private_dir.make_public(self.folder / name)

    @property
    def environment(self) -> Path:
        """What becomes the environment."""
        return self.folder / ENVIRONMENT

    def keep(self, place: Path, about: Mapping[str, Any]) -> None:
        """It is whole: have it in its place. Raises OSError."""
        for name in ("scratch", "cache", "wheels"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        private_file.write(self.folder / ABOUT, json.dumps(about))
        try:
            self.folder.rename(place)
        except OSError:
            if not place.exists():  # else another process has made the same one meanwhile: theirs stays
                raise
        fcntl.flock(self._lock, fcntl.LOCK_SH)

    def remove(self) -> None:
        """Remove what did not become an environment."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        shutil.rmtree(self.folder, ignore_errors=True)


def sweep(cache: Path) -> None:
    """Remove what dead workers left half made in a cache folder. Blocks."""
    for left in (cache / "environments").glob(f"{MAKING}*"):
        try:
            lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.time() - left.stat().st_mtime < YOUNG_SECONDS:
                continue  # made a moment ago, its lock may be still to come
            shutil.rmtree(left, ignore_errors=True)
        except BlockingIOError:
            pass  # in the making
        finally:
            os.close(lock)
