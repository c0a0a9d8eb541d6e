"""What every store does about leases: what a node is given is watched, has an end, and goes by no wall clock."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable

import pytest
from store_parts import LEASE, ROOM, Clock, Opener, OpenerBy, ended, node, one, poll, session, take, task

from hivemind_worker import errors
from hivemind_worker.pool.store import clocks, deadlines, expiry, records, resting, store, takeover
from hivemind_worker.tasks import outcome, state

QUEUED, RUNNING = state.TaskState.QUEUED, state.TaskState.RUNNING
HOUR = 3600.0


async def _lost(kept: store.Store, clock: Clock) -> tuple[str, records.Handed]:
    """A node that was given task a, and whose lease has run out."""
    await kept.submit([task("a")])
    here = await session(kept)
    handed = await take(kept, "n", here)
    clock.seconds += LEASE + 1
    await kept.expire()
    assert (await one(kept, "a")).state is QUEUED
    return here, handed


# ---- every move that gives an attempt to a node ----


async def test_a_start_after_the_lease_is_under_a_lease_again(kept: store.Store, clock: Clock) -> None:
    here, _ = await _lost(kept, clock)
    assert (await kept.report(records.Report("a", "n", here, 1))).verdict is records.Verdict.ACCEPTED
    assert (await one(kept, "a")).state is RUNNING
    assert [known.alive for known in await kept.nodes()] == [True]
    # And no more is heard of it: the report was the last that its process sent.
    clock.seconds += LEASE + 1
    assert (await kept.expire()).attempts == (records.Ref("a", 1),)
    assert (await one(kept, "a")).state is QUEUED
    other = await session(kept, "other")
    assert (await take(kept, "other", other)).attempt == 2


async def test_whatever_gives_an_attempt_back_is_under_a_lease(kept: store.Store, clock: Clock) -> None:
    ways: dict[str, Callable[[str], Awaitable[object]]] = {
        "start": lambda here: kept.report(records.Report("a", "n", here, 1)),
        "heartbeat": lambda here: kept.heartbeat(records.Beat("n", here, held=(records.Ref("a", 1),))),
        "poll": lambda here: poll(kept, "n", here, records.Handed("a", 1, b"")),
        "register": lambda _here: kept.register(node(), [records.Ref("a", 1)]),
    }
    here, _ = await _lost(kept, clock)
    for name, way in ways.items():
        await way(here)
        assert (await one(kept, "a")).state is not QUEUED, name
        clock.seconds += LEASE + 1
        assert (await kept.expire()).attempts == (records.Ref("a", 1),), name
        assert (await one(kept, "a")).state is QUEUED, name


async def test_what_had_started_is_not_given_out_again_by_a_poll_that_comes_late(
    kept: store.Store, clock: Clock
) -> None:
    """Given up with its node's lease, listed and given back: that it runs is known as before."""
    ways: dict[str, Callable[[str], Awaitable[object]]] = {
        "poll": lambda here: poll(kept, "n", here, records.Handed("a", 1, b"")),
        "heartbeat": lambda here: kept.heartbeat(records.Beat("n", here, held=(records.Ref("a", 1),))),
    }
    await kept.submit([task("a")])
    here = await session(kept)
    await take(kept, "n", here)
    await kept.report(records.Report("a", "n", here, 1))
    began = (await one(kept, "a")).started_at
    for name, way in ways.items():
        clock.seconds += LEASE + 1
        await kept.expire()
        assert (await one(kept, "a")).state is QUEUED, name
        await way(here)
        assert (await poll(kept, "n", here)).tasks == (), name  # sent before it was assigned
        after = await one(kept, "a")
        assert (after.state, after.started_at) == (RUNNING, began), name


async def test_a_start_of_an_attempt_that_another_node_has_is_stale(kept: store.Store, clock: Clock) -> None:
    here, _ = await _lost(kept, clock)
    assert (await take(kept, "other", await session(kept, "other"))).attempt == 2
    assert (await kept.report(records.Report("a", "n", here, 1))).verdict is records.Verdict.STALE
    assert [known.alive for known in await kept.nodes()] == [False, True]


async def test_what_a_lost_node_holds_is_given_up_at_open(opener: Opener, clock: Clock) -> None:
    first = opener()
    await first.open()
    here, _ = await _lost(first, clock)
    await first.report(records.Report("a", "n", here, 1))
    # As an older version left it: running, on a node that nobody looks at.
    await first._write.do(lambda tx: tx.sql.execute("UPDATE nodes SET alive = 0"))  # type: ignore[attr-defined]
    await first.close()
    second = opener()
    await second.open()
    assert (await one(second, "a")).state is QUEUED
    await second._write.do(  # type: ignore[attr-defined]
        lambda tx: tx.sql.execute("UPDATE tasks SET state = 'running', node_id = 'never heard of'")
    )
    assert (await second.expire()).attempts == (records.Ref("a", 1),)
    assert (await one(second, "a")).state is QUEUED
    await second.close()


# ---- how long a node may have an attempt ----


async def _beats(kept: store.Store, here: str, clock: Clock, seconds: float) -> records.Directives:
    """A node that lists attempt 1 of task a in each of its heartbeats."""
    until = clock.seconds + seconds
    while True:
        told = await kept.heartbeat(records.Beat("n", here, held=(records.Ref("a", 1, "running"),)))
        await kept.expire()
        if clock.seconds >= until:
            return told
        # Larger steps than a real node's, so that hours are soon over: what counts is that it beats before each look.
        clock.seconds = min(clock.seconds + HOUR, until)


async def test_an_attempt_that_its_node_lists_for_ever_has_an_end(kept: store.Store, clock: Clock) -> None:
    await kept.submit([dataclasses.replace(task("a"), timeout=2 * HOUR)])
    here = await session(kept)
    handed = await take(kept, "n", here)
    whole = deadlines.seconds(2 * HOUR, with_session=True, lease_seconds=LEASE)
    assert whole == (2 + 6 + 24) * HOUR
    await _beats(kept, here, clock, whole - HOUR)
    assert (await one(kept, "a")).state is RUNNING
    await _beats(kept, here, clock, HOUR + 1)
    found = await one(kept, "a")
    assert (found.state, found.attempt) == (QUEUED, 1)
    story = await kept.story("a")
    assert "no end of it was reported within 115200 s" in story[-1].details
    # From then on it is told to drop it, by whichever call lists it, and its start is stale.
    assert (await _beats(kept, here, clock, 0)).drop == (records.Ref("a", 1, "running"),)
    assert (await kept.register(node(), [records.Ref("a", 1)])).drop == (records.Ref("a", 1),)
    assert (await kept.report(records.Report("a", "n", here, 1))).verdict is records.Verdict.STALE
    assert (await one(kept, "a")).state is QUEUED
    # A finished result is better than another run, as long as nobody else has the task.
    assert (await kept.report(ended(handed, "n", here))).verdict is records.Verdict.ACCEPTED


async def test_an_attempt_lost_and_listed_in_turns_has_the_same_end(kept: store.Store, clock: Clock) -> None:
    await kept.submit([dataclasses.replace(task("a"), timeout=HOUR)])
    here = await session(kept)
    await take(kept, "n", here)
    told = records.Directives()
    for _ in range(40):
        clock.seconds += HOUR
        await kept.expire()
        told = await kept.heartbeat(records.Beat("n", here, held=(records.Ref("a", 1, "running"),)))
    assert told.drop == (records.Ref("a", 1, "running"),)
    assert (await one(kept, "a")).state is QUEUED


async def test_a_pool_that_was_away_gives_a_late_attempt_another_lease(kept: store.Store, clock: Clock) -> None:
    await kept.submit([dataclasses.replace(task("a"), timeout=HOUR)])
    here = await session(kept)
    await take(kept, "n", here)
    clock.seconds += 100 * HOUR
    await kept.begin_leases_anew()
    assert (await kept.expire()).attempts == ()
    told = await kept.heartbeat(records.Beat("n", here, held=(records.Ref("a", 1, "running"),)))
    assert told.drop == ()
    clock.seconds += LEASE + 1
    assert (await kept.expire()).attempts == (records.Ref("a", 1),)


def test_how_long_an_attempt_may_take() -> None:
    assert deadlines.seconds(10.0, with_session=True, lease_seconds=60) == 10 + 30 * HOUR
    assert deadlines.seconds(0, with_session=True, lease_seconds=60) == 7 * 24 * HOUR + 30 * HOUR
    assert deadlines.seconds(10.0, with_session=False, lease_seconds=60) == 70
    assert deadlines.seconds(0, with_session=False, lease_seconds=60) == 3660


# ---- clocks ----


def _sick(handed: records.Handed, session_id: str) -> records.Report:
    """The report of a node that has found out that it starts no capsule of its own either."""
    report = ended(handed, "n", session_id, outcome.Status.FAILED, outcome.Reason.ENGINE_LOST)
    return dataclasses.replace(report, node_check=outcome.NodeCheck.FAILED)


async def test_a_clock_set_back_makes_no_node_rest(opener: Opener, clock: Clock, wall: Clock) -> None:
    first = opener()
    await first.open()
    await first.submit([task("a")])
    here = await session(first)
    handed = await take(first, "n", here)
    await first.report(_sick(handed, here))
    await first.close()
    wall.seconds -= 24 * HOUR
    second = opener()
    await second.open()
    assert [known.rest_seconds for known in await second.nodes()] == [1.0]
    clock.seconds += 1.1
    handed = await take(second, "n", here)
    # And the next incident is one: its attempt was given after the last, whatever the wall says.
    await second.report(_sick(handed, here))
    assert [(known.faults, known.rest_seconds) for known in await second.nodes()] == [(2, 4.0)]
    await second.close()


async def test_shown_times_follow_the_wall_and_leases_do_not(kept: store.Store, clock: Clock, wall: Clock) -> None:
    await kept.submit([task("before")])
    here = await session(kept)
    for step in (-24 * HOUR, 48 * HOUR):  # as NTP does on a machine without a clock of its own
        wall.seconds += step
        assert kept.now() == wall.seconds
        (new,) = await kept.submit([task()])
        assert (await one(kept, new)).submitted_at == wall.seconds
        await kept.heartbeat(records.Beat("n", here))
        (known,) = await kept.nodes()
        assert (known.heartbeat_at, known.alive) == (wall.seconds, True)
        clock.seconds += LEASE - 1
        assert (await kept.expire()).nodes == ()
    handed = await take(kept, "n", here)
    assert (await one(kept, handed.task_id)).assigned_at == wall.seconds
    clock.seconds += LEASE + 1
    assert (await kept.expire()).nodes == ("n",)


async def test_what_cannot_be_is_brought_within_bounds_at_open(opener: Opener, clock: Clock) -> None:
    first = opener()
    await first.open()
    await first.submit([task("a")])
    here = await session(first)
    await take(first, "n", here)

    def spoil(tx: object) -> None:
        sql = tx.sql  # type: ignore[attr-defined]
        sql.execute("UPDATE nodes SET rest_until = 1e12, faulted_at = 1e12, lease_until = 1e12")
        sql.execute("UPDATE tasks SET given_at = 1e12, deadline = 1e12")

    await first._write.do(spoil)  # type: ignore[attr-defined]
    await first.close()
    second = opener()
    await second.open()
    assert [known.rest_seconds for known in await second.nodes()] == [resting.MOST_SECONDS]
    clock.seconds += 31 * HOUR + 3601
    assert (await second.expire()).attempts == (records.Ref("a", 1),)
    await second.close()


async def test_the_lease_clock_goes_on_over_a_restart_and_stands_still_meanwhile(opener: Opener, clock: Clock) -> None:
    first = opener()
    await first.open()
    clock.seconds += 500
    stood = first.lease_time()
    await first.close()
    clock.seconds = 3.0  # the machine was started anew, days later
    second = opener()
    await second.open()
    assert second.lease_time() == stood
    await second.close()


async def test_leases_are_judged_by_the_moment_of_the_look(kept: store.Store, clock: Clock) -> None:
    await kept.submit([task("a")])
    here = await session(kept)
    await take(kept, "n", here)
    clock.seconds += LEASE - 1
    looked_at = kept.lease_time()
    clock.seconds += 10 * LEASE  # the pool's process was stopped between its look at the clock and its judgement
    assert await kept.expire(looked_at) == records.Lost()
    await kept.begin_leases_anew()  # as the next look finds
    await kept.heartbeat(records.Beat("n", here, held=(records.Ref("a", 1),)))
    assert (await kept.expire()).nodes == ()
    clock.seconds += LEASE + 1
    assert (await kept.expire(10**12)).nodes == ("n",)


# ---- nodes that never come back ----


async def test_a_node_is_forgotten_a_day_after_its_lease_and_can_come_back(kept: store.Store, clock: Clock) -> None:
    await kept.submit([task("a")])
    here, drained = await session(kept), await session(kept, "drained")
    assert drained
    await kept.drain("drained", draining=True)
    handed = await take(kept, "n", here)
    clock.seconds += LEASE + 1
    await kept.expire()
    clock.seconds += expiry.FORGET_SECONDS - LEASE
    await kept.expire()
    assert [known.node_id for known in await kept.nodes()] == ["drained", "n"]
    clock.seconds += LEASE
    await kept.expire()
    assert [known.node_id for known in await kept.nodes()] == ["drained"]
    assert await kept.lost_nodes() == 1
    with pytest.raises(errors.UnknownNode) as caught:
        await kept.report(ended(handed, "n", here))
    assert caught.value.reason == "UNKNOWN_NODE"
    again = await session(kept)
    assert again != here
    assert (await kept.report(ended(handed, "n", again))).verdict is records.Verdict.ACCEPTED
    clock.seconds += expiry.FORGET_DRAINED_SECONDS
    await kept.expire()
    await kept.expire()
    assert await kept.nodes() == ()


async def test_asking_for_living_nodes_does_not_cost_the_dead(kept: store.Store, clock: Clock) -> None:
    for number in range(20):
        await session(kept, f"dead{number}")
    clock.seconds += LEASE + 1
    await kept.expire()
    await session(kept, "living")
    assert [known.node_id for known in await kept.nodes(alive_only=True)] == ["living"]
    assert (len(await kept.nodes()), await kept.lost_nodes()) == (21, 20)


# ---- a pool that stands still ----


async def test_what_comes_before_the_next_look_is_not_judged_by_the_time_a_pool_stood_still(
    opener_by: OpenerBy, clock: Clock
) -> None:
    running = clocks.RunningTime(LEASE / 4, clock)
    kept = opener_by(running)
    await kept.open()
    await kept.submit([task("a")])
    here = await session(kept)
    for _ in range(5):
        clock.seconds += LEASE / 4
        running.tick()
        await kept.heartbeat(records.Beat("n", here))
    await take(kept, "n", here)
    clock.seconds += 10 * LEASE
    # Sent before the attempt came.
    await kept.heartbeat(records.Beat("n", here, held=()))
    (left,) = await kept.tasks(["a"])
    assert (left.state, left.attempt) == (state.TaskState.ASSIGNED, 1)
    clock.seconds += 10 * LEASE
    with pytest.raises(takeover.SessionLives):
        await kept.register(records.NewNode("n", ROOM, "another", state_lock_id="another"), ())
    await kept.close()
