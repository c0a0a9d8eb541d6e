"""The index of shapes: the same as the definition for any queue, and few steps where few tasks fit."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping

import assignment_by_definition as definition
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivemind_worker import units
from hivemind_worker.pool.matching import assignment, shape_index
from hivemind_worker.tasks import resources

GIB = units.GIB
SHAPES = 10_000
MAX_EXAMINED = 300
"""Of 10,000 shapes: about 0.3 ms."""

LABELS = st.dictionaries(st.sampled_from("ab"), st.sampled_from("12"), max_size=2)
NEEDS = st.builds(
    resources.Resources,
    st.sampled_from([0, 0.1, 0.5, 1, 1.5, 4, 64]),
    st.sampled_from([0, 1, GIB, 3 * GIB, 100 * GIB]),
    st.sampled_from([0, GIB]),
    st.integers(0, 2),
)
SHAPE = st.builds(
    assignment.Shape,
    st.sampled_from(["command", "python"]),
    NEEDS,
    LABELS.map(lambda labels: tuple(sorted(labels.items()))),
    st.sampled_from(["none", "egress"]),
)
SITE = st.builds(
    assignment.Site,
    st.just("n"),
    NEEDS,
    LABELS,
    st.sets(st.sampled_from(["command", "python", "egress"])).map(frozenset),
)
WORKER = st.builds(
    assignment.Worker, SITE, NEEDS, st.integers(0, 4), st.sets(st.sampled_from("ij"), max_size=1).map(frozenset)
)
TASK = st.tuples(
    st.integers(0, 7), st.integers(-1, 1), st.sampled_from(["", "i", "j"]), st.sampled_from([1, 2**21, 2**22])
)


@given(st.lists(WORKER, max_size=5), st.lists(SHAPE, min_size=8, max_size=8), st.lists(TASK, max_size=30))
def test_who_gets_what_is_what_the_definition_says(
    workers: list[assignment.Worker],
    shapes: list[assignment.Shape],
    tasks: list[tuple[int, int, str, int]],
) -> None:
    heads: dict[int, list[assignment.Head]] = {}
    for number, (shape, priority, image, size) in enumerate(tasks):
        heads.setdefault(shape, []).append(assignment.Head(number, priority, image, size))
    for queue in heads.values():
        queue.sort(key=lambda head: head.urgency)
    numbered = dict(enumerate(shapes))
    assert definition.indexed(workers, numbered, heads) == definition.assign(workers, numbered, heads)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 99)), max_size=60), st.lists(SHAPE, min_size=10))
def test_after_any_changes_it_is_as_if_it_had_been_made_anew(
    changes: list[tuple[int, int]], shapes: list[assignment.Shape]
) -> None:
    index, heads = shape_index.ShapeIndex(), dict[int, int]()
    for number, task in changes:
        if number not in heads:
            index.add(number, shapes[number], (0, task))
            heads[number] = task
        elif task < 50:
            index.change(number, (0, task))
            heads[number] = task
        else:
            index.remove(number)
            del heads[number]
        assert index.heads() == {number: (0, task) for number, task in heads.items()}
    free = resources.Resources(4, 3 * GIB, GIB, 1)
    workers = [assignment.Worker(assignment.Site("n", free, {"a": "1"}, frozenset({"command"})), free, 99)]

    def queue(number: int) -> Iterator[assignment.Head]:
        return iter([assignment.Head(heads[number], 0)])

    anew = {number: [assignment.Head(task, 0)] for number, task in heads.items()}
    pairs = assignment.assign(workers, index, queue)
    order = [head.number for head, _ in pairs]
    assert sorted(order) == order
    expected = definition.assign(workers, dict(enumerate(shapes)), anew)
    assert sorted(order) == sorted(head.number for head, _ in expected)
    for number in tuple(heads):
        index.remove(number)
    assert not len(index)
    assert not index.families()


def _too_large(number: int) -> tuple[assignment.Shape, int]:
    return assignment.Shape("command", resources.Resources(9 + number, GIB)), number % 10


def _another_label(number: int) -> tuple[assignment.Shape, int]:
    return assignment.Shape("command", resources.Resources(1, GIB), (("zone", str(number)),)), number % 10


def _another_label_of_two(number: int) -> tuple[assignment.Shape, int]:
    selector = (("site", "here"), ("zone", str(number)))
    return assignment.Shape("command", resources.Resources(1, GIB), selector), number % 10


def _too_large_each_in_its_way(number: int) -> tuple[assignment.Shape, int]:
    cpu, memory = (9 + number, 1) if number % 2 else (0.1, (65 + number) * GIB)
    return assignment.Shape("command", resources.Resources(cpu, memory)), number % 10


def _urgent_ones_too_large(number: int) -> tuple[assignment.Shape, int]:
    fits = number % 2
    return assignment.Shape("command", resources.Resources(1 + number / SHAPES + 8 * (1 - fits), GIB)), 9 - 9 * fits


def _another_network_or_kind(number: int) -> tuple[assignment.Shape, int]:
    kind, network = ("command", "egress") if number % 2 else ("python", "none")
    return assignment.Shape(kind, resources.Resources(1, GIB + number), (), network), number % 10


@pytest.mark.parametrize(
    ("mix", "gets"),
    [
        (_too_large, 0),
        (_another_label, 1),
        (_another_label_of_two, 1),
        (_too_large_each_in_its_way, 0),
        (_urgent_ones_too_large, 4),
        (_another_network_or_kind, 0),
    ],
)
def test_what_fits_nobody_is_left_out_in_bulk(mix: Callable[[int], tuple[assignment.Shape, int]], gets: int) -> None:
    shapes: dict[int, assignment.Shape] = {}
    heads: dict[int, list[assignment.Head]] = {}
    order = list(range(SHAPES))
    random.Random(7).shuffle(order)
    for number in order:
        shapes[number], priority = mix(number)
        heads[number] = [assignment.Head(number, priority)]
    workers = [_worker({"site": "here", "zone": "5", "other": "x"})]
    assert _examined(workers, shapes, heads) == (gets, definition.assign(workers, shapes, heads))


def test_requests_on_the_edge_of_fitting_cost_far_fewer_steps_than_there_are() -> None:
    # No two of them can be compared, and each is a little more than what is free, of the one thing or of the other.
    shapes = {
        number: assignment.Shape("command", resources.Resources(number / SHAPES * 16, (SHAPES - number) * 2**23))
        for number in range(SHAPES)
    }
    heads = {number: [assignment.Head(number, number % 10)] for number in shapes}
    workers = [_worker({}, resources.Resources(7.9, SHAPES * 2**22 - 2**27, 0))]
    _, pairs = _examined(workers, shapes, heads)
    assert pairs == definition.assign(workers, shapes, heads)


def _worker(labels: Mapping[str, str], free: resources.Resources | None = None) -> assignment.Worker:
    free = free or resources.Resources(8, 64 * GIB, GIB)
    return assignment.Worker(assignment.Site("n", free, labels, frozenset({"command"})), free, 4)


def _examined(
    workers: list[assignment.Worker],
    shapes: dict[int, assignment.Shape],
    heads: dict[int, list[assignment.Head]],
) -> tuple[int, list[tuple[assignment.Head, int]]]:
    index = definition.index_of(shapes, heads)
    pairs = assignment.assign(workers, index, lambda number: iter(heads[number]))
    assert index.examined <= MAX_EXAMINED
    return len(pairs), pairs
