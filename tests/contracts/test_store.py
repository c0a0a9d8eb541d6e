"""What every store must do about attempts: leases, fences, lost answers, cancellations, sessions."""

from __future__ import annotations

import dataclasses

import pytest
from store_parts import LEASE, ROOM, Clock, ended, node, one, poll, session, take, task

from hivemind_worker import errors
from hivemind_worker.pool.store import records, store
from hivemind_worker.tasks import outcome, state


async def test_a_lost_answer_is_repeated_and_a_received_one_is_not(kept: store.Store) -> None:
    await kept.submit([task("a"), task("b")])
    here = await session(kept)
    handed = await take(kept, "n", here)
    again = await poll(kept, "n", here)
    assert again.tasks == (handed,)
    following = await poll(kept, "n", here, handed)
    assert [each.task_id for each in following.tasks] == ["b"]
    await kept.report(records.Report("a", "n", here, 1))
    assert not (await poll(kept, "n", here, *following.tasks)).tasks  # it runs: it was received, whatever is listed


async def test_a_lease_runs_out_and_the_next_attempt_fences_the_first(kept: store.Store, clock: Clock) -> None:
    await kept.submit([task("a")])
    first, second = await session(kept, "n1"), await session(kept, "n2")
    old = await take(kept, "n1", first)
    clock.seconds += LEASE / 2
    await kept.heartbeat(records.Beat("n2", second))
    clock.seconds += LEASE / 2 + 0.1
    lost = await kept.expire()
    assert (lost.nodes, [ref.task_id for ref in lost.attempts]) == (("n1",), ["a"])
    assert (await kept.expire()).nodes == ()
    new = await take(kept, "n2", second)
    assert new.attempt == 2
    assert (await kept.report(ended(old, "n1", first))).verdict is records.Verdict.STALE
    assert (await kept.report(ended(old, "n1", first))).verdict is records.Verdict.STALE
    assert (await kept.report(ended(new, "n2", second))).verdict is records.Verdict.ACCEPTED
    assert (await kept.report(ended(new, "n2", second))).verdict is records.Verdict.DUPLICATE
    assert (await kept.report(ended(old, "n1", first))).verdict is records.Verdict.STALE
    assert (await one(kept, "a")).result == b"completed 2 by n2"


async def test_a_result_after_the_lease_counts_while_nobody_else_has_the_task(kept: store.Store, clock: Clock) -> None:
    await kept.submit([task("a")])
    here = await session(kept)
    handed = await take(kept, "n", here)
    clock.seconds += LEASE + 1
    await kept.expire()
    assert (await one(kept, "a")).state is state.TaskState.QUEUED
    assert (await kept.report(ended(handed, "n", here))).verdict is records.Verdict.ACCEPTED
    assert (await one(kept, "a")).result == b"completed 1 by n"


async def test_a_heartbeat_after_the_lease_takes_a_held_attempt_up_again(kept: store.Store, clock: Clock) -> None:
    await kept.submit([task("a")])
    here = await session(kept)
    handed = await take(kept, "n", here)
    clock.seconds += LEASE + 1
    await kept.expire()
    told = await kept.heartbeat(records.Beat("n", here, held=(records.Ref("a", 1, "running"),)))
    assert told.drop == ()
    found = await one(kept, "a")
    assert (found.state, found.attempt) == (state.TaskState.RUNNING, 1)
    assert (await kept.report(ended(handed, "n", here))).verdict is records.Verdict.ACCEPTED


async def test_attempts_are_counted_out_and_the_story_told(kept: store.Store, clock: Clock) -> None:
    await kept.submit([task("a", attempts=2)])
    here = await session(kept)
    for _ in range(2):
        await take(kept, "n", here)
        clock.seconds += LEASE + 1
        await kept.expire()
    found = await one(kept, "a")
    assert (found.state, found.reason, found.result) == (state.TaskState.FAILED, "worker_crash", None)
    assert "attempt 2 of 2" in found.error
    events = [event.event for event in await kept.story("a")]
    assert events == ["submit", "assign", "requeue", "assign", "fail"]


async def test_the_nodes_own_fault_is_tried_again_and_the_tasks_is_not(kept: store.Store, clock: Clock) -> None:
    await kept.submit([task("a", attempts=2)])
    here = await session(kept)
    crash = outcome.Reason.ENGINE_LOST
    for verdict, expected in (("first", state.TaskState.QUEUED), ("last", state.TaskState.FAILED)):
        handed = await take(kept, "n", here)
        report = ended(handed, "n", here, outcome.Status.FAILED, crash)
        assert (await kept.report(report)).verdict is records.Verdict.ACCEPTED, verdict
        assert (await kept.report(report)).verdict is records.Verdict.DUPLICATE, verdict
        assert (await one(kept, "a")).state is expected
        clock.seconds += LEASE  # it rests after each
    assert (await one(kept, "a")).result == b"failed 2 by n"
    await kept.submit([task("b")])
    handed = await take(kept, "n", here)
    await kept.report(ended(handed, "n", here, outcome.Status.FAILED, outcome.Reason.NONZERO_EXIT))
    assert (await one(kept, "b")).state is state.TaskState.FAILED


async def test_what_a_living_node_names_no_more_is_given_up_after_a_lease(kept: store.Store, clock: Clock) -> None:
    await kept.submit([task("kept"), task("forgotten")])
    here = await session(kept)
    await poll(kept, "n", here, most=2)
    for task_id in ("kept", "forgotten"):
        await kept.report(records.Report(task_id, "n", here, 1))
    for _ in range(3):
        await kept.heartbeat(records.Beat("n", here, held=(records.Ref("kept", 1),)))
        assert (await one(kept, "forgotten")).state is state.TaskState.RUNNING
        clock.seconds += LEASE / 2 - 0.1
    clock.seconds += 1
    await kept.heartbeat(records.Beat("n", here, held=(records.Ref("kept", 1),)))
    assert (await one(kept, "kept")).state is state.TaskState.RUNNING
    assert (await one(kept, "forgotten")).state is state.TaskState.QUEUED


async def test_cancelling(kept: store.Store, clock: Clock) -> None:
    await kept.submit([task("queued"), task("running"), task("lost"), task("raced")])
    await kept.cancel(["queued"])
    assert (await one(kept, "queued")).reason == "cancelled"
    here = await session(kept)
    given = {handed.task_id: handed for handed in (await poll(kept, "n", here, most=3)).tasks}
    for task_id in given:
        await kept.report(records.Report(task_id, "n", here, 1))
    found = await kept.cancel(["running", "lost", "raced", "running"])
    assert [each.cancel_requested for each in found] == [True] * 4
    told = await poll(kept, "n", here, *given.values(), paused=True)
    assert {ref.task_id for ref in told.cancel} == set(given)
    assert {ref.task_id for ref in (await kept.heartbeat(records.Beat("n", here))).cancel} == set(given)
    stopped = ended(given["running"], "n", here, outcome.Status.CANCELLED, outcome.Reason.CANCELLED)
    assert (await kept.report(stopped)).verdict is records.Verdict.ACCEPTED
    assert (await kept.report(ended(given["raced"], "n", here))).verdict is records.Verdict.ACCEPTED
    clock.seconds += LEASE + 1
    await kept.expire()
    assert [(await one(kept, each)).state for each in ("running", "raced", "lost")] == [
        state.TaskState.CANCELLED,
        state.TaskState.COMPLETED,  # it had ended before the wish arrived
        state.TaskState.CANCELLED,
    ]
    with pytest.raises(errors.NoSuchTask):
        await kept.cancel(["running", "nobody"])
    await kept.cancel(["raced"])
    assert (await one(kept, "raced")).state is state.TaskState.COMPLETED


async def test_a_cancelled_task_that_was_never_received_ends_at_the_next_poll(kept: store.Store) -> None:
    await kept.submit([task("a")])
    here = await session(kept)
    await take(kept, "n", here)
    await kept.cancel(["a"])
    assert not await poll(kept, "n", here)
    assert (await one(kept, "a")).state is state.TaskState.CANCELLED


async def test_a_new_process_takes_over_with_what_it_lists(kept: store.Store) -> None:
    await kept.submit([task("kept"), task("lost")])
    old = await session(kept, "n", "boot 1")
    await poll(kept, "n", old, most=2)
    opened = await kept.register(node("n", "boot 2"), [records.Ref("kept", 1, "running"), records.Ref("never", 3)])
    assert [ref.task_id for ref in opened.drop] == ["never"]
    assert opened.session_id != old
    assert (await one(kept, "kept")).state is state.TaskState.RUNNING
    assert (await one(kept, "lost")).state is state.TaskState.QUEUED
    with pytest.raises(errors.StateInUse):
        await kept.heartbeat(records.Beat("n", old))
    with pytest.raises(errors.StateInUse):
        await kept.report(ended(records.Handed("kept", 1, b""), "n", old))
    with pytest.raises(errors.UnknownNode) as caught:
        await kept.verify("n", "made up")
    assert caught.value.reason == "UNKNOWN_SESSION"
    with pytest.raises(errors.UnknownNode) as caught:
        await kept.verify("nobody", "")
    assert caught.value.reason == "UNKNOWN_NODE"


async def test_registering_again_as_the_same_process_changes_nothing(kept: store.Store) -> None:
    await kept.submit([task("a")])
    here = await session(kept)
    handed = await take(kept, "n", here)
    assert await session(kept) == here
    assert (await one(kept, "a")).state is state.TaskState.ASSIGNED
    assert (await poll(kept, "n", here)).tasks == (handed,)


async def test_a_node_without_a_session_takes_one_at_a_time(kept: store.Store, clock: Clock) -> None:
    await kept.submit([dataclasses.replace(task("a", attempts=1), timeout=5 * LEASE), task("b")])
    await kept.register(node("n", ""), [])
    assert (await take(kept, "n", "")).task_id == "a"
    assert not (await poll(kept, "n", "")).tasks
    report = records.Report("a", "n", "", 0, outcome.Status.COMPLETED, body=b"result")
    assert (await kept.report(report)).verdict is records.Verdict.ACCEPTED
    assert (await kept.report(report)).verdict is records.Verdict.DUPLICATE
    assert (await take(kept, "n", "")).task_id == "b"
    for _ in range(8):  # nothing is heard of it, although its node lives: its report was lost
        clock.seconds += 500
        await kept.heartbeat(records.Beat("n"))
        await kept.expire()
    assert (await one(kept, "b")).state is state.TaskState.QUEUED


async def test_files_that_are_missing_are_asked_for_once_the_end_would_count(kept: store.Store) -> None:
    await kept.submit([task("a")])
    here = await session(kept)
    handed = await take(kept, "n", here)
    report = dataclasses.replace(ended(handed, "n", here), missing=("abc",))
    with pytest.raises(errors.Rejected) as caught:
        await kept.report(report)
    assert caught.value.reason == "MISSING_ARTIFACT"
    assert (await one(kept, "a")).state is state.TaskState.ASSIGNED
    await kept.report(ended(handed, "n", here))
    assert (await kept.report(report)).verdict is records.Verdict.DUPLICATE


async def test_reports_of_what_never_was(kept: store.Store) -> None:
    await kept.submit([task("a")])
    here, other = await session(kept), await session(kept, "other")
    handed = await take(kept, "n", here)
    unknown = records.Handed("nothing", 1, b"")
    assert (await kept.report(ended(unknown, "n", here))).verdict is records.Verdict.UNKNOWN
    ahead = dataclasses.replace(handed, attempt=2)
    assert (await kept.report(ended(ahead, "n", here))).verdict is records.Verdict.UNKNOWN
    assert (await kept.report(ended(handed, "other", other))).verdict is records.Verdict.STALE
    nameless = dataclasses.replace(handed, attempt=0)
    assert (await kept.report(ended(nameless, "other", other))).verdict is records.Verdict.STALE
    assert (await kept.report(ended(handed, "n", here))).verdict is records.Verdict.ACCEPTED


async def test_a_node_that_lets_the_pool_count_gets_no_more_tasks_than_it_takes_at_once(kept: store.Store) -> None:
    await kept.submit([task(f"t{number}") for number in range(6)])
    here = (await kept.register(dataclasses.replace(node(), max_concurrent_tasks=3), ())).session_id
    handed = (await poll(kept, "n", here, most=2)).tasks
    handed += (await poll(kept, "n", here, *handed, most=3)).tasks
    assert len(handed) == 3
    assert (await poll(kept, "n", here, *handed, most=3)).tasks == ()
    await kept.report(ended(handed[0], "n", here))
    assert len((await poll(kept, "n", here, *handed[1:], most=3)).tasks) == 1
    # One that says what is free counts for itself: what it has ended and not yet reported takes no slot there.
    known = frozenset((f"t{number}", 1) for number in range(1, 4))
    (given,) = await kept.hand_out([records.Poll("n", here, ROOM, most=2, held=known)])
    assert len(given.tasks) == 2
