"""A small chaos run keeps every promise; `make chaos` is the large one. And a seed says all of it beforehand."""

from __future__ import annotations

import itertools
import os
import tempfile
from pathlib import Path

import chaos
import chaos_plan
import private_engine
import pytest


def test_a_seed_says_it_all_and_another_says_something_else() -> None:
    def drawn(seed: int) -> tuple[list[chaos_plan.Planned], list[chaos_plan.Blow]]:
        return chaos_plan.tasks(seed, 20), list(itertools.islice(chaos_plan.blows(seed, ["a", "pool"], 2.0), 50))

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_no_blow_falls_where_it_cannot() -> None:
    blows = list(itertools.islice(chaos_plan.blows(1, ["node", "pool", "engine"], 2.0), 2_000))
    assert {(blow.target, blow.kind) for blow in blows} == {
        *(("node", kind) for kind in chaos_plan.KINDS),
        *(("pool", kind) for kind in ("kill", "stop", "fill")),
        *(("engine", kind) for kind in ("kill", "stop")),
    }


@pytest.mark.long
@pytest.mark.sandbox
@pytest.mark.timeout(600)
async def test_sixty_tasks_in_chaos() -> None:
    containers = int(private_engine.possible())
    # Not in pytest's own folder, which it closes to all but root: workspaces of sandboxes are entered by another user.
    with tempfile.TemporaryDirectory(prefix="hivemind-chaos-", dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)  # noqa: PTH101  (a Path would block, it says)
        result = await chaos.run(chaos.Terms(7, 60, 3 - containers, containers), Path(folder))
    assert (result.violations, result.complaints) == ([], []), result.text
    assert sum(count for what, count in result.counts.items() if what.startswith("tasks ")) == 60, result.text
    assert any(what.startswith("kill") for what in result.counts), result.text
