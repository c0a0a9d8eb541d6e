"""Slots of a node: each attempt that runs has one, and with it users that no other attempt has meanwhile."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from hivemind_worker import errors
from hivemind_worker.runtime.capsule import users

KEY: Final = "slot"
"""Of a capsule's slot, in what is recorded of it for the next process."""


class Slots:
    """Which are in use; an executor has one of these. One event loop."""

    def __init__(self) -> None:
        self._used: set[int] = set()

    def take(self) -> int:
        """Return the lowest that is free; it is the caller's to `release`. Raises NodeFault."""
        free = next((slot for slot in range(users.SLOTS) if slot not in self._used), None)
        if free is None:
            raise errors.NodeFault(f"{users.SLOTS} tasks run here already, and each needs a user of its own")
        self._used.add(free)
        return free

    def reserve_of(self, capsules: Collection[Mapping[str, str]]) -> None:
        """Mark as used what an earlier process recorded of its capsules."""
        self._used.update(int(capsule[KEY]) for capsule in capsules if KEY in capsule)

    def release(self, slot: int | None) -> None:
        """Give it back, where there is one: nothing runs under its users any more."""
        self._used.discard(-1 if slot is None else slot)
