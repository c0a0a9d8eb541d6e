"""Private folders: made for their user alone, checked up to the root, repaired where they are ours, else refused."""

from __future__ import annotations

import contextlib
import errno
import functools
import grp
import logging
import os
import pwd
import stat
import tempfile
from pathlib import Path

from hivemind_worker import errors
from hivemind_worker.filesystem import permissions

PRIVATE = 0o700
ENTERABLE = 0o711
"""Of a folder in which another user of ours (that of sandboxes) has folders of his own: entered, never listed."""

_MAX_LINKS = 40
_DEFAULT_ACL = "system.posix_acl_default"
_SYSTEM_FOLDERS = frozenset(
    Path(name)
    for name in (
        *("/", "/dev", "/dev/shm", "/etc", "/home", "/media", "/mnt", "/opt", "/proc", "/root", "/run", "/srv", "/sys"),  # noqa: S108  (named to be left alone)
        *("/tmp", "/usr", "/usr/local", "/var", "/var/cache", "/var/lib", "/var/log", "/var/opt", "/var/run"),  # noqa: S108
        *("/var/spool", "/var/tmp", "/run/lock"),  # noqa: S108
    )
)
"""Folders that a system has for everybody: they are never closed to others, whoever owns them."""

log = logging.getLogger(__name__)


class NotPrivate(errors.BadSettings):
    """A folder or file that must be its user's alone is not, and is not ours to repair."""


def make(folder: Path, *, spare_shared: bool = False) -> Path:
    """Make a folder that its user alone can enter, where there is none; check and repair the one that is there.

    Returns it without symbolic links. ``spare_shared``: a folder that others use too, such as /var/log, is left as it
    is, for whoever makes each file in it private. Blocks. Raises :class:`NotPrivate`, OSError.
    """
    trust = _trust()
    real = _made(folder, PRIVATE, trust)
    status = _status(real)
    if not stat.S_ISDIR(status.mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(real))
    if problem := permissions.folder_problem(status, trust):
        if spare_shared:
            return real
        raise _refused(folder, real, problem)
    if status.is_open:
        if reason := _sharing(real, trust):
            if spare_shared:
                return real
            raise NotPrivate(f"{real} is open to other users and {reason}: name a folder that is HiveMind's alone")
        _close(real, status)
    return real


def make_enterable(folder: Path) -> Path:
    """Make a folder that other users may enter but not write to, where there is none; one that is there stays open.

    A sticky one will do, such as /var/tmp. Returns it without symbolic links. Blocks. Raises :class:`NotPrivate`,
    OSError.
    """
    trust = _trust()
    real = _made(folder, ENTERABLE, trust)
    if problem := permissions.way_problem(_status(real), trust):
        raise _refused(folder, real, problem)
    return real


def make_parent(file: Path) -> None:
    """Make the folder of a private file that may lie anywhere: only nobody else may be able to replace it there.

    Blocks. Raises :class:`NotPrivate`, OSError.
    """
    trust = _trust()
    real = _made(file.parent, PRIVATE, trust)
    if problem := permissions.way_problem(_status(real), trust):
        raise _refused(file.parent, real, problem)


def make_sub(folder: Path) -> None:
    """Make a folder within a private one that `make` has checked; nothing is looked at again. Raises OSError."""
    folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)


def make_public(folder: Path) -> None:
    """Make a folder that everybody may read, with its parents: for what sandboxes' own user needs. Raises OSError."""
    for each in reversed((folder, *folder.parents)):
        if not each.exists():
            each.mkdir(exist_ok=True)
            each.chmod(0o755)


def temporary(prefix: str) -> Path:
    """Make a private folder of a new name where temporary files go. Blocks. Raises :class:`NotPrivate`, OSError."""
    trust = _trust()
    parent = Path(tempfile.gettempdir())
    _resolved(parent, trust)
    if problem := permissions.way_problem(_status(parent), trust):
        raise NotPrivate(f"TMPDIR {parent} {problem}: name another folder with TMPDIR")
    return Path(tempfile.mkdtemp(prefix=prefix, dir=parent))


def workspace(prefix: str, parent: Path) -> Path:
    """Make a private folder of a new name in ``parent``, which `make_enterable` has checked. Raises OSError."""
    return Path(tempfile.mkdtemp(prefix=prefix, dir=parent))


def _made(folder: Path, mode: int, trust: permissions.Trust) -> Path:
    folder = folder.absolute()
    existing = folder
    while not _is_there(existing):
        existing = existing.parent
    real = _resolved(existing, trust)
    for name in folder.relative_to(existing).parts:
        if problem := permissions.way_problem(_status(real), trust):
            raise _refused(folder, real, problem)
        real /= name
        with contextlib.suppress(FileExistsError):  # another process of ours makes the same one
            real.mkdir(mode=mode)
            real.chmod(mode)  # whatever the umask and the folder above have made of it
            with contextlib.suppress(OSError):  # there is none, or this file system has no such thing
                os.removexattr(real, _DEFAULT_ACL)
    return real


def _is_there(path: Path) -> bool:
    """Whether there is something, be it a link that leads nowhere."""
    return os.path.lexists(path)


def _resolved(path: Path, trust: permissions.Trust) -> Path:
    """Follow a path from the root, as nobody but ourselves and root could change it. Raises NotPrivate, OSError."""
    real = Path("/")
    rest = list(reversed(path.parts[1:]))
    links = 0
    while rest:
        if problem := permissions.way_problem(_status(real), trust):
            raise _refused(path, real, problem)
        name = rest.pop()
        if name == "..":
            real = real.parent
            continue
        step = real / name
        status = _status(step)
        if not stat.S_ISLNK(status.mode):
            real = step
            continue
        links += 1
        if links > _MAX_LINKS:
            raise NotPrivate(f"{path} leads through a ring of symbolic links: name a folder without them")
        if not trust.is_trusted(status.uid):
            raise NotPrivate(
                f"{step} is a symbolic link of another user (uid {status.uid}), who decides where it leads: remove it, "
                "or name another folder"
            )
        target = step.readlink()
        rest += reversed(target.parts[1:] if target.is_absolute() else target.parts)
        real = Path("/") if target.is_absolute() else real
    return real


def _status(path: Path) -> permissions.Status:
    found = path.lstat()
    return permissions.Status(found.st_mode, found.st_uid, found.st_gid, found.st_nlink)


def _sharing(folder: Path, trust: permissions.Trust) -> str:
    """Return why a folder is not ours alone although we own it; empty where it is."""
    if _status(folder).mode & stat.S_ISVTX or folder in _SYSTEM_FOLDERS:
        return "meant for everybody"
    with contextlib.suppress(KeyError):  # a user without an entry has no home folder
        if folder == Path(pwd.getpwuid(trust.user).pw_dir):
            return "the home folder of its user"
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                owner = entry.stat(follow_symlinks=False).st_uid
                if owner != trust.user:
                    return f"{entry.name} in it belongs to another user (uid {owner})"
    return ""


def _close(folder: Path, status: permissions.Status) -> None:
    try:
        folder.chmod(stat.S_IMODE(status.mode) & ~permissions.OTHERS | PRIVATE)
        still_open = _status(folder).is_open
    except PermissionError:
        still_open = True
    if still_open:
        raise NotPrivate(
            f"{folder} is open to other users (mode {stat.S_IMODE(status.mode):04o}), and its file system does not let "
            "that be changed: name a folder on one that keeps modes"
        )
    log.warning(
        "%s was open to other users (mode %04o): it is its owner's alone from now on; they may have read what was in "
        "it before",
        folder,
        stat.S_IMODE(status.mode),
    )


def _refused(folder: Path, at: Path, problem: str) -> NotPrivate:
    user = os.geteuid()
    if at == folder:
        return NotPrivate(f"{folder} {problem}: give it to the user who runs this (uid {user}), or name another folder")
    return NotPrivate(
        f"{folder} cannot be kept private: {at} on the way to it {problem}, who could replace it; name a folder in "
        f"which only root and the user who runs this (uid {user}) can write"
    )


def _trust() -> permissions.Trust:
    user = os.geteuid()
    return permissions.Trust(user, _own_groups(user), _unmapped())


@functools.cache
def _own_groups(user: int) -> frozenset[int]:
    """The group that a user has of his own, as many systems give one to each."""
    try:
        entry = pwd.getpwuid(user)
        group = grp.getgrgid(entry.pw_gid)
    except KeyError:
        return frozenset()
    is_own = group.gr_name == entry.pw_name and set(group.gr_mem) <= {entry.pw_name}
    return frozenset({entry.pw_gid} if is_own else ())


@functools.cache
def _unmapped(
    uid_map: Path = Path("/proc/self/uid_map"), overflow: Path = Path("/proc/sys/kernel/overflowuid")
) -> int | None:
    """Who owns, as it looks from here, what belongs to users that a user namespace has no number for; None outside."""
    try:
        ranges = [line.split() for line in uid_map.read_text(encoding="ascii").splitlines()]
        covered = sum(int(fields[2]) for fields in ranges)
        return int(overflow.read_text(encoding="ascii")) if covered < 2**32 - 1 else None
    except (OSError, ValueError, IndexError):
        return None
