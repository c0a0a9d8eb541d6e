"""What every store does with an end that cannot be true: it is no result, and its node is at fault."""

from __future__ import annotations

import dataclasses

import pytest
from store_parts import Clock, ended, one, session, take, task

from hivemind_worker.pool.store import store
from hivemind_worker.tasks import outcome, state

FAILED, TIMEOUT = outcome.Status.FAILED, outcome.Reason.TIMEOUT


@pytest.mark.parametrize(
    ("own_limit", "node_limit", "seconds", "believed"),
    [
        (100.0, 100.0, 50.0, False),
        (100.0, 100.0, 98.5, True),
        (100.0, 1000.0, 150.0, True),
        (0.0, 60.0, 20.0, False),
        (3600.0, 60.0, 61.0, True),
        (100.0, 0.0, 1.0, True),
    ],
)
async def test_a_timeout_before_its_time_is_the_nodes_fault(
    kept: store.Store, clock: Clock, own_limit: float, node_limit: float, seconds: float, *, believed: bool
) -> None:
    await kept.submit([dataclasses.replace(task("a"), timeout=own_limit)])
    here = await session(kept)
    handed = await take(kept, "n", here)
    clock.seconds += seconds
    report = dataclasses.replace(ended(handed, "n", here, FAILED, TIMEOUT), run_limit=node_limit)
    await kept.report(report)
    found = await one(kept, "a")
    if believed:
        assert (found.state, found.reason) == (state.TaskState.FAILED, str(TIMEOUT))
    else:
        assert found.state is state.TaskState.QUEUED
        assert "internal: its node reports a timeout" in (await kept.story("a"))[-1].details
