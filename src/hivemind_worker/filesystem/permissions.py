"""Who may change or read what: judged from owners and modes alone. Pure.

An ACL needs no look of its own: the group bits of a mode are the most that any named user of a POSIX ACL may.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass

OTHERS = 0o077


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose files are trusted: this process's user's, root's, and in a container those of nobody that it can name.

    ``own_groups``: groups that nobody else is in.
    """

    user: int
    own_groups: frozenset[int] = frozenset()
    unmapped: int | None = None

    def is_trusted(self, uid: int) -> bool:
        """Whether this user may replace what is ours: he could do so anyway."""
        return uid in {self.user, 0} or uid == self.unmapped


def way_problem(status: Status, trust: Trust) -> str:
    """Return how somebody else could replace what lies in a folder on the way to ours; empty where nobody can.

    A sticky folder lets each user replace his own entries alone. A folder of root's that a group may write to is the
    administrator's decision, as /var/log is in some distributions.
    """
    if not trust.is_trusted(status.uid):
        return f"belongs to another user (uid {status.uid})"
    if not stat.S_ISDIR(status.mode) or status.mode & stat.S_ISVTX:
        return ""
    if status.mode & stat.S_IWOTH:
        return "may be written to by everybody"
    if status.mode & stat.S_IWGRP and status.uid and status.gid not in trust.own_groups:
        return f"may be written to by others of the group {status.gid}"
    return ""


def folder_problem(status: Status, trust: Trust) -> str:
    """Return why a folder cannot be this user's private one, whatever its mode; empty where it can."""
    return "" if status.uid == trust.user else f"belongs to another user (uid {status.uid})"


def file_problem(status: Status, user: int, *, writes: bool) -> str:
    """Return why a file cannot be this user's private one, whatever its mode; empty where it can."""
    if not stat.S_ISREG(status.mode):
        return "is no regular file"
    if status.uid != user:
        return f"belongs to another user (uid {status.uid})"
    if writes and status.links > 1:
        return f"has {status.links} names (hard links): what is written there would appear under each"
    return ""


@dataclass(frozen=True, slots=True)
class Status:
    """What is looked at of a file or folder."""

    mode: int
    uid: int
    gid: int = 0
    links: int = 1

    @property
    def is_open(self) -> bool:
        """Whether somebody else may read, list, write or enter it."""
        return bool(self.mode & OTHERS)
