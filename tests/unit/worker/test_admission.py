from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from hivemind_worker import units
from hivemind_worker.tasks import resources
from hivemind_worker.worker.machine import admission

GIB = units.GIB
CAPACITY = resources.Resources(4.0, 8 * GIB, 100 * GIB, 1)

amounts = some.builds(
    resources.Resources,
    some.floats(0, 6, allow_nan=False),
    some.integers(0, 10 * GIB),
    some.integers(0, 120 * GIB),
    some.integers(0, 2),
)
steps = some.lists(some.tuples(some.integers(0, 9), some.none() | amounts), max_size=60)


@given(steps, some.integers(0, 5))
def test_reservations_never_exceed_the_capacity_or_the_number_of_tasks(
    moves: list[tuple[int, resources.Resources | None]], most: int
) -> None:
    reservations = admission.Admission(CAPACITY, most)
    held: dict[int, resources.Resources] = {}
    for key, needs in moves:
        if needs is None or key in held:
            reservations.release(key)
            held.pop(key, None)
        elif reservations.reserve(key, needs):
            held[key] = needs
        assert reservations.reserved.fits(CAPACITY)
        assert not most or len(held) <= most
        total = sum(held.values(), resources.Resources())
        assert reservations.reserved.memory_bytes == total.memory_bytes
        assert reservations.slots >= 0


@given(amounts)
def test_what_can_never_fit_is_told_apart_from_what_must_wait(needs: resources.Resources) -> None:
    reservations = admission.Admission(CAPACITY, 0)
    assert bool(reservations.never(needs)) is not reservations.reserve("only", needs)


def test_a_full_node_is_full_by_number_by_cores_or_by_memory() -> None:
    for most, needs in (
        (1, resources.Resources(0.1, 1)),
        (0, resources.Resources(4.0, 1)),
        (0, resources.Resources(0.1, 8 * GIB)),
    ):
        reservations = admission.Admission(CAPACITY, most)
        seen = [reservations.full]
        assert reservations.reserve("a", needs)
        seen.append(reservations.full)
        reservations.release("a")
        assert [*seen, reservations.full] == [False, True, False]


def test_l14_not_a_sliver_more_is_given_out_than_there_is() -> None:
    reservations = admission.Admission(CAPACITY, 0)
    assert reservations.reserve("a", resources.Resources(CAPACITY.cpu_cores - 2))
    assert not reservations.reserve("b", resources.Resources(2.0005))
    assert reservations.reserve("c", resources.Resources(0.1))
    assert reservations.reserve("d", resources.Resources(0.2))
    assert reservations.reserve("e", resources.Resources(2 - 0.1 - 0.2))


def test_a_key_reserves_once() -> None:
    reservations = admission.Admission(CAPACITY, 0)
    assert reservations.reserve("a", resources.Resources(1.0))
    with pytest.raises(ValueError, match="already"):
        reservations.reserve("a", resources.Resources(1.0))


def test_why_something_can_never_fit_is_said_in_words() -> None:
    said = admission.Admission(CAPACITY, 1).never(resources.Resources(8.0, 64 * GIB))
    assert "cpu: wants 8 cores, 4 free" in said
    assert "memory: wants 64.00 GiB, 8.00 GiB free" in said


@given(
    some.lists(
        some.one_of(
            some.tuples(some.just("reserve"), some.integers(0, 9), amounts),
            some.tuples(some.just("release"), some.integers(0, 9), some.none()),
            some.tuples(some.just("resize"), some.none(), amounts),
        ),
        max_size=60,
    )
)
def test_l14_whatever_comes_goes_and_shrinks_no_more_is_given_out_than_there_is(
    steps: list[tuple[str, Any, Any]],
) -> None:
    devices = ("GPU-a", "GPU-b")
    whole = resources.Resources(4.0, 8 * GIB, 100 * GIB, len(devices))
    reservations = admission.Admission(whole, 0, devices)
    held: set[int] = set()
    parts = ("cpu_cores", "memory_bytes", "disk_bytes", "gpus")
    for what, key, amount in steps:
        if what == "resize":
            reservations.resize(amount)
        elif what == "release":
            reservations.release(key)
            held.discard(key)
        elif key not in held and reservations.reserve(key, amount):
            held.add(key)
            # Of what it asks for. Another part may have shrunk below what is reserved of it.
            asked = [part for part in parts if getattr(amount, part) > resources.CPU_SLACK]
            assert all(getattr(reservations.reserved, part) <= getattr(reservations.now, part) + 1e-9 for part in asked)
        assert reservations.reserved.fits(whole)
        assert min(reservations.free.memory_bytes, reservations.free.disk_bytes, reservations.free.gpus) >= 0
        given = [device for each in held for device in reservations.devices(each)]
        assert len(set(given)) == len(given) == reservations.reserved.gpus


def test_what_others_take_is_no_more_free_and_comes_back() -> None:
    reservations = admission.Admission(CAPACITY, 0)
    assert reservations.reserve("a", resources.Resources(1.0, 6 * GIB))
    reservations.resize(resources.Resources(4.0, 3 * GIB, 100 * GIB))
    assert reservations.free.memory_bytes == 0
    assert "memory: wants 1.00 GiB, 0.00 GiB free" in reservations.lacking(resources.Resources(0.1, GIB))
    assert not reservations.never(resources.Resources(0.1, 7 * GIB))  # it may fit again
    reservations.resize(resources.Resources(64.0, 640 * GIB, 6400 * GIB, 8))
    assert reservations.free == CAPACITY - resources.Resources(1.0, 6 * GIB)


def test_another_size_keeps_what_is_reserved_and_what_others_have_taken() -> None:
    reservations = admission.Admission(CAPACITY, 1)
    reservations.resize(resources.Resources(4.0, 3 * GIB, 100 * GIB, 1))
    assert reservations.reserve("a", resources.Resources(1.0, 2 * GIB))
    larger = resources.Resources(8.0, 16 * GIB, 100 * GIB, 1)
    reservations.adopt(larger, 3)
    assert reservations.slots == 2
    assert not reservations.reserve("b", resources.Resources(1.0, 2 * GIB))  # others have it, until somebody looks
    reservations.resize(larger)
    assert reservations.reserve("b", resources.Resources(1.0, 12 * GIB))
    reservations.adopt(resources.Resources(1.0, 1 * GIB, 1 * GIB), 1)
    assert (reservations.free.cpu_cores, reservations.free.memory_bytes) == (0.0, 0)
    assert reservations.full
    assert reservations.reserved.memory_bytes == 14 * GIB
