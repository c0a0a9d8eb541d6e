"""The delivery model again, over gRPC: a real pool on loopback keeps the same promises as its store."""

from __future__ import annotations

import sys

import model_runs
import pytest
from model_wire import WireBackend

STEPS = 30
EXAMPLES = 8
"""Each has a pool of its own; `make test-long` makes 300."""
SEED = "3"
"""Makes its eight examples of all that FLOORS asks for; so do 1 and 4, but not 2."""
# What twenty examples must have done at least.
FLOORS = {
    "Submit": 15,
    "Register": 30,
    "Beat": 100,
    "Poll": 50,
    "Report": 80,
    "Reopen": 2,
    "lies": 5,
    "stops in order": 3,
    "late stops": 3,
    "delivered late": 2,
    "calls at once": 5,
    "leases lost with attempts": 3,
    "attempts 2 given": 8,
    "ends accepted": 30,
    "refused: unknown node": 3,
}


# As the store's model: it computes for as long as the cores that it shares need.
@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_pool_keeps_its_promises_over_the_wire() -> None:
    tally = model_runs.run(WireBackend, EXAMPLES, STEPS, seed=model_runs.SEED or SEED)
    sys.stdout.write(tally.text())
    assert not tally.missing({name: floor * EXAMPLES // 20 for name, floor in FLOORS.items()})


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", ["1", "2"])
def test_a_pool_keeps_its_promises_over_the_wire_for_longer(seed: str) -> None:
    more = str(int(seed) + 1_000 * int(model_runs.SEED or 0))
    tally = model_runs.run(WireBackend, 150, 50, seed=more)
    assert not tally.missing({name: 5 * floor for name, floor in FLOORS.items()})
