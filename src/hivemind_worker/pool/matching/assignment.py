"""Which waiting worker gets which queued task: a pure function of what waits on both sides.

Tasks with the same wants form a *shape*, and the shapes lie in an index (`shape_index`), so that those which fit nobody
now are passed over in bulk. Of the tasks at the heads of the other shapes' queues the most urgent goes first (priority,
then age), to a worker that has its image, and among those to the one with the most room left, so that load spreads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from hivemind_worker.pool.matching import room_index, shape_index
from hivemind_worker.tasks import plan, resources

EGRESS = str(plan.Network.EGRESS)
"""The capability word of a node whose owner lets tasks reach the network."""

SECRETS = plan.SECRETS

NEEDS_SECRETS = ("capability:secrets", "yes")
"""In a shape's selector: no label has such a key, so that only what `Site` adds for the capability meets it."""

ANSWER_BYTES = room_index.ANSWER_BYTES


@dataclass(frozen=True, slots=True)
class Shape:
    """What a task wants of its node; tasks of one shape fit the same nodes.

    ``suspect_image``: of a task that has failed, nobody knows why; its image. A node where such tasks failed is offered
    no more of them for a while, and all others as before.
    """

    kind: str
    needs: resources.Resources
    selector: tuple[tuple[str, str], ...] = ()
    network: str = str(plan.Network.NONE)
    suspect_image: str = ""


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
        if (key, value) == NEEDS_SECRETS and SECRETS not in site.capabilities:
            return "its version knows no secrets of tasks"
        if site.labels.get(key) != value:
            return f"it has no label {key}={value}"
    return ""


def new_rooms() -> room_index.RoomIndex:
    """Return an index of waiting workers, empty."""
    return room_index.RoomIndex(_takes_family)


def _takes_family(family: room_index.Family, worker: room_index.WorkerLike) -> bool:
    assert isinstance(worker, Worker)
    kind, network = family
    return suits(Shape(kind, resources.Resources(), (), network), worker.site)


def assign(
    workers: Sequence[Worker],
    index: shape_index.ShapeIndex,
    heads: Callable[[int], Iterator[Head]],
    excluded: Mapping[int, int] | None = None,
) -> list[tuple[Head, int]]:
    """Return pairs of a task and the index of the worker that gets it: see :func:`assign_among`."""
    rooms = new_rooms()
    for worker in workers:
        rooms.add(worker)
    return assign_among(rooms, index, heads, excluded)


@dataclass(slots=True)
class _Queue:
    """What is left of a shape's queue."""

    tasks: Iterator[Head]
    head: Head | None
    looked_at: int = 0
    limit: int | None = None


def assign_among(
    rooms: room_index.RoomIndex,
    index: shape_index.ShapeIndex,
    heads: Callable[[int], Iterator[Head]],
    excluded: Mapping[int, int] | None = None,
) -> list[tuple[Head, int]]:
    """Return pairs of a task and the place of the worker that gets it; the rooms are left with what is given taken off.

    ``heads(shape)`` yields the tasks of a shape's queue, in order; no more of them are read than are looked at. No
    worker gets more than its slots, its room or one message can hold; a task that fits nobody now is passed over, never
    waited for: the order, by priority and then by age, holds among those that fit.

    ``excluded``: by the shape's number the workers that get no task of it, as bits.
    """
    excluded = excluded or {}
    if not rooms.free:
        return []
    search = index.search(rooms.filter(index.families()))
    queues: dict[int, _Queue] = {}
    given: list[tuple[Head, int]] = []
    while rooms.free and (hit := search.next(rooms)) is not None:
        hit.workers &= ~excluded.get(hit.number, 0)
        needs = shape_index.amounts(hit.shape.needs)
        if not rooms.fitting(hit.workers, needs):
            continue
        queue = queues.get(hit.number)
        if queue is None:
            tasks = heads(hit.number)
            queue = queues[hit.number] = _Queue(tasks, next(tasks, None))
        head = queue.head
        if head is None:
            continue
        queue.looked_at += 1
        if (place := rooms.best(hit.workers, needs, head.image, head.size)) is not None:
            given.append((head, place))
        elif queue.limit is None:
            # Too large for an answer, as all of a long queue may be: no more are looked at than could be given.
            queue.limit = rooms.usable(hit.workers, hit.shape.needs)
        if queue.limit is not None and queue.looked_at >= queue.limit:
            continue
        queue.head = next(queue.tasks, None)
        if queue.head is not None:
            search.again(hit, queue.head.urgency)
    return given


class Waiting:
    """Why a queued task of a shape has not been handed out: shown the living nodes one by one, it says so at the end.

    Where some node is large enough and suited, it waits for its turn.
    """

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._small = self._unsuited = self._unfit = ""
        self.has_node = False
        """Some node would take it: no other changes what it waits for."""

    def look_at(self, site: Site) -> None:
        """Compare it with a node."""
        shape = self._shape
        why = _unsuited(shape, site)
        lacking = shape.needs.lacking(site.capacity)
        if why:
            self._unsuited = self._unsuited or f"no node suits it; {site.node_id}: {why}"
            return
        if lacking:
            lacks = "; ".join(lacking).replace(" free", " in all")
            self._small = self._small or f"no node is large enough; {site.node_id}: {lacks}"
            return
        reason = site.unfit
        if not reason and (seconds := site.rests.get(shape, 0.0)) > 0:
            cause = "it handed such a task back, for lack of room or as it stopped"
            if shape.suspect_image:
                cause = "this task, or one of its image, failed there for a cause that nobody knows"
            reason = f"{cause}: offered again in {seconds:.0f} s"
        if reason:
            self._unfit = self._unfit or f"waits for a node to be fit; {site.node_id}: {reason}"
        else:
            self.has_node = True

    @property
    def reason(self) -> str:
        """What it waits for. The nearest miss helps most: a node of the right sort that is too small, before others."""
        if self.has_node:
            return "waits for a node to have room"
        return self._unfit or self._small or self._unsuited or "no node is connected"


def why_waiting(shape: Shape, sites: Iterable[Site]) -> str:
    """Return why a queued task of this shape has not been handed out, given the nodes that are alive."""
    waiting = Waiting(shape)
    for site in sites:
        waiting.look_at(site)
    return waiting.reason
