"""Any sequence of calls, lies, losses, crashes and clock jumps keeps every promise of the store."""

from __future__ import annotations

import sys

import model_findings
import model_mutants
import model_runs
import pytest
from model_store import StoreBackend

STEPS = 40
EXAMPLES = 10
"""What ten seconds allow; `make test-long` makes 2,000."""
SEED = "3"
"""Makes its examples of all that FLOORS asks for."""
QUICK_SEED = "1"
"""Finds the quick fault within ten examples, of 300 that it may take."""
FLOORS = {
    "Submit": 100,
    "Cancel": 20,
    "Drain": 10,
    "Retry": 10,
    "Register": 150,
    "Beat": 500,
    "Poll": 300,
    "Report": 500,
    "Restore": 5,
    "restores of a backup": 3,
    "Reopen": 20,
    "crashes": 30,
    "stops in order": 15,
    "late stops": 20,
    "rests outlasted": 15,
    "copied folders": 10,
    "keys again": 5,
    "clock jumps": 10,
    "lies": 50,
    "delivered late": 15,
    "delivered, to come again": 2,
    "answers lost": 8,
    "calls at once": 30,
    "leases lost with attempts": 40,
    "nodes that come back": 6,
    "taken up again": 8,
    "attempts 2 given": 50,
    "attempts 3 given": 5,
    "ends accepted": 150,
    "ends duplicate": 20,
    "ends stale": 10,
    "refused: conflict": 5,
    "refused: unknown node": 20,
}
"""What a hundred examples must have done at least; they do about twice as much."""


# It computes for a minute and waits for nothing: beside three others on two cores that takes two.
@pytest.mark.timeout(300)
def test_the_store_keeps_its_promises() -> None:
    tally = model_runs.run(StoreBackend, EXAMPLES, STEPS, seed=model_runs.SEED or SEED)
    sys.stdout.write(tally.text())
    assert not tally.missing({name: floor * EXAMPLES // 100 for name, floor in FLOORS.items()})


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", ["1", "2", "3", "4"])
def test_the_store_keeps_its_promises_for_longer(seed: str) -> None:
    more = str(int(seed) + 1_000 * int(model_runs.SEED or 0))
    tally = model_runs.run(StoreBackend, 500, 60, seed=more)
    assert not tally.missing({name: 5 * floor for name, floor in FLOORS.items()})


@pytest.mark.parametrize("mutant", model_mutants.QUICK, ids=lambda mutant: mutant.__name__)
def test_the_model_finds_a_planted_fault(mutant: type[model_mutants.Mutant]) -> None:
    assert model_runs.finds(mutant, 300, STEPS, seed=QUICK_SEED)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", model_mutants.ALL, ids=lambda mutant: mutant.__name__)
def test_the_model_finds_every_planted_fault(mutant: type[model_mutants.Mutant]) -> None:
    assert model_runs.finds(mutant, 300, STEPS)


def test_open_findings_are_few_and_named() -> None:
    assert len(model_findings.OPEN) <= 3
    assert all(len(finding) > 40 for finding in model_findings.OPEN)
