"""Which waiting worker gets which queued task: a pure function of what waits on both sides.

Tasks with the same wants form a *shape*; whether a shape fits a node is asked once, not once per task. Of the tasks at
the heads of their shapes' queues the most urgent goes first (priority, then age), to a worker that has its image, and
among those to the one with the most room left, so that load spreads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

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


@dataclass(frozen=True, slots=True)
class Site:
    """A node as far as tasks care: what it offers, whether it is free now or not.

    ``unfit`` is its own word for why it takes no task at present; empty while it does.
    """

    node_id: str
    capacity: resources.Resources
    labels: Mapping[str, str] = field(default_factory=dict)
    capabilities: frozenset[str] = frozenset()
    unfit: str = ""


@dataclass(frozen=True, slots=True)
class Worker:
    """A node that waits for tasks now: ``free`` is what is left of it, ``slots`` how many tasks may come at once."""

    site: Site
    free: resources.Resources
    slots: int
    images: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Room:
    """What is still left of a worker while tasks are being given out."""

    worker: Worker
    free: resources.Resources
    slots: int
    size: int = 0

    def takes(self, shape: Shape, head: Head) -> bool:
        return (
            self.slots > 0 and (self.size == 0 or self.size + head.size <= ANSWER_BYTES) and shape.needs.fits(self.free)
        )

    def take(self, shape: Shape, head: Head) -> None:
        self.free -= shape.needs
        self.slots -= 1
        self.size += head.size

    def preference(self, image: str) -> tuple[bool, int, float, int]:
        return (
            bool(image) and image in self.worker.images,
            self.slots,
            self.free.cpu_cores,
            self.free.memory_bytes,
        )


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


def wanted(workers: Sequence[Worker], shapes: Mapping[int, Shape]) -> dict[int, int]:
    """Return how many heads of each shape's queue :func:`assign` could use now; shapes that fit nobody are left out."""
    slots = {
        number: sum(worker.slots for worker in workers if shape.needs.fits(worker.free) and suits(shape, worker.site))
        for number, shape in shapes.items()
    }
    return {number: most for number, most in slots.items() if most > 0}


def assign(
    workers: Sequence[Worker], shapes: Mapping[int, Shape], heads: Mapping[int, Sequence[Head]]
) -> list[tuple[Head, int]]:
    """Return pairs of a task and the index of the worker that gets it.

    ``heads`` holds for each shape the first tasks of its queue, in order. No worker gets more than its slots, its room
    or one message can hold; a task that fits nobody now is passed over, never waited for.
    """
    rooms = [_Room(worker, worker.free, worker.slots) for worker in workers]
    suited = {number: [room for room in rooms if suits(shapes[number], room.worker.site)] for number in heads}
    queue = sorted(
        ((head, number) for number, found in heads.items() for head in found),
        key=lambda pair: (-pair[0].priority, pair[0].number),
    )
    index = {id(room): place for place, room in enumerate(rooms)}
    given: list[tuple[Head, int]] = []
    for head, number in queue:
        takers = [room for room in suited[number] if room.takes(shapes[number], head)]
        if not takers:
            continue
        best = max(takers, key=lambda room: room.preference(head.image))
        best.take(shapes[number], head)
        given.append((head, index[id(best)]))
        if not any(room.slots for room in rooms):
            break
    return given


def why_waiting(shape: Shape, sites: Iterable[Site]) -> str:
    """Return why a queued task of this shape has not been handed out, given the nodes that are alive.

    Where some node is large enough and suited, it waits for its turn.
    """
    small, unsuited, unfit = "", "", ""
    for site in sites:
        why = _unsuited(shape, site)
        lacking = shape.needs.lacking(site.capacity)
        if not why and not lacking:
            if not site.unfit:
                return "waits for a node to have room"
            unfit = unfit or f"waits for a node to be fit; {site.node_id}: {site.unfit}"
            continue
        if why:
            unsuited = unsuited or f"no node suits it; {site.node_id}: {why}"
        else:
            lacks = "; ".join(lacking).replace(" free", " in all")
            small = small or f"no node is large enough; {site.node_id}: {lacks}"
    # The nearest miss helps most: a node of the right sort that is too small, before one of another sort.
    return unfit or small or unsuited or "no node is connected"
