"""Who gets what: urgency, age, images, room; and why a task waits."""

from __future__ import annotations

import dataclasses

import assignment_by_definition
from hypothesis import example, given
from hypothesis import strategies as st

from hivemind_worker import units
from hivemind_worker.pool.matching import assignment
from hivemind_worker.tasks import resources

GIB = units.GIB


def shape(cores: float = 1, kind: str = "command", network: str = "none", **selector: str) -> assignment.Shape:
    return assignment.Shape(kind, resources.Resources(cores, GIB, GIB), tuple(sorted(selector.items())), network)


def worker(
    name: str = "n", cores: float = 4, slots: int = 4, images: tuple[str, ...] = (), says: str = "", **labels: str
) -> assignment.Worker:
    room = resources.Resources(cores, 100 * GIB, 100 * GIB)
    site = assignment.Site(name, room, labels, frozenset(says.split()))
    return assignment.Worker(site, room, slots, frozenset(images))


def heads(*numbers: int, priority: int = 0, image: str = "", size: int = 10) -> list[assignment.Head]:
    return [assignment.Head(number, priority, image, size) for number in numbers]


def given_to(pairs: list[tuple[assignment.Head, int]]) -> dict[int, int]:
    return {head.number: place for head, place in pairs}


def test_the_urgent_before_the_old_across_shapes() -> None:
    shapes = {1: shape(), 2: shape(2)}
    queues = {1: heads(3, priority=5) + heads(1), 2: heads(2)}
    assert list(given_to(assignment_by_definition.indexed([worker(slots=2)], shapes, queues))) == [3, 1]


def test_a_task_that_fits_nobody_holds_up_nobody() -> None:
    shapes = {1: shape(64), 2: shape()}
    queues = {1: heads(1, priority=9), 2: heads(2)}
    assert given_to(assignment_by_definition.indexed([worker()], shapes, queues)) == {2: 0}


def test_the_worker_that_has_the_image_then_the_emptiest() -> None:
    workers = [worker("a", 8), worker("b", 2, images=("i",)), worker("c", 4)]
    assert given_to(assignment_by_definition.indexed(workers, {1: shape()}, {1: heads(1, image="i")})) == {1: 1}
    assert given_to(assignment_by_definition.indexed(workers, {1: shape()}, {1: heads(1, 2, 3)})) == {1: 0, 2: 2, 3: 1}


def test_an_answer_is_no_larger_than_a_message_but_never_empty_for_it() -> None:
    large = assignment.ANSWER_BYTES * 2 // 3
    queues = {1: heads(1, 2, size=large) + heads(3, size=10)}
    assert given_to(assignment_by_definition.indexed([worker()], {1: shape()}, queues)) == {1: 0, 3: 0}
    alone = {1: heads(1, size=2 * assignment.ANSWER_BYTES)}
    assert given_to(assignment_by_definition.indexed([worker()], {1: shape()}, alone)) == {1: 0}


def test_kinds_network_and_labels() -> None:
    ours, reference = worker(says="docker command").site, worker(says="docker python").site
    assert assignment.suits(shape(), ours)
    assert not assignment.suits(shape(kind="python"), ours)
    assert assignment.suits(shape(), reference)
    assert not assignment.suits(shape(network="egress"), reference)
    assert assignment.suits(shape(network="egress"), worker(says="command egress").site)
    assert assignment.suits(shape(zone="a"), worker(zone="a", other="x").site)
    assert not assignment.suits(shape(zone="a"), worker(zone="b").site)


def test_no_more_heads_are_wanted_than_can_be_used() -> None:
    workers = [worker(slots=3), worker(slots=2, zone="a"), worker(cores=0.5, slots=9)]
    shapes = {1: shape(), 2: shape(zone="a"), 3: shape(64)}
    assert assignment_by_definition.wanted(workers, shapes) == {1: 5, 2: 2}


def test_why_a_task_waits() -> None:
    assert assignment.why_waiting(shape(), []) == "no node is connected"
    assert (
        assignment.why_waiting(shape(), [worker("small", 0.5).site, worker().site]) == "waits for a node to have room"
    )
    small = assignment.why_waiting(shape(8, zone="a"), [worker("wrong").site, worker("small", 4, zone="a").site])
    assert small == "no node is large enough; small: cpu: wants 8 cores, 4 in all"
    unfit = dataclasses.replace(worker("ill").site, unfit="disk: full")
    assert assignment.why_waiting(shape(), [unfit]) == "waits for a node to be fit; ill: disk: full"
    assert assignment.why_waiting(shape(), [unfit, worker().site]) == "waits for a node to have room"
    assert "wrong: it has no label zone=a" in assignment.why_waiting(shape(zone="a"), [worker("wrong").site])


@example([(5.0, 2)], [(2.5, 0, 1572865), (2.5, 0, 2097152), (2.5, 0, 1)])
@given(
    st.lists(st.tuples(st.floats(0, 8), st.integers(0, 3)), max_size=6),
    st.lists(st.tuples(st.sampled_from([0.1, 1, 2.5, 8]), st.integers(-2, 2), st.integers(1, 2**21)), max_size=30),
)
def test_nobody_gets_more_than_room_slots_and_message_hold_and_nothing_is_left_that_fits(
    nodes: list[tuple[float, int]], tasks: list[tuple[float, int, int]]
) -> None:
    workers = [worker(str(number), cores, slots) for number, (cores, slots) in enumerate(nodes)]
    shapes = {number: shape(cores) for number, cores in enumerate([0.1, 1, 2.5, 8])}
    queues: dict[int, list[assignment.Head]] = {number: [] for number in shapes}
    for number, (cores, priority, size) in enumerate(tasks):
        queues[[0.1, 1, 2.5, 8].index(cores)].append(assignment.Head(number, priority, "", size))
    of = {head.number: (shapes[number], head) for number, found in queues.items() for head in found}
    pairs = assignment_by_definition.indexed(workers, shapes, queues)
    assert len(given_to(pairs)) == len(pairs)
    left = {place: (each.free, each.slots, 0) for place, each in enumerate(workers)}
    for head, place in pairs:
        free, slots, size = left[place]
        left[place] = free - of[head.number][0].needs, slots - 1, size + head.size
    for free, slots, size in left.values():
        assert free.cpu_cores > -0.02
        assert slots >= 0
        assert size <= max(assignment.ANSWER_BYTES, 2**21)
    passed_over: set[assignment.Shape] = set()
    for number, (wants, head) in sorted(of.items(), key=lambda each: each[1][1].urgency):
        if number in given_to(pairs):
            continue
        fitting = [size for free, slots, size in left.values() if slots and wants.needs.fits(free)]
        # Behind one that no message has room for no more of a queue are looked at than could be given: the next has.
        if wants not in passed_over:
            assert all(size and size + head.size > assignment.ANSWER_BYTES for size in fitting)
        if fitting:
            passed_over.add(wants)
