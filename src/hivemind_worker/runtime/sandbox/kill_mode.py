"""Whether sandboxes can outlive their worker here: systemd may end all of a unit with it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path


def missing() -> str:
    """Say why sandboxes cannot outlive their worker here; empty where they can."""
    if getattr(sys, "frozen", False):
        return "this build carries no Python of its own to hold them"
    unit = next((part for part in _cgroup().split("/")[::-1] if part.endswith(".service")), "")
    if unit and os.environ.get("INVOCATION_ID") and _kill_mode(unit) != "process":
        return f"systemd ends everything of {unit} with it (KillMode)"
    return ""


def _cgroup() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/self/cgroup").read_text(encoding="utf-8").strip()
    return ""


def _kill_mode(unit: str) -> str:
    try:
        command = ["systemctl", "show", "--property=KillMode", "--value", unit]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=5).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
