from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from hivemind_worker.node import admission
from hivemind_worker.task import resources

GIB = resources.GIB
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


def test_a_key_reserves_once() -> None:
    reservations = admission.Admission(CAPACITY, 0)
    assert reservations.reserve("a", resources.Resources(1.0))
    with pytest.raises(ValueError, match="already"):
        reservations.reserve("a", resources.Resources(1.0))


def test_why_something_can_never_fit_is_said_in_words() -> None:
    said = admission.Admission(CAPACITY, 1).never(resources.Resources(8.0, 64 * GIB))
    assert "cpu: wants 8 cores, 4 free" in said
    assert "memory: wants 64.00 GiB, 8.00 GiB free" in said
