"""Under which users a capsule's first process and its task run: a pair of uids for each slot of a node. Pure.

Two tasks that run at the same time share no uid, since the kernel counts by it (processes, keys, inotify watches) and
decides by it who may signal whom. The first process has another one than its task, so that no call of the task that
names a process reaches it. gids are the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SLOTS: Final = 10_000
"""How many tasks can run at the same time on one node: as many as `max_concurrent_tasks` can be."""

_FIRST: Final = 60_600
_FEW: Final = 256
_FIRST_OF_MANY: Final = 1_900_000_000
"""uids that nobody assigns (systemd: 60578 to 61183 and 1879048192 to 2147483647). The first slots are below 65536,
which is all that a container has in an engine's user namespace."""

INSIDE_INIT: Final = 0
INSIDE_TASK: Final = 65534
"""What a sandbox sees of the pair: its user namespace maps these two, root there is nobody's root."""


@dataclass(frozen=True, slots=True)
class Users:
    """The uid of a capsule's first process and that of its task."""

    init: int
    task: int

    @property
    def id_map(self) -> str:
        """As the kernel takes it for a sandbox's user namespace (`/proc/PID/uid_map`)."""
        return f"{INSIDE_INIT} {self.init} 1\n{INSIDE_TASK} {self.task} 1\n"


def of_slot(slot: int) -> Users:
    """The pair of a slot, counted from 0. Raises ValueError where there is no such slot."""
    if not 0 <= slot < SLOTS:
        raise ValueError(f"slot {slot} is not between 0 and {SLOTS - 1}")
    first = (_FIRST if slot < _FEW else _FIRST_OF_MANY) + 2 * slot
    return Users(first, first + 1)
