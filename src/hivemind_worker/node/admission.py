"""What fits: reservations against the machine's capacity and the number of tasks at once. Pure, no I/O, no clock."""

from __future__ import annotations

from collections.abc import Hashable

from hivemind_worker.task import resources

AS_MANY_AS_FIT = 64
"""How many tasks one answer of the pool may bring where the owner set no number: its size, not a limit on the node."""


class Admission:
    """Reservations, which together never exceed ``capacity``, and are never more than ``max_tasks`` (0: any number)."""

    def __init__(self, capacity: resources.Resources, max_tasks: int) -> None:
        self.capacity = capacity
        self.max_tasks = max_tasks
        self._reserved: dict[Hashable, resources.Resources] = {}

    def never(self, needs: resources.Resources) -> str:
        """Say why ``needs`` can never be met here, even with nothing else running; empty when they can."""
        return "; ".join(needs.lacking(self.capacity))

    def reserve(self, key: Hashable, needs: resources.Resources) -> bool:
        """Reserve ``needs`` for ``key`` if they fit now; false, and nothing reserved, if not.

        Raises ValueError where ``key`` has a reservation already.
        """
        if key in self._reserved:
            raise ValueError(f"{key} has a reservation already")
        if not self._slot_free or not needs.fits(self.free):
            return False
        self._reserved[key] = needs
        return True

    def release(self, key: Hashable) -> None:
        """Give back what is reserved for ``key``; nothing happens where nothing is."""
        self._reserved.pop(key, None)

    @property
    def reserved(self) -> resources.Resources:
        """The sum of all reservations."""
        return sum(self._reserved.values(), resources.Resources())

    @property
    def free(self) -> resources.Resources:
        """What is left of the capacity."""
        return self.capacity - self.reserved

    @property
    def slots(self) -> int:
        """How many more tasks may come at once, by their number alone."""
        return max(self.max_tasks - len(self._reserved), 0) if self.max_tasks else AS_MANY_AS_FIT

    @property
    def full(self) -> bool:
        """Whether no further task can fit, however small: no slot, no core or no memory is left."""
        free = self.free
        # A hundredth of a core is the least a task can ask for (cpu_quota 1000).
        return not self._slot_free or free.cpu_cores < 0.01 or free.memory_bytes <= 0

    @property
    def _slot_free(self) -> bool:
        return not self.max_tasks or len(self._reserved) < self.max_tasks
