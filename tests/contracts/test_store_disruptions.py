"""What every store does about disruptions: what the system ends uses up no attempts, up to a bound."""

from __future__ import annotations

import dataclasses

from store_parts import LEASE, Clock, ended, one, session, take, task

from hivemind_worker.nodepool.store import moves, records, store
from hivemind_worker.task import outcome, state

DEPLOYED = outcome.Reason.NODE_SHUTDOWN
CRASHED = outcome.Reason.WORKER_CRASH


async def _hands_back(
    kept: store.Store, session_id: str, reason: outcome.Reason = DEPLOYED, error: str = ""
) -> records.Answer:
    handed = await take(kept, "n", session_id)
    report = ended(handed, "n", session_id, outcome.Status.FAILED, reason)
    return await kept.report(dataclasses.replace(report, error=error))


async def test_orderly_deployments_use_up_no_attempts(kept: store.Store) -> None:
    await kept.submit([task("a", attempts=1)])
    here = await session(kept)
    for number in range(1, 4):
        await _hands_back(kept, here)
        found = await one(kept, "a")
        assert (found.state, found.attempt, found.disruptions) == (state.TaskState.QUEUED, number, number)
    handed = await take(kept, "n", here)
    assert handed.attempt == 4
    assert (await kept.report(ended(handed, "n", here))).verdict is records.Verdict.ACCEPTED
    assert (await one(kept, "a")).result == b"completed 4 by n"


async def test_disruptions_have_a_bound_of_their_own_which_is_told(kept: store.Store) -> None:
    await kept.submit([task("a", attempts=100)])
    here = await session(kept)
    for _ in range(moves.MAX_DISRUPTIONS - 1):
        await _hands_back(kept, here)
    assert (await one(kept, "a")).state is state.TaskState.QUEUED
    await _hands_back(kept, here, error="the node drains")
    found = await one(kept, "a")
    assert (found.state, found.reason, found.attempt) == (state.TaskState.FAILED, str(DEPLOYED), moves.MAX_DISRUPTIONS)
    assert "the last of 30 disruptions" in found.error
    assert "the node drains" in found.error


async def test_attempts_and_disruptions_are_counted_apart_and_told(kept: store.Store, clock: Clock) -> None:
    await kept.submit([task("a", attempts=2)])
    here = await session(kept)
    for reason in (DEPLOYED, CRASHED, DEPLOYED, DEPLOYED):
        await _hands_back(kept, here, reason)
        clock.seconds += LEASE / 4  # it rests after its own fault
    assert (await one(kept, "a")).state is state.TaskState.QUEUED
    await _hands_back(kept, here, CRASHED)
    found = await one(kept, "a")
    assert (found.state, found.attempt, found.disruptions) == (state.TaskState.FAILED, 5, 3)
    assert "attempt 5 on n (2 of 2 are used up; 3 were disrupted and do not count)" in found.error


async def test_a_lost_lease_uses_up_an_attempt(kept: store.Store, clock: Clock) -> None:
    await kept.submit([task("a", attempts=1)])
    here = await session(kept)
    await _hands_back(kept, here)
    await take(kept, "n", here)
    clock.seconds += LEASE + 1
    await kept.expire()
    found = await one(kept, "a")
    assert (found.state, found.disruptions) == (state.TaskState.FAILED, 1)


async def test_an_attempt_whose_lease_was_lost_is_a_disruption_once_its_node_says_so(
    kept: store.Store, clock: Clock
) -> None:
    await kept.submit([task("a", attempts=2)])
    here = await session(kept)
    handed = await take(kept, "n", here)
    clock.seconds += LEASE + 1
    await kept.expire()
    late = ended(handed, "n", here, outcome.Status.FAILED, DEPLOYED)
    assert (await kept.report(late)).verdict is records.Verdict.ACCEPTED
    assert (await kept.report(late)).verdict is records.Verdict.DUPLICATE
    assert (await one(kept, "a")).disruptions == 1
    await _hands_back(kept, here, CRASHED)
    assert (await one(kept, "a")).state is state.TaskState.QUEUED  # one of its two attempts is left
    clock.seconds += LEASE / 4
    await _hands_back(kept, here, CRASHED)
    assert (await one(kept, "a")).state is state.TaskState.FAILED


async def test_a_cancelled_task_is_not_queued_again_by_a_disruption(kept: store.Store) -> None:
    await kept.submit([task("a")])
    here = await session(kept)
    handed = await take(kept, "n", here)
    await kept.cancel(["a"])
    await kept.report(ended(handed, "n", here, outcome.Status.FAILED, DEPLOYED))
    assert (await one(kept, "a")).state is state.TaskState.CANCELLED
