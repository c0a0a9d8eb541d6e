"""The shapes that have queued tasks, indexed so that a search meets few of those that fit no waiting worker.

Shapes of one kind, network and selector lie in one tree, a crit-bit tree over the interleaved bits of their four
amounts: each branch is a box in the space of requests, and knows the smallest amounts and the most urgent task within.
A search goes to the most urgent branch first and leaves out a branch as soon as its smallest amounts fit nobody, so
10,000 shapes that are all too large cost one step. Selectors form a trie of label pairs, walked along the labels that
the workers have. Nothing is ever rebuilt: a change costs the depth of the tree, which the width of the numbers bounds.

`store.task_queue` keeps it in step with the tables; `assignment.assign` searches it.
"""

from __future__ import annotations

import heapq
import itertools
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from hivemind_worker.tasks import resources

Urgency = tuple[int, int]
"""Minus the priority, then the task's number: the smallest goes first."""

Pair = tuple[str, str]

Amounts = tuple[float, int, int, int]


class ShapeLike(Protocol):
    """What the index reads of an `assignment.Shape`."""

    @property
    def kind(self) -> str:
        """The task's kind."""

    @property
    def network(self) -> str:
        """The network that it asks for."""

    @property
    def selector(self) -> tuple[Pair, ...]:
        """The labels that its node must have."""

    @property
    def needs(self) -> resources.Resources:
        """The amounts that must be free."""


class _Node:
    __slots__ = ("min_amounts", "parent", "urgency")

    def __init__(self, urgency: Urgency, min_amounts: Amounts) -> None:
        self.urgency = urgency
        self.min_amounts = min_amounts
        self.parent: _Branch | None = None


class _Leaf(_Node):
    __slots__ = ("code", "number", "place", "shape")

    def __init__(self, number: int, shape: ShapeLike, urgency: Urgency, place: _Place) -> None:
        super().__init__(urgency, amounts(shape.needs))
        self.number = number
        self.shape = shape
        self.place = place
        self.code = _code(self.min_amounts, number)


class _Branch(_Node):
    """All leaves below share the bits above ``bit``; those with it clear are on the left."""

    __slots__ = ("bit", "left", "right")

    def __init__(self, bit: int, left: _Node, right: _Node) -> None:
        super().__init__(left.urgency, left.min_amounts)
        self.bit = bit
        self.left = left
        self.right = right
        left.parent = right.parent = self

    def update(self) -> bool:
        """Compute anew what is known of everything below; whether that changed."""
        before = (self.urgency, self.min_amounts)
        self.urgency = min(self.left.urgency, self.right.urgency)
        a, b = self.left.min_amounts, self.right.min_amounts
        self.min_amounts = (min(a[0], b[0]), min(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
        return before != (self.urgency, self.min_amounts)


class _Place:
    """The shapes with one selector, and the longer selectors that begin with it."""

    __slots__ = ("children", "pair", "parent", "root")

    def __init__(self, parent: _Place | None = None, pair: Pair = ("", "")) -> None:
        self.root: _Node | None = None
        self.children: dict[Pair, _Place] = {}
        self.parent = parent
        self.pair = pair


@dataclass(slots=True)
class Filter:
    """Which workers the search is for, as bits of numbers: worker ``i`` is bit ``1 << i``.

    ``pairs``: who has a label. ``families``: who takes a kind with a network.
    """

    everyone: int
    pairs: Mapping[Pair, int]
    families: Mapping[tuple[str, str], int]


class ShapeIndex:
    """Shapes with queued tasks, by number. ``examined`` counts the nodes that searches have looked at, ever."""

    def __init__(self) -> None:
        self.examined = 0
        self._leaves: dict[int, _Leaf] = {}
        self._families: dict[tuple[str, str], _Place] = {}

    def __len__(self) -> int:
        return len(self._leaves)

    def __contains__(self, number: int) -> bool:
        return number in self._leaves

    def heads(self) -> dict[int, Urgency]:
        """Return how urgent the first task of each shape is."""
        return {number: leaf.urgency for number, leaf in self._leaves.items()}

    def families(self) -> list[tuple[str, str]]:
        """Return every kind with a network that some queued task asks for."""
        return list(self._families)

    def urgency(self, number: int) -> Urgency | None:
        """Return how urgent the first task of a shape is, ``None`` where none is queued."""
        leaf = self._leaves.get(number)
        return None if leaf is None else leaf.urgency

    def add(self, number: int, shape: ShapeLike, urgency: Urgency) -> None:
        """Add a shape that had no queued task."""
        leaf = _Leaf(number, shape, urgency, self._place(shape))
        self._leaves[number] = leaf
        root = leaf.place.root
        if root is None:
            leaf.place.root = leaf
            return
        near = root
        while isinstance(near, _Branch):
            near = near.right if leaf.code >> near.bit & 1 else near.left
        assert isinstance(near, _Leaf)
        bit = (near.code ^ leaf.code).bit_length() - 1
        # The highest node whose leaves all share what is above that bit: the new branch takes its place.
        near = root
        while isinstance(near, _Branch) and near.bit > bit:
            near = near.right if leaf.code >> near.bit & 1 else near.left
        above = near.parent
        branch = _Branch(bit, near, leaf) if leaf.code >> bit & 1 else _Branch(bit, leaf, near)
        _replace(leaf.place, above, near, branch)
        branch.update()
        _update(above)

    def change(self, number: int, urgency: Urgency) -> None:
        """Say which task is the first of a shape now."""
        leaf = self._leaves[number]
        leaf.urgency = urgency
        _update(leaf.parent)

    def remove(self, number: int) -> None:
        """Remove a shape that has no queued task any more. Does nothing for one that is not here."""
        leaf = self._leaves.pop(number, None)
        if leaf is None:
            return
        branch = leaf.parent
        if branch is None:
            leaf.place.root = None
            self._prune(leaf.place, (leaf.shape.kind, leaf.shape.network))
            return
        other = branch.left if branch.right is leaf else branch.right
        _replace(leaf.place, branch.parent, branch, other)
        _update(branch.parent)

    def search(self, workers_filter: Filter) -> Search:
        """Begin a search for the shapes that some of these workers could run."""
        return Search(self, workers_filter)

    def roots(self, workers_filter: Filter) -> Iterator[tuple[_Node, int]]:
        """Yield the trees whose shapes suit some of the workers, each with those workers."""
        for family, place in self._families.items():
            if (workers := workers_filter.families.get(family, 0) & workers_filter.everyone) != 0:
                yield from self._walk(place, workers, workers_filter.pairs)

    def _walk(self, first: _Place, workers: int, pairs: Mapping[Pair, int]) -> Iterator[tuple[_Node, int]]:
        waiting = [(first, workers)]
        while waiting:
            place, mask = waiting.pop()
            self.examined += 1
            if place.root is not None:
                yield place.root, mask
            shorter = place.children if len(place.children) <= len(pairs) else pairs
            for pair in shorter if place.children else ():
                child = place.children.get(pair)
                if child is not None and (having := pairs.get(pair, 0) & mask):
                    waiting.append((child, having))

    def _place(self, shape: ShapeLike) -> _Place:
        place = self._families.setdefault((shape.kind, shape.network), _Place())
        for pair in shape.selector:
            child = place.children.get(pair)
            if child is None:
                child = place.children[pair] = _Place(place, pair)
            place = child
        return place

    def _prune(self, place: _Place, family: tuple[str, str]) -> None:
        while place.root is None and not place.children:
            if place.parent is None:
                del self._families[family]
                return
            del place.parent.children[place.pair]
            place = place.parent


@dataclass(slots=True)
class Hit:
    """A shape whose first task is the most urgent of those left. ``workers``: whom it suits and may fit, as bits."""

    number: int
    shape: ShapeLike
    urgency: Urgency
    workers: int


class Room(Protocol):
    """What is left of the workers that a search is for."""

    def fitting(self, workers: int, min_amounts: Amounts) -> bool:
        """Whether any of these workers has room for so much."""


@dataclass(slots=True)
class Search:
    """One search: what fits nobody is left out for good, since room only shrinks while it goes on."""

    _index: ShapeIndex
    _filter: Filter
    _heap: list[tuple[Urgency, int, _Node, int]] = field(default_factory=list)
    _order: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self._heap = [(node.urgency, next(self._order), node, mask) for node, mask in self._index.roots(self._filter)]
        heapq.heapify(self._heap)

    def next(self, room: Room) -> Hit | None:
        """Return the shape with the most urgent task that may fit somebody; ``None`` when there is none left."""
        while self._heap:
            urgency, _, node, mask = heapq.heappop(self._heap)
            self._index.examined += 1
            if not room.fitting(mask, node.min_amounts):
                continue
            if isinstance(node, _Branch):
                for below in (node.left, node.right):
                    heapq.heappush(self._heap, (below.urgency, next(self._order), below, mask))
            elif isinstance(node, _Leaf):
                return Hit(node.number, node.shape, urgency, mask)
        return None

    def again(self, hit: Hit, urgency: Urgency) -> None:
        """Look at a shape again when its next task, which is as urgent as this, is the most urgent."""
        leaf = self._index._leaves[hit.number]  # noqa: SLF001  (the index and its searches are one mechanism)
        heapq.heappush(self._heap, (urgency, next(self._order), leaf, hit.workers))


def amounts(needs: resources.Resources) -> Amounts:
    """Return a request as plain numbers: cores, bytes of memory, bytes of disk, GPUs."""
    return (needs.cpu_cores, needs.memory_bytes, needs.disk_bytes, needs.gpus)


def fits(min_amounts: Amounts, free: Amounts) -> bool:
    """Whether so much fits into what is free, as :meth:`resources.Resources.fits` has it."""
    return (
        min_amounts[0] <= free[0] + resources.CPU_SLACK
        and min_amounts[1] <= free[1]
        and min_amounts[2] <= free[2]
        and min_amounts[3] <= free[3]
    )


def _replace(place: _Place, above: _Branch | None, old: _Node, new: _Node) -> None:
    new.parent = above
    if above is None:
        place.root = new
    elif above.left is old:
        above.left = new
    else:
        above.right = new


def _update(branch: _Branch | None) -> None:
    while branch is not None and branch.update():
        branch = branch.parent


_SPREAD = tuple(sum((byte >> bit & 1) << (4 * bit) for bit in range(8)) for byte in range(256))
"""The bits of a byte, four apart."""


def _code(min_amounts: Amounts, number: int) -> int:
    """The bits of the four amounts in turn, the highest first; then the shape's number, so that no two are alike."""
    code = 0
    for place, amount in enumerate(min_amounts):
        # The bits of a positive float grow with it, and its exponent comes first: amounts of all sizes spread alike.
        for at, byte in enumerate(struct.pack(">d", max(float(amount), 0.0))):
            code |= _SPREAD[byte] << (32 * (7 - at) + 3 - place)
    return code << 64 | number
