"""Who gets what, said in the simplest way: every queued task in order, each to the best of the workers that it fits.

What the pool does faster (`assignment.assign` over a `shape_index`) must come to the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from hivemind_worker.pool.matching import assignment, shape_index
from hivemind_worker.tasks import resources


def wanted(workers: Sequence[assignment.Worker], shapes: Mapping[int, assignment.Shape]) -> dict[int, int]:
    """How many tasks of each shape the workers could use; shapes that fit nobody are left out."""
    slots = {
        number: sum(
            worker.slots for worker in workers if shape.needs.fits(worker.free) and assignment.suits(shape, worker.site)
        )
        for number, shape in shapes.items()
    }
    return {number: count for number, count in slots.items() if count > 0}


def assign(
    workers: Sequence[assignment.Worker],
    shapes: Mapping[int, assignment.Shape],
    heads: Mapping[int, Sequence[assignment.Head]],
) -> list[tuple[assignment.Head, int]]:
    """Pairs of a task and the index of the worker that gets it."""
    left = [(worker.free, worker.slots, 0) for worker in workers]
    counts = wanted(workers, shapes)
    queue = sorted(
        ((head, number) for number, count in counts.items() for head in heads.get(number, ())[:count]),
        key=lambda pair: (-pair[0].priority, pair[0].number),
    )
    pairs = []
    for head, number in queue:
        needs = shapes[number].needs
        takers = [
            place
            for place, (free, slots, size) in enumerate(left)
            if slots > 0
            and needs.fits(free)
            and (size == 0 or size + head.size <= assignment.ANSWER_BYTES)
            and assignment.suits(shapes[number], workers[place].site)
        ]
        if not takers:
            continue
        best = max(takers, key=lambda place: _preference(workers[place], left[place][0], left[place][1], head.image))
        free, slots, size = left[best]
        left[best] = (free - needs, slots - 1, size + head.size)
        pairs.append((head, best))
    return pairs


def _preference(
    worker: assignment.Worker, free: resources.Resources, slots: int, image: str
) -> tuple[bool, int, float, int]:
    return (bool(image) and image in worker.images, slots, free.cpu_cores, free.memory_bytes)


def indexed(
    workers: Sequence[assignment.Worker],
    shapes: Mapping[int, assignment.Shape],
    heads: Mapping[int, Sequence[assignment.Head]],
) -> list[tuple[assignment.Head, int]]:
    """The same by the pool's own way, over an index made of these queues."""
    index = index_of(shapes, heads)

    def first(number: int) -> Iterator[assignment.Head]:
        return iter(heads[number])

    return assignment.assign(workers, index, first)


def index_of(
    shapes: Mapping[int, assignment.Shape], heads: Mapping[int, Sequence[assignment.Head]]
) -> shape_index.ShapeIndex:
    """An index of the shapes that have a queue."""
    index = shape_index.ShapeIndex()
    for number, queue in heads.items():
        if queue:
            index.add(number, shapes[number], queue[0].urgency)
    return index
