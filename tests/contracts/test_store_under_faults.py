"""What every store does about faults: sick nodes rest, tasks are given up with their story, nobody is missed in vain.

The clock is the test's own: it stands still, goes on, jumps, and is set back.
"""

from __future__ import annotations

import dataclasses

from store_parts import LEASE, ROOM, SMALL, Clock, Opener, ended, node, one, poll, session, take, task

from hivemind_worker import errors
from hivemind_worker.pool.store import records, resting, store
from hivemind_worker.tasks import outcome, resources, state

LOST = outcome.Reason.ENGINE_LOST


async def _fails(kept: store.Store, name: str, session_id: str, reason: outcome.Reason = LOST) -> records.Handed:
    handed = await take(kept, name, session_id)
    await kept.report(_sick(ended(handed, name, session_id, outcome.Status.FAILED, reason)))
    return handed


def _sick(report: records.Report) -> records.Report:
    """The report of a node that has found out that it starts no capsule of its own either."""
    return dataclasses.replace(report, node_check=outcome.NodeCheck.FAILED)


def test_a_node_rests_longer_with_each_incident_and_never_for_ever() -> None:
    assert [resting.seconds(faults) for faults in range(6)] == [0.0, 1.0, 4.0, 16.0, 60.0, 60.0]
    assert resting.seconds(10**9) == resting.MOST_SECONDS


async def test_a_sick_node_rests_while_a_sound_one_gets_the_task(kept: store.Store, clock: Clock) -> None:
    await kept.submit([task("a", attempts=2)])
    sick, sound = await session(kept, "sick"), await session(kept, "sound")
    await _fails(kept, "sick", sick)
    given = await poll(kept, "sick", sick)
    assert (given.tasks, given.again_in) == ((), 1.0)
    assert (await take(kept, "sound", sound)).attempt == 2
    clock.seconds += 1.5
    await kept.submit([task("b")])
    assert (await take(kept, "sick", sick)).task_id == "b"


async def test_one_incident_counts_once_however_many_attempts_it_took(kept: store.Store, clock: Clock) -> None:
    await kept.submit([task(f"t{number}") for number in range(4)])
    here = await session(kept)
    for handed in (await poll(kept, "n", here, most=4)).tasks:
        await kept.report(_sick(ended(handed, "n", here, outcome.Status.FAILED, LOST)))
        clock.seconds += 0.1
    (known,) = await kept.nodes()
    assert known.faults == 1


async def test_a_good_end_and_an_orderly_stop_are_no_sickness(kept: store.Store, clock: Clock) -> None:
    # Of another shape: what it hands back it is not offered again for a while.
    stopped = dataclasses.replace(SMALL, kind="python")
    await kept.submit([task("stopped", shape=stopped), task("fails", attempts=5)])
    here = await session(kept)
    await _fails(kept, "n", here, outcome.Reason.NODE_SHUTDOWN)
    await _fails(kept, "n", here, LOST)
    clock.seconds += 2
    await _fails(kept, "n", here, LOST)
    clock.seconds += 5
    assert [known.faults for known in await kept.nodes()] == [2]
    await _fails(kept, "n", here, outcome.Reason.NONZERO_EXIT)  # the task's own: the node has done its work
    assert [(known.faults, known.rest_seconds) for known in await kept.nodes()] == [(0, 0.0)]


async def test_a_poison_task_is_given_up_with_its_story(kept: store.Store, clock: Clock) -> None:
    await kept.submit([task("poison", attempts=3)])
    first, second, third = [await session(kept, name) for name in ("first", "second", "third")]
    await take(kept, "first", first)
    clock.seconds += LEASE + 1
    await kept.expire()
    second, third = await session(kept, "second"), await session(kept, "third")
    handed = await take(kept, "second", second)
    report = ended(handed, "second", second, outcome.Status.FAILED, LOST)
    await kept.report(dataclasses.replace(report, error="the engine is gone"))
    await _fails(kept, "third", third, outcome.Reason.INTERNAL)
    found = await one(kept, "poison")
    assert (found.state, found.reason, found.attempt) == (state.TaskState.FAILED, "internal", 3)
    assert "attempt 3 of 3 on third, and the task is given up" in found.error
    assert "attempt 1 on first: worker_crash: nothing was heard of first" in found.error
    assert "attempt 2 on second: engine_lost: the engine is gone" in found.error


async def test_a_long_story_is_cut_in_the_middle(kept: store.Store, clock: Clock) -> None:
    await kept.submit([task("poison", attempts=20)])
    here = await session(kept)
    for _ in range(20):
        await take(kept, "n", here)
        clock.seconds += LEASE + 1
        await kept.expire()
    error = (await one(kept, "poison")).error
    assert "attempt 3 on n" in error
    assert "13 more" in error
    assert "attempt 17 on n" in error
    assert "attempt 9 on n" not in error
    assert len(error) < 2_000


async def test_a_stale_end_is_kept_for_the_record_and_never_becomes_the_result(kept: store.Store, clock: Clock) -> None:
    await kept.submit([task("a")])
    slow, quick = await session(kept, "slow"), await session(kept, "quick")
    old = await take(kept, "slow", slow)
    clock.seconds += LEASE + 1
    await kept.expire()
    quick = await session(kept, "quick")
    new = await take(kept, "quick", quick)
    assert (await kept.report(ended(old, "slow", slow))).verdict is records.Verdict.STALE
    assert (await kept.report(ended(old, "slow", slow))).verdict is records.Verdict.STALE
    assert (await kept.report(ended(new, "quick", quick))).verdict is records.Verdict.ACCEPTED
    assert (await one(kept, "a")).result == b"completed 2 by quick"
    told = [event for event in await kept.story("a") if event.event == "stale_report"]
    assert [(event.node_id, event.details.split(";")[0]) for event in told] == [("slow", "attempt 1: completed")]


async def test_l10_retrying_twice_with_one_key_makes_one_task(kept: store.Store) -> None:
    await kept.submit([task("a"), task("b")])
    await kept.cancel(["a", "b"])
    first = await kept.retry(["a", "b"], "key")
    assert await kept.retry(["a", "b"], "key") == first
    assert len(await kept.find(records.Filter())) == 4
    assert await kept.retry(["a", "b"], "other") != first
    try:
        await kept.retry(["a"], "key")
    except errors.Conflict:
        return
    raise AssertionError("a key that stands for something else was taken")


async def test_a_whole_lease_for_everybody_when_the_pool_was_away(kept: store.Store, clock: Clock) -> None:
    await kept.submit([task("a")])
    here = await session(kept)
    await take(kept, "n", here)
    clock.seconds += 10 * LEASE
    await kept.begin_leases_anew()
    clock.seconds += LEASE * 0.9
    assert (await kept.expire()).attempts == ()
    clock.seconds += LEASE * 0.2
    assert (await kept.expire()).attempts == (records.Ref("a", 1),)


async def test_l11_what_a_dying_pool_had_just_given_is_asked_for_again_not_given_up(
    kept: store.Store, clock: Clock
) -> None:
    await kept.submit([task("a")])
    here = await session(kept)
    await take(kept, "n", here)  # the answer does not arrive: the pool dies with it
    clock.seconds += 2 * LEASE
    await kept.begin_leases_anew()
    await kept.heartbeat(records.Beat("n", here, held=()))  # comes before the poll
    assert (await take(kept, "n", here)).attempt == 1


async def test_a_client_without_sessions_has_that_lease_too(opener: Opener, clock: Clock) -> None:
    first = opener()
    await first.open()
    await first.register(records.NewNode("plain", ROOM), ())
    await first.submit([records.NewTask("a", b"", "", SMALL, timeout=1.0)])
    await first.hand_out([records.Poll("plain")])
    await first.close()
    second = opener()
    await second.open()
    clock.seconds += 1_000  # its process was stopped
    await second.begin_leases_anew()
    assert (await second.expire()).attempts == ()
    clock.seconds += LEASE / 2
    await second.heartbeat(records.Beat("plain"))
    clock.seconds += LEASE * 0.6
    assert (await second.expire()).attempts == (records.Ref("a", 1),)
    await second.close()


async def test_a_clock_that_was_set_back_forgets_nobody(opener: Opener, clock: Clock, wall: Clock) -> None:
    first = opener()
    await first.open()
    here = await session(first)
    await first.submit([task("a")])
    handed = await take(first, "n", here)
    await first.report(records.Report("a", "n", here, handed.attempt))
    await first.close()
    second = opener()
    wall.seconds -= 10**6  # twelve days earlier
    await second.open()
    clock.seconds += LEASE + 1
    # Heartbeats that name nothing: a node which lives, and has lost the task.
    await second.heartbeat(records.Beat("n", here, held=()))
    assert (await one(second, "a")).state is state.TaskState.QUEUED
    await second.close()


async def test_l14_a_node_that_came_back_smaller_gets_no_more_than_it_has(kept: store.Store) -> None:
    await kept.submit([task(f"t{number}") for number in range(24)])
    here = await session(kept)
    (given,) = await kept.hand_out([records.Poll("n", here, None, most=24)])
    assert len(given.tasks) == ROOM.cpu_cores
    held = tuple(records.Ref(handed.task_id, handed.attempt) for handed in given.tasks)
    capacity = resources.Resources(2, ROOM.memory_bytes, ROOM.disk_bytes)
    small = dataclasses.replace(node("n", "boot 2"), capacity=capacity)
    opened = await kept.register(small, held)
    known = frozenset((ref.task_id, ref.attempt) for ref in held)
    poll_of_it = records.Poll("n", opened.session_id, None, most=24, held=known)
    assert (await kept.hand_out([poll_of_it]))[0].tasks == ()
    # Six of its eight tasks end: then it is as full as it may be, and only the seventh makes room for one.
    for number, handed in enumerate(given.tasks[:7]):
        await kept.report(ended(handed, "n", opened.session_id))
        known -= {(handed.task_id, handed.attempt)}
        (more,) = await kept.hand_out([records.Poll("n", opened.session_id, None, most=24, held=known)])
        assert len(more.tasks) == (number == 6)
    (there,) = await kept.nodes()
    assert there.used.cpu_cores <= there.capacity.cpu_cores
    assert node("n").capacity == ROOM
