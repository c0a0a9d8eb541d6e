"""When a task was started, in a form that another worker process on this machine can use; for `checkpoint`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


def encode(at: float) -> str:
    """Return a moment of the monotonic clock together with the boot of the machine that it counts from."""
    return f"{_boot()} {at:.3f}"


def decode(text: str) -> float | None:
    """Return the moment on this machine's monotonic clock; None for one of another boot, or of another machine."""
    boot, _, at = text.partition(" ")
    if boot and boot == _boot():
        with contextlib.suppress(ValueError):
            return float(at)
    return None


def _boot() -> str:
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return ""
