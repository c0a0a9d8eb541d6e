"""What is left of the workers that wait, indexed so that finding one for a task looks at few of them.

A tree over the workers' places: each box knows the largest amounts and the best preference within, so a search for the
best worker goes to the best box first and leaves out those in which nothing fits. Sets of workers are bits of a number,
kept by label, by image and by family (kind and network). A change costs the depth of the tree.

`assignment.assign` searches it; `store.handing_out` has the waiting polls in one from commit to commit.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from hivemind_worker.pool.matching import shape_index
from hivemind_worker.tasks import resources

ANSWER_BYTES = 3 * 1024**2 + 512 * 1024
"""Most bytes of tasks in one answer: the 4 MiB of a message less 512 KiB; a larger single task travels alone."""

Family = tuple[str, str]

Preference = tuple[int, float, int]
"""Slots, cores and memory that are left: load spreads to whoever has most."""

Key = TypeVar("Key")


class SiteLike(Protocol):
    """What the index reads of a node."""

    @property
    def labels(self) -> Mapping[str, str]:
        """The node's labels."""


class WorkerLike(Protocol):
    """What the index reads of an `assignment.Worker`."""

    @property
    def site(self) -> SiteLike:
        """The node."""

    @property
    def free(self) -> resources.Resources:
        """What is left of it."""

    @property
    def slots(self) -> int:
        """How many tasks may come at once."""

    @property
    def images(self) -> frozenset[str]:
        """The images that it has."""


Worker = TypeVar("Worker", bound=WorkerLike)


@dataclass(frozen=True, slots=True)
class _Box:
    """The best of the workers below: each amount for itself."""

    preference: Preference
    amounts: shape_index.Amounts


class _Room:
    """What is still left of a worker while tasks are being given out."""

    __slots__ = ("amounts", "size", "slots", "worker")

    def __init__(self, worker: WorkerLike) -> None:
        self.worker = worker
        self.reset()

    def reset(self) -> None:
        self.slots = self.worker.slots
        self.size = 0
        self.amounts = shape_index.amounts(self.worker.free)

    def takes(self, size: int) -> bool:
        return self.slots > 0 and (self.size == 0 or self.size + size <= ANSWER_BYTES)

    def take(self, needs: shape_index.Amounts, size: int) -> None:
        cpu, memory, disk, gpus = self.amounts
        self.amounts = (cpu - needs[0], memory - needs[1], disk - needs[2], gpus - needs[3])
        self.slots -= 1
        self.size += size

    def box(self) -> _Box:
        return _Box((self.slots, self.amounts[0], self.amounts[1]), self.amounts)


class RoomIndex:
    """Workers, each at a place; worker ``i`` is bit ``1 << i``. ``examined`` counts the boxes looked at, ever.

    ``suits`` tells whether a node takes tasks of a family at all.
    """

    def __init__(self, suits: Callable[[Family, WorkerLike], bool]) -> None:
        self.examined = 0
        self.free = 0
        """Who has slots left."""
        self._suits = suits
        self._rooms: dict[int, _Room] = {}
        self._vacant: list[int] = []
        self._capacity = 1
        self._boxes: list[_Box | None] = [None, None]
        self._pairs: dict[shape_index.Pair, int] = {}
        self._images: dict[str, int] = {}
        self._families: dict[Family, int] = {}
        self._touched: set[int] = set()

    def __len__(self) -> int:
        return len(self._rooms)

    def add(self, worker: WorkerLike) -> int:
        """Add a worker; return its place: the first that is vacant."""
        place = heapq.heappop(self._vacant) if self._vacant else len(self._rooms)
        if place >= self._capacity:
            self._grow()
        bit = 1 << place
        self._rooms[place] = _Room(worker)
        for pair in worker.site.labels.items():
            self._pairs[pair] = self._pairs.get(pair, 0) | bit
        for image in worker.images:
            self._images[image] = self._images.get(image, 0) | bit
        for family in self._families:
            if self._suits(family, worker):
                self._families[family] |= bit
        self._update(place)
        return place

    def remove(self, place: int) -> None:
        """Remove the worker at a place."""
        worker, bit = self._rooms.pop(place).worker, 1 << place
        for pair in worker.site.labels.items():
            _clear(self._pairs, pair, bit)
        for image in worker.images:
            _clear(self._images, image, bit)
        for family in self._families:
            self._families[family] &= ~bit
        self._touched.discard(place)
        self._update(place)
        heapq.heappush(self._vacant, place)
        if not self._rooms:
            self._vacant.clear()

    def filter(self, families: Iterable[Family]) -> shape_index.Filter:
        """Return which workers a search is for: all that are here."""
        for family in families:
            if family not in self._families:
                takers = (place for place, room in self._rooms.items() if self._suits(family, room.worker))
                self._families[family] = sum(1 << place for place in takers)
        return shape_index.Filter((1 << self._capacity) - 1, self._pairs, self._families)

    def fitting(self, workers: int, min_amounts: shape_index.Amounts) -> bool:
        """See :meth:`shape_index.Room.fitting`."""
        stack = [(1, self._capacity, workers & self.free)]
        while stack:
            node, width, mask = stack.pop()
            box = self._boxes[node] if mask else None
            if box is None:
                continue
            self.examined += 1
            if not shape_index.fits(min_amounts, box.amounts):
                continue
            if width == 1:
                return True
            half = width // 2
            stack.append((2 * node + 1, half, mask >> half))
            stack.append((2 * node, half, mask & ((1 << half) - 1)))
        return False

    def best(self, workers: int, needs: shape_index.Amounts, image: str, size: int) -> int | None:
        """Give a task of ``size`` bytes to one of these workers, and return its place; ``None`` where it fits nobody.

        One that has the image goes first, then one with most left, then the first.
        """
        workers &= self.free
        having = workers & self._images.get(image, 0) if image else 0
        place = self._search(having, needs, size)
        if place is None:
            place = self._search(workers & ~having, needs, size)
        if place is not None:
            self._rooms[place].take(needs, size)
            self._touched.add(place)
            self._update(place)
        return place

    def usable(self, workers: int, needs: resources.Resources) -> int:
        """Return how many tasks with such needs these workers had slots for at the start. Looks at each of them."""
        self.examined += len(self._rooms)
        return sum(
            room.worker.slots
            for place, room in self._rooms.items()
            if workers >> place & 1 and needs.fits(room.worker.free)
        )

    def reset(self) -> None:
        """Let every worker have again what was given away since the last reset."""
        for place in tuple(self._touched):
            self._rooms[place].reset()
            self._update(place)
        self._touched.clear()

    def _search(self, workers: int, needs: shape_index.Amounts, size: int) -> int | None:
        heap: list[tuple[Preference, int, int, int, int]] = []

        def push(node: int, first: int, width: int, mask: int) -> None:
            box = self._boxes[node] if mask else None
            if box is None:
                return
            self.examined += 1
            if shape_index.fits(needs, box.amounts):
                slots, cpu, memory = box.preference
                heapq.heappush(heap, ((-slots, -cpu, -memory), first, node, width, mask))

        push(1, 0, self._capacity, workers)
        while heap:
            _, first, node, width, mask = heapq.heappop(heap)
            if width == 1:
                if self._rooms[first].takes(size):
                    return first
                continue
            half = width // 2
            push(2 * node, first, half, mask & ((1 << half) - 1))
            push(2 * node + 1, first + half, half, mask >> half)
        return None

    def _update(self, place: int) -> None:
        room, bit = self._rooms.get(place), 1 << place
        if room is None or room.slots <= 0:
            self.free &= ~bit
        else:
            self.free |= bit
        node = self._capacity + place
        self._boxes[node] = None if room is None else room.box()
        while node > 1:
            node //= 2
            self._boxes[node] = _joined(self._boxes[2 * node], self._boxes[2 * node + 1])

    def _grow(self) -> None:
        self._capacity *= 2
        self._boxes = [None] * (2 * self._capacity)
        for place, room in self._rooms.items():
            self._boxes[self._capacity + place] = room.box()
        for node in range(self._capacity - 1, 0, -1):
            self._boxes[node] = _joined(self._boxes[2 * node], self._boxes[2 * node + 1])


def _joined(left: _Box | None, right: _Box | None) -> _Box | None:
    if left is None or right is None:
        return left or right
    a, b = left.amounts, right.amounts
    amounts = (max(a[0], b[0]), max(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))
    return _Box(max(left.preference, right.preference), amounts)


def _clear(masks: dict[Key, int], key: Key, bit: int) -> None:
    masks[key] &= ~bit
    if not masks[key]:
        del masks[key]
