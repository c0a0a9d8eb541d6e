"""Time in which the process stood still is left out of what leases are due by."""

from __future__ import annotations

import pytest
import store_parts

from hivemind_worker.pool.store import clocks


def test_what_passes_between_two_ticks_counts_up_to_a_bound() -> None:
    clock = store_parts.Clock()
    running = clocks.RunningTime(5.0, clock)
    clock.seconds += 60
    assert running() == 60, "before the first tick all of it counts"
    assert running.tick() == 60
    clock.seconds += 4
    assert running() == 64
    clock.seconds += 100
    assert running() == 65, "nobody has ticked for 104 s"
    assert running.tick() == 104
    assert running() == 65
    clock.seconds += 3
    assert (running(), running.tick(), running()) == (68, 3, 68)


@pytest.mark.parametrize("gap", [0.0, 0.1, 4.9, 5.0, 5.1, 1e9])
def test_it_never_goes_back(gap: float) -> None:
    clock = store_parts.Clock()
    running = clocks.RunningTime(5.0, clock)
    running.tick()
    shown = running()
    for _ in range(5):
        clock.seconds += gap
        before = running()
        running.tick()
        assert shown <= before == running()
        shown = before
