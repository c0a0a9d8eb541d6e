"""Another user of this machine, who lists, reads and connects to whatever he can below some folders."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UID = 54321

_LOOK = """
import os, socket, stat, sys
for top in sys.argv[1:]:
    for folder, folders, files in os.walk(top):
        if folders or files:
            print("listed", folder)
        for name in files:
            path = os.path.join(folder, name)
            if stat.S_ISSOCK(os.lstat(path).st_mode):
                for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
                    try:
                        socket.socket(socket.AF_UNIX, kind).connect(path)
                        print("connected", path)
                    except OSError:
                        pass
            elif os.access(path, os.R_OK) or os.access(path, os.W_OK):
                print("read", path)
"""


def reach(*folders: Path) -> list[str]:
    """What the intruder got at; the folders must be reachable for him up to themselves."""
    for folder in folders:
        closed = [each for each in folder.parents if not each.stat().st_mode & stat.S_IXOTH]
        assert not closed, f"{closed} would keep everybody out whatever is tested"
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable
    done = subprocess.run(
        [python, "-I", "-S", "-c", _LOOK, *map(str, folders)],
        capture_output=True, text=True, check=True, user=UID, group=UID, extra_groups=[], cwd="/",
    )  # fmt: skip
    return done.stdout.splitlines()


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter and list, with such folders above it, as pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="open-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def plant(script: str, *arguments: Path) -> None:
    """Have the intruder run some Python."""
    subprocess.run(
        [shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable, "-I", "-S", "-c", script,
         *map(str, arguments)],
        check=True, user=UID, group=UID, extra_groups=[], cwd="/",
    )  # fmt: skip
