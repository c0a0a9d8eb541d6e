"""What every program is given: its settings, its limits, where results go; and how it refuses, in one line.

Runs inside the capsule, in the task's workspace.
"""

from __future__ import annotations

import errno
import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path("results")
PRIVATE = ".hivemind"
MIB = 1024 * 1024
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
"""How the system says that the workspace is full, by its own size or by a quota."""

INTERPRETER_BYTES = 96 * MIB
"""What Python and the libraries take before any data is there: measured, 60 to 90 MiB."""


class Refusal(Exception):
    """The data or the settings cannot be worked with; the message is the one line that the user reads."""


def run(work: Callable[[], int]) -> None:
    """Run a program and exit: with what it returns, or with 2 and one line on standard error."""
    RESULTS.mkdir(exist_ok=True)
    try:
        code = work()
    except Refusal as refusal:
        print(" ".join(str(refusal).split()), file=sys.stderr)
        code = 2
    except MemoryError:
        print("the data do not fit into this task's memory: give it a larger memory_limit", file=sys.stderr)
        code = 2
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        print("the workspace is full: give the task a larger disk_limit", file=sys.stderr)
        code = 2
    sys.stdout.flush()
    sys.exit(code)


def settings() -> dict[str, Any]:
    """What the task says, checked before it came here."""
    found: dict[str, Any] = json.loads(Path(PRIVATE, "settings.json").read_text(encoding="utf-8"))
    return found


def limits() -> dict[str, Any]:
    """The limits in force, as the task's description has them."""
    found: dict[str, Any] = json.loads(Path("task.json").read_text(encoding="utf-8")).get("limits", {})
    return found


def memory_for_data() -> int:
    """Bytes of memory that data may take: the limit without the interpreter, and without a workspace in memory."""
    known = limits()
    memory, disk = int(known.get("memory_bytes", 1024 * MIB)), int(known.get("disk_bytes", 512 * MIB))
    in_memory = disk if _workspace_in_memory() else 0
    return max(16 * MIB, memory - in_memory - INTERPRETER_BYTES)


def threads() -> int:
    """How many threads are of use: the cores of the quota, no more than there are."""
    quota = int(limits().get("cpu_quota", 100_000))
    return max(1, min(os.cpu_count() or 1, round(quota / 100_000)))


def write_json(name: str, content: object) -> None:
    """Write a result as JSON that any reader takes: numbers that are none become null."""
    text = json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False)
    (RESULTS / name).write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def shown(path: str) -> str:
    """How a file is called before the user: text inside the task has no path of theirs."""
    return "(text)" if path.startswith(f"{PRIVATE}/") else path


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return ""


def _workspace_in_memory() -> bool:
    here = os.getcwd()  # noqa: PTH109 - compared with the kernel's own spelling
    best, kind = "", ""
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
        _, folder, file_system, *_ = line.split(" ")
        if (here == folder or here.startswith(folder.rstrip("/") + "/")) and len(folder) >= len(best):
            best, kind = folder, file_system
    return kind in {"tmpfs", "ramfs"}


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    return str(value)  # dates, times, decimals
