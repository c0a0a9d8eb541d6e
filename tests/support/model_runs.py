"""Runs the delivery model: so many examples from a seed, as a test or in search of a planted fault."""

from __future__ import annotations

import os
from collections.abc import Callable

import hypothesis
import model_calls as calls
from hypothesis import stateful
from model_ledger import Broken
from model_rules import Rules
from model_tally import Tally

SEED = os.environ.get("HIVEMIND_MODEL_SEED", "")
"""A number: other examples than the usual ones. Without it each run makes the same."""


def run(backend: Callable[[], calls.Backend], examples: int, steps: int, *, seed: str = SEED) -> Tally:
    """Run so many examples of so many steps; return what was done. Raises :class:`model_ledger.Broken`.

    Calls at once take effect in an order that nobody decides. Hypothesis repeats parts of earlier examples, and refuses
    tests that then go another way. So each example is the only one of its search, but for the first that any search
    makes: the simplest, which does nothing here.
    """
    tally = Tally()
    settings = hypothesis.settings(
        max_examples=2,
        stateful_step_count=steps,
        database=None,
        deadline=None,
        print_blob=False,
        phases=[hypothesis.Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    for number in range(examples):
        machine = type("Machine", (Rules,), {"make_backend": staticmethod(backend), "tally": tally})
        test = stateful.get_state_machine_test(machine, settings=settings)
        hypothesis.seed(number + examples * int(seed or 0))(test)()
    return tally


def finds(backend: Callable[[], calls.Backend], examples: int, steps: int, *, seed: str = "") -> str:
    """Return how a planted fault showed; empty where no example found it."""
    try:
        run(backend, examples, steps, seed=seed)
    except Broken as broken:
        return str(broken).splitlines()[0]
    return ""
