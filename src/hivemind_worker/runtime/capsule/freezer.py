"""Freezes and thaws a capsule's control groups, v1 and v2."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

FREEZE_SECONDS: Final = 0.2
"""A process in the kernel may take long to freeze; after this the others are frozen, and it is not."""

_LOOK_SECONDS: Final = 0.005
_V1: Final = "freezer"
_V2: Final = ""


def freeze(folders: Mapping[str, Path]) -> bool:
    """Freeze the groups in ``folders``, by controller ("" is v2). Blocks up to FREEZE_SECONDS. Never raises.

    Returns whether a freeze was begun, so that `thaw` must follow.
    """
    if _V1 in folders:
        state, frozen = folders[_V1] / "freezer.state", "FROZEN"
        was_asked = _written(state, "FROZEN")
    elif _V2 in folders:
        state, frozen = folders[_V2] / "cgroup.events", "frozen 1"
        was_asked = _written(folders[_V2] / "cgroup.freeze", "1")
    else:
        return False
    if not was_asked:
        return False
    until = time.monotonic() + FREEZE_SECONDS
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            if frozen in state.read_text().splitlines():
                break
        time.sleep(_LOOK_SECONDS)
    return True


def thaw(folders: Mapping[str, Path]) -> None:
    """Let the processes of these groups run again, and die of the signals they were sent. Never raises."""
    if _V1 in folders:
        _written(folders[_V1] / "freezer.state", "THAWED")
    elif _V2 in folders:
        _written(folders[_V2] / "cgroup.freeze", "0")


def _written(file: Path, text: str) -> bool:
    try:
        with file.open("r+") as control:  # made by the kernel, never by us
            control.write(text)
    except OSError:
        return False
    return True
