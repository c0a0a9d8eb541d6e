"""What was asked before and which environment answered it: a file each, so that several processes may share them.

No more than a memory: what cannot be read is asked again, what cannot be written is asked again the next time.
"""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hivemind_worker.filesystem import private_dir, private_file

MOST: Final = 1_000
"""Files that are kept; the oldest go first."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The key of an environment, and when the names were resolved to it (Unix seconds)."""

    key: str
    resolved: float


class Answers:
    """The answers in one folder, made when first needed; without a folder nothing is kept. Calls block briefly."""

    def __init__(self, folder: Path | None = None) -> None:
        self.cache = folder
        """The folder of this machine's cache that they lie in, with what environments are made of."""
        self._folder = None if folder is None else folder / "answers"

    def get(self, asked: str) -> Answer | None:
        """What answered it last."""
        if self._folder is None:
            return None
        try:
            said = json.loads((self._folder / f"{asked}.json").read_text(encoding="utf-8"))
            return Answer(str(said["key"]), float(said["resolved"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def note(self, asked: str, key: str) -> None:
        """It was resolved now, to this."""
        if self._folder is None:
            return
        with contextlib.suppress(OSError, private_dir.NotPrivate):
            private_dir.make_enterable(self._folder.parent)
            private_dir.make(self._folder)
            fresh = self._folder / f"{uuid.uuid4().hex}.new"
            private_file.write(fresh, json.dumps({"key": key, "resolved": time.time()}))
            fresh.replace(self._folder / f"{asked}.json")
            self._forget_the_oldest()

    def _forget_the_oldest(self) -> None:
        assert self._folder is not None
        files = list(self._folder.iterdir())
        if len(files) > MOST:
            for file in sorted(files, key=lambda path: path.stat().st_mtime)[: len(files) - MOST]:
                file.unlink(missing_ok=True)
