"""Where things are kept when nobody says: /etc, /var/lib and /var/log for root, the XDG folders for anyone else."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import platformdirs

from hivemind_worker import errors

NAME = "hivemind"


def is_root() -> bool:
    """Whether this process owns the machine (never on Windows: there the user's folders are used)."""
    return sys.platform != "win32" and os.geteuid() == 0


def config_files() -> tuple[Path, ...]:
    """The settings files looked for, best first; the first that exists is read, and only that one."""
    system = Path("/etc") / NAME / f"{NAME}.toml"
    if is_root():
        return (system,)
    with contextlib.suppress(errors.BadSettings):
        return (_of_user(platformdirs.user_config_path) / f"{NAME}.toml", system)
    return (system,)


def state_dir() -> Path:
    """What must survive a restart: identity, journal, results not yet acknowledged, the pool's store."""
    return Path("/var/lib") / NAME if is_root() else _of_user(platformdirs.user_state_path)


def cache_dir() -> Path:
    """What can be had again: environments, packages."""
    return Path("/var/cache") / NAME if is_root() else _of_user(platformdirs.user_cache_path)


def log_dir() -> Path:
    """The rotated log files."""
    return Path("/var/log") / NAME if is_root() else _of_user(platformdirs.user_log_path)


def _of_user(folder: Callable[..., Path]) -> Path:
    """A folder in the user's home. Raises `errors.BadSettings` for a user without one: it would lie wherever we are."""
    try:
        path = folder(NAME, appauthor=False)
    except RuntimeError:
        path = Path()
    if not path.is_absolute():
        raise errors.BadSettings("this user has no home folder: set HOME, or state_dir, cache_dir and log_dir")
    return path
