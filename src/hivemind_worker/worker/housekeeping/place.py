"""The Protocol of a place that housekeeping looks into: what is there, and how one thing of it is removed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hivemind_worker.worker.housekeeping import policy


class Place(Protocol):
    """Where things of ours lie."""

    @property
    def name(self) -> str:
        """What it is, for the log."""

    async def look(self) -> Sequence[policy.Thing]:
        """Tell what is there now. Raises NodeFault or OSError where it cannot be looked into."""

    async def remove(self, thing: policy.Thing) -> bool:
        """Remove a thing that `look` has told of; false if it turned out to be needed. Raises as `look`.

        Looks again at whatever may have changed: between the two somebody may have begun to use it.
        """
