"""Which waiting worker gets which queued task: a pure function of what waits on both sides.

Tasks with the same wants form a *shape*, and the shapes lie in an index (`shape_index`), so that those which fit nobody
now are passed over in bulk. Of the tasks at the heads of the other shapes' queues the most urgent goes first (priority,
then age), to a worker that has its image, and among those to the one with the most room left, so that load spreads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from hivemind_worker.nodepool import shape_index
from hivemind_worker.task import plan, resources

EGRESS = str(plan.Network.EGRESS)
"""The capability word of a node whose owner lets tasks reach the network."""

ANSWER_BYTES = 3 * 1024**2 + 512 * 1024
"""Most bytes of tasks in one answer: the 4 MiB of a message less 512 KiB; a larger single task travels alone."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a task wants of its node; tasks of one shape fit the same nodes."""

    kind: str
    needs: resources.Resources
    selector: tuple[tuple[str, str], ...] = ()
    network: str = str(plan.Network.NONE)


@dataclass(frozen=True, slots=True)
class Head:
    """A task near the head of its shape's queue. A smaller ``number`` is older; ``size`` is its message's bytes."""

    number: int
    priority: int
    image: str = ""
    size: int = 0

    @property
    def urgency(self) -> shape_index.Urgency:
        """The smaller goes first."""
        return (-self.priority, self.number)


@dataclass(frozen=True, slots=True)
class Site:
    """A node as far as tasks care: what it offers, whether it is free now or not.

    ``unfit`` is its own word for why it takes no task at present; empty while it does. ``rests``: for how many seconds
    more it is offered no task of a shape, having handed one back.
    """

    node_id: str
    capacity: resources.Resources
    labels: Mapping[str, str] = field(default_factory=dict)
    capabilities: frozenset[str] = frozenset()
    unfit: str = ""
    rests: Mapping[Shape, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Worker:
    """A node that waits for tasks now: ``free`` is what is left of it, ``slots`` how many tasks may come at once."""

    site: Site
    free: resources.Resources
    slots: int
    images: frozenset[str] = frozenset()


class _Room:
    """What is still left of a worker while tasks are being given out."""

    __slots__ = ("amounts", "size", "slots", "worker")

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.slots = worker.slots
        self.size = 0
        self.amounts = shape_index.amounts(worker.free)

    def takes(self, needs: shape_index.Amounts, size: int) -> bool:
        return (
            self.slots > 0
            and (self.size == 0 or self.size + size <= ANSWER_BYTES)
            and shape_index.fits(needs, self.amounts)
        )

    def take(self, needs: shape_index.Amounts, size: int) -> None:
        cpu, memory, disk, gpus = self.amounts
        self.amounts = (cpu - needs[0], memory - needs[1], disk - needs[2], gpus - needs[3])
        self.slots -= 1
        self.size += size

    def preference(self, image: str) -> tuple[bool, int, float, int]:
        return (bool(image) and image in self.worker.images, self.slots, self.amounts[0], self.amounts[1])


class _Rooms:
    """All of them; worker ``i`` is bit ``1 << i``."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._rooms = [_Room(worker) for worker in workers]
        self.free = sum(1 << place for place, worker in enumerate(workers) if worker.slots > 0)

    def of(self, workers: int) -> Iterator[tuple[int, _Room]]:
        """Those of the given workers that have slots left."""
        left = workers & self.free
        while left:
            bit = left & -left
            left ^= bit
            place = bit.bit_length() - 1
            yield place, self._rooms[place]

    def fitting(self, workers: int, min_amounts: shape_index.Amounts) -> bool:
        """See :meth:`shape_index.Room.fitting`."""
        return any(shape_index.fits(min_amounts, room.amounts) for _, room in self.of(workers))

    def usable(self, workers: int, needs: resources.Resources) -> int:
        """How many tasks with such needs the given workers had slots for at the start."""
        return sum(
            room.worker.slots
            for place, room in enumerate(self._rooms)
            if workers >> place & 1 and needs.fits(room.worker.free)
        )

    def best(self, workers: int, needs: shape_index.Amounts, head: Head) -> int | None:
        """The worker that a task goes to: with its image, else with most left; ``None`` where it fits nobody."""
        takers = [(place, room) for place, room in self.of(workers) if room.takes(needs, head.size)]
        if not takers:
            return None
        place, room = max(takers, key=lambda taker: taker[1].preference(head.image))
        room.take(needs, head.size)
        if not room.slots:
            self.free &= ~(1 << place)
        return place


def suits(shape: Shape, site: Site) -> bool:
    """Tell whether this node can ever run tasks of this shape: kind, network and labels, whatever is free now."""
    return not _unsuited(shape, site)


def _unsuited(shape: Shape, site: Site) -> str:
    """Why tasks of this shape can never run there; empty when they can."""
    # The reference's client names what it likes ("docker", "python"), not kinds: it is trusted with each. A node of
    # ours names all its kinds, and commands are always among them.
    if "command" in site.capabilities and shape.kind not in site.capabilities:
        return f"it runs no {shape.kind} tasks"
    if shape.network == plan.Network.EGRESS and EGRESS not in site.capabilities:
        return "its owner allows no network"
    for key, value in shape.selector:
        if site.labels.get(key) != value:
            return f"it has no label {key}={value}"
    return ""


def assign(
    workers: Sequence[Worker],
    index: shape_index.ShapeIndex,
    heads: Callable[[int, int], Iterator[Head]],
    excluded: Mapping[int, int] | None = None,
) -> list[tuple[Head, int]]:
    """Return pairs of a task and the index of the worker that gets it.

    ``heads(shape, count)`` yields the first ``count`` tasks of a shape's queue, in order; no more of them are read than
    are looked at. No worker gets more than its slots, its room or one message can hold; a task that fits nobody now is
    passed over, never waited for: the order, by priority and then by age, holds among those that fit.

    ``excluded``: by the shape's number the workers that get no task of it, as bits.
    """
    excluded = excluded or {}
    rooms = _Rooms(workers)
    search = index.search(_filter(workers, index.families()))
    queues: dict[int, tuple[Iterator[Head], Head | None]] = {}
    given: list[tuple[Head, int]] = []
    while rooms.free and (hit := search.next(rooms)) is not None:
        hit.workers &= ~excluded.get(hit.number, 0)
        if not hit.workers:
            continue
        if hit.number not in queues:
            tasks = heads(hit.number, rooms.usable(hit.workers, hit.shape.needs))
            queues[hit.number] = (tasks, next(tasks, None))
        tasks, head = queues[hit.number]
        if head is None:
            continue
        if (place := rooms.best(hit.workers, shape_index.amounts(hit.shape.needs), head)) is not None:
            given.append((head, place))
        following = next(tasks, None)
        queues[hit.number] = (tasks, following)
        if following is not None:
            search.again(hit, following.urgency)
    return given


def _filter(workers: Sequence[Worker], families: Sequence[tuple[str, str]]) -> shape_index.Filter:
    pairs: dict[shape_index.Pair, int] = {}
    suited = dict.fromkeys(families, 0)
    for place, worker in enumerate(workers):
        bit = 1 << place
        for pair in worker.site.labels.items():
            pairs[pair] = pairs.get(pair, 0) | bit
        for kind, network in families:
            if suits(Shape(kind, resources.Resources(), (), network), worker.site):
                suited[kind, network] |= bit
    return shape_index.Filter((1 << len(workers)) - 1, pairs, suited)


def why_waiting(shape: Shape, sites: Iterable[Site]) -> str:
    """Return why a queued task of this shape has not been handed out, given the nodes that are alive.

    Where some node is large enough and suited, it waits for its turn.
    """
    small, unsuited, unfit = "", "", ""
    for site in sites:
        why = _unsuited(shape, site)
        lacking = shape.needs.lacking(site.capacity)
        if not why and not lacking:
            reason = site.unfit
            if not reason and (seconds := site.rests.get(shape, 0.0)) > 0:
                reason = (
                    f"it handed such a task back, for lack of room or as it stopped: offered again in {seconds:.0f} s"
                )
            if not reason:
                return "waits for a node to have room"
            unfit = unfit or f"waits for a node to be fit; {site.node_id}: {reason}"
            continue
        if why:
            unsuited = unsuited or f"no node suits it; {site.node_id}: {why}"
        else:
            lacks = "; ".join(lacking).replace(" free", " in all")
            small = small or f"no node is large enough; {site.node_id}: {lacks}"
    # The nearest miss helps most: a node of the right sort that is too small, before one of another sort.
    return unfit or small or unsuited or "no node is connected"
