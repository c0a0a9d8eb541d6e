"""The umask of our own processes, which is 077, and that of the user, which holds for what he asks for as output."""

from __future__ import annotations

import os
import sys
from pathlib import Path

PRIVATE = 0o077

# It can only be read by setting it: once, while nothing of ours runs yet, and to the safer side for that moment.
USER = os.umask(PRIVATE)
"""What the user's shell had set as this process began."""
os.umask(USER)


def restrict() -> None:
    """Make whatever this process creates from now on its user's alone, and what its children create.

    For processes that are ours: a library leaves the umask of the program that uses it alone.
    """
    os.umask(PRIVATE)


def make_output_dir(folder: Path) -> None:
    """Make a folder for output that the user asked for, with its parents, as his own umask has it. Raises OSError."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        if sys.platform != "win32":
            each.chmod(0o777 & ~USER)
