"""Log files that were put aside: those whose name is one of ours and whose content is too."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from hivemind_worker.telemetry import logs as telemetry
from hivemind_worker.worker.housekeeping import disks, policy

_LONGEST_LINE = 256 * 1024  # an event has 32 KiB of characters at most; escaped, each may be six bytes


class Logs:
    """The place of log files in one folder, which others may use as well. ``names`` are those we write under."""

    name = "logs"

    def __init__(self, folder: Path, names: Collection[str]) -> None:
        self._folder = folder
        self._ours = re.compile(rf"(?:{'|'.join(map(re.escape, names))})\.log\.\d+")

    async def look(self) -> Sequence[policy.Thing]:
        """Tell of the files that were put aside; the one that is written to is never among them."""
        return await asyncio.to_thread(self._look)

    async def remove(self, thing: policy.Thing) -> bool:
        """Remove one; false when another has been put in its place meanwhile."""
        return await asyncio.to_thread(self._remove, thing)

    def _look(self) -> list[policy.Thing]:
        try:
            found = [path for path in self._folder.iterdir() if self._ours.fullmatch(path.name)]
        except FileNotFoundError:
            return []
        disk = disks.of(self._folder)
        things = []
        for path in found:
            about = path.lstat()
            held = "" if _is_ours(path) else "not ours: its first line is no event of this program"
            things.append(
                policy.Thing(
                    kind=policy.Kind.LOG,
                    name=str(path),
                    size_bytes=about.st_size,
                    last_used=about.st_mtime,
                    disk=disk,
                    held=held,
                )
            )
        return things

    def _remove(self, thing: policy.Thing) -> bool:
        path = Path(thing.name)
        if path.lstat().st_mtime != thing.last_used or not _is_ours(path):
            return False  # rotated meanwhile: this name is a younger file's now
        path.unlink()
        return True


def _is_ours(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        first = file.readline(_LONGEST_LINE)
    try:
        said = json.loads(first)
    except ValueError:
        return False
    return isinstance(said, dict) and {"timestamp", "event_type", "details"} <= said.keys() <= set(telemetry.KEYS)
