"""What every store does about disruptions: what the system ends uses up no attempts, up to a bound."""

from __future__ import annotations

import dataclasses

from store_parts import LARGE, LEASE, SMALL, Clock, Opener, ended, one, poll, session, take, task

from hivemind_worker.pool.store import moves, records, resting, store
from hivemind_worker.tasks import outcome, state

DEPLOYED = outcome.Reason.NODE_SHUTDOWN
CRASHED = outcome.Reason.WORKER_CRASH


def _rest(clock: Clock) -> None:
    """Let every rest after a hand-back end."""
    clock.seconds += resting.MAX_SHAPE_SECONDS


async def _hands_back(
    kept: store.Store, session_id: str, reason: outcome.Reason = DEPLOYED, error: str = ""
) -> records.Answer:
    handed = await take(kept, "n", session_id)
    report = ended(handed, "n", session_id, outcome.Status.FAILED, reason)
    return await kept.report(dataclasses.replace(report, error=error))


async def test_orderly_deployments_use_up_no_attempts(kept: store.Store, clock: Clock) -> None:
    await kept.submit([task("a", attempts=1)])
    here = await session(kept)
    for number in range(1, 4):
        await _hands_back(kept, here)
        found = await one(kept, "a")
        assert (found.state, found.attempt, found.disruptions) == (state.TaskState.QUEUED, number, number)
        _rest(clock)
    handed = await take(kept, "n", here)
    assert handed.attempt == 4
    assert (await kept.report(ended(handed, "n", here))).verdict is records.Verdict.ACCEPTED
    assert (await one(kept, "a")).result == b"completed 4 by n"


async def test_disruptions_have_a_bound_of_their_own_which_is_told(kept: store.Store, clock: Clock) -> None:
    await kept.submit([task("a", attempts=100)])
    here = await session(kept)
    for _ in range(moves.MAX_DISRUPTIONS - 1):
        await _hands_back(kept, here)
        _rest(clock)
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
        _rest(clock)
    assert (await one(kept, "a")).state is state.TaskState.QUEUED
    await _hands_back(kept, here, CRASHED)
    found = await one(kept, "a")
    assert (found.state, found.attempt, found.disruptions) == (state.TaskState.FAILED, 5, 3)
    assert "attempt 5 on n (2 of 2 are used up; 3 were disrupted and do not count)" in found.error


async def test_a_lost_lease_uses_up_an_attempt(kept: store.Store, clock: Clock) -> None:
    await kept.submit([task("a", attempts=1)])
    here = await session(kept)
    await _hands_back(kept, here)
    _rest(clock)
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
    _rest(clock)
    await _hands_back(kept, here, CRASHED)
    assert (await one(kept, "a")).state is state.TaskState.QUEUED  # one of its two attempts is left
    clock.seconds += LEASE / 4
    await _hands_back(kept, here, CRASHED)
    assert (await one(kept, "a")).state is state.TaskState.FAILED


async def test_a_late_word_of_an_orderly_stop_gives_back_the_attempt_that_the_lease_cost(
    kept: store.Store, clock: Clock
) -> None:
    await kept.submit([task("a", attempts=2)])
    here, there = await session(kept), await session(kept, "other")
    handed = await take(kept, "n", here)
    clock.seconds += LEASE + 1
    await kept.heartbeat(records.Beat("other", there))
    await kept.expire()
    newer = await take(kept, "other", there)
    late = ended(handed, "n", here, outcome.Status.FAILED, DEPLOYED)
    assert (await kept.report(dataclasses.replace(late, epoch="0" * 32))).verdict is records.Verdict.UNKNOWN
    for _ in range(2):
        assert (await kept.report(late)).verdict is records.Verdict.STALE
        assert (await one(kept, "a")).disruptions == 1
    # One of its two attempts is left, so the crash of this one is not the end.
    await kept.report(ended(newer, "other", there, outcome.Status.FAILED, CRASHED))
    assert (await one(kept, "a")).state is state.TaskState.QUEUED


async def test_a_late_word_of_an_orderly_stop_changes_nothing_of_what_was_lost_otherwise(
    kept: store.Store, clock: Clock
) -> None:
    await kept.submit([task("a", attempts=3)])
    here, there = await session(kept), await session(kept, "other")
    handed = await take(kept, "n", here)
    clock.seconds += LEASE + 1
    await kept.expire()
    # It goes on after all; then a new process of its node does not have it any more.
    await kept.report(dataclasses.replace(ended(handed, "n", here), status=None, body=b""))
    again = await session(kept, "n", "another process")
    await kept.heartbeat(records.Beat("other", there))
    await take(kept, "other", there)
    late = ended(handed, "n", again, outcome.Status.FAILED, DEPLOYED)
    assert (await kept.report(late)).verdict is records.Verdict.STALE
    assert (await one(kept, "a")).disruptions == 0


async def test_an_ended_task_stays_as_it_ended_whatever_its_node_says_of_its_stop(
    kept: store.Store, clock: Clock
) -> None:
    await kept.submit([task("a", attempts=1)])
    here = await session(kept)
    handed = await take(kept, "n", here)
    clock.seconds += LEASE + 1
    await kept.expire()
    before = await one(kept, "a")
    assert before.state is state.TaskState.FAILED
    await kept.report(ended(handed, "n", here, outcome.Status.FAILED, DEPLOYED))
    assert dataclasses.replace(await one(kept, "a"), version=before.version) == before


async def test_what_a_node_that_stopped_in_order_holds_is_a_disruption_when_it_does_not_return(
    kept: store.Store, clock: Clock
) -> None:
    await kept.submit([task("a", attempts=1)])
    here = await session(kept)
    handed = await take(kept, "n", here)
    listed = (records.Ref(handed.task_id, handed.attempt),)
    await kept.heartbeat(records.Beat("n", here, status="offline", held=listed))
    clock.seconds += LEASE + 1
    await kept.expire()
    found = await one(kept, "a")
    assert (found.state, found.disruptions) == (state.TaskState.QUEUED, 1)
    # Its late word counts once.
    await kept.report(ended(handed, "n", here, outcome.Status.FAILED, DEPLOYED))
    assert (await one(kept, "a")).disruptions == 1
    there = await session(kept, "other")
    newer = await take(kept, "other", there)
    assert (await kept.report(ended(newer, "other", there))).verdict is records.Verdict.ACCEPTED


async def test_pool_and_nodes_that_stop_together_use_up_no_attempts(opener: Opener, clock: Clock) -> None:
    first = opener()
    await first.open()
    await first.submit([task("a", attempts=1)])
    handed = await take(first, "n", await session(first))
    await first.close()
    second = opener()
    await second.open()
    clock.seconds += LEASE + 1
    await second.expire()
    found = await one(second, "a")
    assert (found.state, found.disruptions) == (state.TaskState.QUEUED, 1)
    # A crash of its node, told late, uses up the attempt after all.
    again = await session(second, "n", "another process")
    late = ended(handed, "n", again, outcome.Status.FAILED, CRASHED)
    assert (await second.report(late)).verdict is records.Verdict.ACCEPTED
    found = await one(second, "a")
    assert (found.state, found.reason, found.disruptions) == (state.TaskState.FAILED, str(CRASHED), 0)
    await second.close()


async def test_a_node_that_was_heard_since_the_pool_started_loses_its_lease_as_ever(
    opener: Opener, clock: Clock
) -> None:
    first = opener()
    await first.open()
    await first.submit([task("a", attempts=1)])
    here = await session(first)
    handed = await take(first, "n", here)
    await first.close()
    second = opener()
    await second.open()
    await poll(second, "n", here, handed)  # within a moment, when its lease need not be renewed
    clock.seconds += LEASE + 1
    await second.expire()
    found = await one(second, "a")
    assert (found.state, found.disruptions) == (state.TaskState.FAILED, 0)
    await second.close()


async def test_a_cancelled_task_is_not_queued_again_by_a_disruption(kept: store.Store) -> None:
    await kept.submit([task("a")])
    here = await session(kept)
    handed = await take(kept, "n", here)
    await kept.cancel(["a"])
    await kept.report(ended(handed, "n", here, outcome.Status.FAILED, DEPLOYED))
    assert (await one(kept, "a")).state is state.TaskState.CANCELLED


async def test_what_its_node_alone_stopped_is_a_disruption_whatever_the_node_calls_it(
    kept: store.Store, clock: Clock
) -> None:
    await kept.submit([task("given", attempts=1), task("lost", attempts=2)])
    here = await session(kept)
    given, lost = (await poll(kept, "n", here, most=2)).tasks
    assert (given.task_id, lost.task_id) == ("given", "lost")
    stopped = ended(given, "n", here, outcome.Status.CANCELLED, outcome.Reason.CANCELLED)
    assert (await kept.report(stopped)).verdict is records.Verdict.ACCEPTED
    clock.seconds += LEASE + 1
    await kept.expire()
    stopped = ended(lost, "n", here, outcome.Status.CANCELLED, outcome.Reason.CANCELLED)
    assert (await kept.report(stopped)).verdict is records.Verdict.ACCEPTED
    for each in ("given", "lost"):
        found = await one(kept, each)
        assert (found.state, found.attempt, found.disruptions) == (state.TaskState.QUEUED, 1, 1)
        assert "nobody had asked for that" in (await kept.story(each))[-1].details


# ---- a node rests from what it has handed back ----


async def test_one_node_that_never_has_room_takes_hours_to_fail_a_task(kept: store.Store, clock: Clock) -> None:
    await kept.submit([task("a", attempts=1)])
    here = await session(kept)
    began, polls = clock.seconds, 0
    while (await one(kept, "a")).state is state.TaskState.QUEUED:
        polls += 1
        (given,) = await kept.hand_out([records.Poll("n", here, None)])
        for handed in given.tasks:
            await kept.report(ended(handed, "n", here, outcome.Status.FAILED, DEPLOYED))
        if not given.tasks:
            assert 0 < given.again_in <= resting.MAX_SHAPE_SECONDS
            clock.seconds += given.again_in
    found = await one(kept, "a")
    assert (found.state, found.attempt) == (state.TaskState.FAILED, moves.MAX_DISRUPTIONS)
    assert clock.seconds - began > 4 * 3600
    assert polls < 3 * moves.MAX_DISRUPTIONS


async def test_what_was_handed_back_is_offered_to_others_and_other_tasks_to_its_node(kept: store.Store) -> None:
    other_shape = dataclasses.replace(SMALL, kind="python")
    await kept.submit([task("a"), task("b", shape=other_shape)])
    here = await session(kept)
    await _hands_back(kept, here)
    handed = await take(kept, "n", here)
    assert handed.task_id == "b"
    (found,) = await kept.nodes()
    assert found.shape_rests == {SMALL: 1.0}
    there = await session(kept, "other")
    handed = await take(kept, "other", there)
    assert (handed.task_id, handed.attempt) == ("a", 2)


async def test_a_poll_that_waits_is_not_given_what_its_node_hands_back_meanwhile(kept: store.Store) -> None:
    answered: list[records.Given] = []
    kept.answer(lambda _poll, given: answered.append(given))
    await kept.submit([task("a")])
    here = await session(kept)
    handed = await take(kept, "n", here)
    known = frozenset({("a", 1)})
    await kept.hand_out([records.Poll("n", here, None, held=known, stays=True)])
    await kept.report(ended(handed, "n", here, outcome.Status.FAILED, DEPLOYED))
    assert answered == []
    assert (await one(kept, "a")).state is state.TaskState.QUEUED


async def test_a_pause_grows_and_begins_small_again_after_a_good_end_or_a_long_time(
    kept: store.Store, clock: Clock
) -> None:
    here = await session(kept)

    async def pause() -> float:
        await kept.submit([task()])
        handed = await take(kept, "n", here)
        clock.seconds += 0.5  # two attempts that end in one moment are one incident
        await kept.report(ended(handed, "n", here, outcome.Status.FAILED, DEPLOYED))
        seconds = (await poll(kept, "n", here)).again_in
        clock.seconds += seconds
        return seconds

    assert [await pause() for _ in range(7)] == [1, 4, 16, 64, 256, 600, 600]
    handed = await take(kept, "n", here)
    clock.seconds += 0.5
    await kept.report(ended(handed, "n", here))
    assert [await pause() for _ in range(2)] == [1, 4]
    clock.seconds += resting.MAX_SHAPE_SECONDS + 1
    assert await pause() == 1


async def test_rests_outlive_the_pool_within_their_bounds(opener: Opener, clock: Clock) -> None:
    first = opener()
    await first.open()
    await first.submit([task("a"), task("large", shape=LARGE)])
    here = await session(first)
    await _hands_back(first, here)
    await first.close()
    second = opener()
    await second.open()
    assert (await poll(second, "n", here)).tasks == ()
    await second._write.do(lambda tx: tx.sql.execute("UPDATE shape_rests SET rest_until = 1e12"))  # type: ignore[attr-defined]
    await second.close()
    third = opener()
    await third.open()
    clock.seconds += resting.MAX_SHAPE_SECONDS + 1
    assert (await take(third, "n", here)).task_id == "a"
    await third.expire()
    await third.close()


async def test_what_a_stopping_node_does_not_list_goes_to_others_at_once(kept: store.Store, clock: Clock) -> None:
    await kept.submit([task("received", attempts=1), task("lost on the way", attempts=1)])
    here, other = await session(kept), await session(kept, "other")
    received, _ = (await poll(kept, "n", here, most=2)).tasks
    listed = (records.Ref(received.task_id, received.attempt),)
    await kept.heartbeat(records.Beat("n", here, status="offline", held=listed))
    found = await one(kept, "lost on the way")
    assert (found.state, found.disruptions) == (state.TaskState.QUEUED, 1)
    assert (await one(kept, "received")).state is state.TaskState.ASSIGNED
    # A poll that the last word has overtaken is given nothing: it would wait for a lease.
    assert not (await poll(kept, "n", here, received)).tasks
    assert (await take(kept, "other", other)).task_id == "lost on the way"
    # What it listed is in its outbox, and counts.
    assert (await kept.report(ended(received, "n", here))).verdict is records.Verdict.ACCEPTED
    clock.seconds += resting.shape_seconds(1)
    await kept.submit([task("next")])
    again = await session(kept, "n", "another process")
    assert (await take(kept, "n", again)).task_id == "next"


async def test_a_waiting_poll_of_a_node_that_stops_is_passed_over(kept: store.Store) -> None:
    here = await session(kept)
    waiting = records.Poll("n", here, None, stays=True)
    assert not any(given.tasks for given in await kept.hand_out([waiting]))
    await kept.heartbeat(records.Beat("n", here, status="offline", held=()))
    await kept.submit([task("a")])
    assert (await one(kept, "a")).state is state.TaskState.QUEUED
