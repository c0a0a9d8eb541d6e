"""What fits: reservations against the machine's capacity and the number of tasks at once. Pure, no I/O, no clock."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from hivemind_worker.tasks import resources

AS_MANY_AS_FIT = 64
"""How many tasks one answer of the pool may bring where the owner set no number: its size, not a limit on the node."""


@dataclass(frozen=True, slots=True)
class _Reservation:
    needs: resources.Resources
    devices: tuple[str, ...]


class Admission:
    """Reservations, which together never exceed ``capacity``, and are never more than ``max_tasks`` (0: any number).

    ``now`` is what of the capacity there is at present: it shrinks where others take of the machine, and grows back.
    What is reserved stays reserved. ``devices`` names the GPUs; each is one attempt's alone.
    """

    def __init__(self, capacity: resources.Resources, max_tasks: int, devices: Sequence[str] = ()) -> None:
        self.capacity = capacity
        self.max_tasks = max_tasks
        self.now = capacity
        self._devices = tuple(devices)
        self._reserved: dict[Hashable, _Reservation] = {}

    def never(self, needs: resources.Resources) -> str:
        """Say why ``needs`` can never be met here, even with nothing else running; empty when they can."""
        return "; ".join(needs.lacking(self.capacity))

    def lacking(self, needs: resources.Resources) -> str:
        """Say why ``needs`` cannot be met now; empty when they can."""
        if not self._slot_free:
            return f"tasks: {self.max_tasks} at once (max_concurrent_tasks), {len(self._reserved)} are here"
        return "; ".join(needs.lacking(self.free))

    def reserve(self, key: Hashable, needs: resources.Resources) -> bool:
        """Reserve ``needs`` for ``key`` if they fit now; false, and nothing reserved, if not.

        Raises ValueError where ``key`` has a reservation already.
        """
        if key in self._reserved:
            raise ValueError(f"{key} has a reservation already")
        if self.lacking(needs):
            return False
        taken = {device for each in self._reserved.values() for device in each.devices}
        left = [device for device in self._devices if device not in taken]
        self._reserved[key] = _Reservation(needs, tuple(left[: needs.gpus]))
        return True

    def keep(self, key: Hashable, needs: resources.Resources, devices: Sequence[str] = ()) -> None:
        """Reserve ``needs`` and these very GPUs for what runs already, whether they fit or not."""
        self._reserved[key] = _Reservation(needs, tuple(devices))

    def devices(self, key: Hashable) -> tuple[str, ...]:
        """Name the GPUs that ``key`` has reserved, by their ids."""
        found = self._reserved.get(key)
        return () if found is None else found.devices

    def release(self, key: Hashable) -> None:
        """Give back what is reserved for ``key``; nothing happens where nothing is."""
        self._reserved.pop(key, None)

    def resize(self, now: resources.Resources) -> None:
        """Say what of the capacity there is at present; more than the capacity is never given out."""
        self.now = now.at_most(self.capacity)

    def adopt(self, capacity: resources.Resources, max_tasks: int) -> None:
        """Be of another size. Where it grows, what there is at present grows with the next `resize`."""
        self.capacity, self.max_tasks, self.now = capacity, max_tasks, self.now.at_most(capacity)

    @property
    def reserved(self) -> resources.Resources:
        """The sum of all reservations."""
        return sum((each.needs for each in self._reserved.values()), resources.Resources())

    @property
    def free(self) -> resources.Resources:
        """What is left of what there is at present; never less than nothing."""
        return (self.now - self.reserved).at_least(resources.Resources())

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
