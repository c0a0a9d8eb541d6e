"""The first process of a capsule, as the host sees it."""

from __future__ import annotations

from pathlib import Path


def of_task(words: bytes) -> int:
    """The PID 1 of the capsule whose task has this command line, as the host numbers it; 0 where there is none."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if (folder / "cmdline").read_bytes() == words:
                    return int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    return 0
