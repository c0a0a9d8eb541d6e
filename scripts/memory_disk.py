"""A folder in memory for what tests write, where this machine has the right and the room: a tmpfs of this process.

Tests make and remove some ten thousand files, and wait for a disk at each durable write: on a disk in a virtual machine
that is a fifth of their time. What tests prove about disks they prove on disks that they make themselves; and
`make test-long` writes to the real one.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

NAME = "hmtmp-"
NEEDED_BYTES = 4 * 1024**3
"""Memory that must be available: much more than the 244 MiB that were seen to lie there at once."""
SIZE_BYTES = 64 * 1024**3
"""What the folder says that it has room for: nodes under test offer that to tasks, which ask for some GiB."""


@contextlib.contextmanager
def folder() -> Iterator[Path | None]:
    """Give an empty folder in memory, removed with all in it at the end; None where there is none to be had."""
    if os.geteuid() != 0 or _available_bytes() < NEEDED_BYTES:
        yield None
        return
    _remove_left()
    at = Path(tempfile.gettempdir()) / f"{NAME}{os.getpid()}"
    at.mkdir()
    options = f"size={SIZE_BYTES},mode=0755"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, NAME, at], capture_output=True, check=False)
    try:
        yield at if mounted.returncode == 0 else None
    finally:
        _remove(at)


def _available_bytes() -> int:
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return 0
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _remove_left() -> None:
    """Remove what processes left that were killed."""
    for at in Path(tempfile.gettempdir()).glob(f"{NAME}*"):
        pid = at.name.removeprefix(NAME)
        if pid.isdecimal() and not Path("/proc", pid).exists():
            _remove(at)


def _remove(at: Path) -> None:
    # Lazily: a test that failed may have left something that still has a file there open.
    subprocess.run(["umount", "--lazy", "--recursive", at], capture_output=True, check=False)
    with contextlib.suppress(OSError):
        at.rmdir()
