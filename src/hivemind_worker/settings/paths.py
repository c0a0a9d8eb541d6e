"""Where things are kept when nobody says: /etc, /var/lib and /var/log for root, the XDG folders for anyone else."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import platformdirs

NAME = "hivemind"


def is_root() -> bool:
    """Whether this process owns the machine (never on Windows: there the user's folders are used)."""
    return sys.platform != "win32" and os.geteuid() == 0


def config_files() -> tuple[Path, ...]:
    """The settings files looked for, best first; the first that exists is read, and only that one."""
    system = Path("/etc") / NAME / f"{NAME}.toml"
    if is_root():
        return (system,)
    return (platformdirs.user_config_path(NAME, appauthor=False) / f"{NAME}.toml", system)


def state_dir() -> Path:
    """What must survive a restart: identity, journal, results not yet acknowledged, the pool's store."""
    return Path("/var/lib") / NAME if is_root() else platformdirs.user_state_path(NAME, appauthor=False)


def cache_dir() -> Path:
    """What can be had again: environments, packages."""
    return Path("/var/cache") / NAME if is_root() else platformdirs.user_cache_path(NAME, appauthor=False)


def log_dir() -> Path:
    """The rotated log files."""
    return Path("/var/log") / NAME if is_root() else platformdirs.user_log_path(NAME, appauthor=False)
