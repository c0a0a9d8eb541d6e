"""What every store does about two processes of one node: a living session stands, a clash costs no attempt."""

from __future__ import annotations

import dataclasses
import math

import pytest
from store_parts import LEASE, Clock, Opener, node, one, poll, session, take, task

from hivemind_worker import errors
from hivemind_worker.pool.store import records, store, takeover
from hivemind_worker.tasks import state


def _other(boot_id: str = "boot 2", state_lock_id: str = "") -> records.NewNode:
    return dataclasses.replace(node("n", boot_id), state_lock_id=state_lock_id)


@pytest.mark.parametrize("newcomer", [_other(), _other(state_lock_id="a copy"), _other(boot_id="")])
async def test_a_living_session_stands(kept: store.Store, newcomer: records.NewNode) -> None:
    await kept.submit([task("a")])
    here = await session(kept)
    handed = await take(kept, "n", here)
    with pytest.raises(takeover.SessionLives):
        await kept.register(newcomer, (), "another session")
    with pytest.raises(takeover.SessionLives) as caught:
        await kept.register(newcomer, ())
    assert caught.value.session_id == here
    assert isinstance(caught.value, errors.StateInUse)
    await kept.heartbeat(records.Beat("n", here))
    assert (await poll(kept, "n", here)).tasks == (handed,)
    found = await one(kept, "a")
    assert (found.state, found.attempt, found.disruptions) == (state.TaskState.ASSIGNED, 1, 0)


async def test_a_session_that_cannot_live_is_taken_over(kept: store.Store, clock: Clock) -> None:
    here = await session(kept)
    silent = (await kept.register(_other("silent"), (), here)).session_id
    await kept.heartbeat(records.Beat("n", silent, status="offline"))
    offline = (await kept.register(_other("offline"), ())).session_id
    clock.seconds += LEASE + 1  # and nobody has looked at the leases yet
    late = (await kept.register(_other("late", "folder"), ())).session_id
    same_folder = (await kept.register(_other("same folder", "folder"), ())).session_id
    assert len({here, silent, offline, late, same_folder}) == 5
    for replaced in (here, silent, offline, late):
        with pytest.raises(errors.StateInUse):
            await kept.verify("n", replaced)
    await kept.verify("n", same_folder)


async def test_what_a_clash_of_folders_loses_is_a_disruption(kept: store.Store) -> None:
    await kept.submit([task("a", attempts=1)])
    here = await session(kept)
    await take(kept, "n", here)
    copy = _other("boot 2", "a copy")
    there = (await kept.register(copy, (), here)).session_id
    found = await one(kept, "a")
    assert (found.state, found.attempt, found.disruptions) == (state.TaskState.QUEUED, 1, 1)
    # It goes on after all, so it was not disrupted; and then it is lost by a crash, which counts.
    await kept.heartbeat(records.Beat("n", there, held=(records.Ref("a", 1, "running"),)))
    found = await one(kept, "a")
    assert (found.state, found.disruptions) == (state.TaskState.RUNNING, 0)
    await kept.register(_other("boot 3", "a copy"), ())
    found = await one(kept, "a")
    assert (found.state, found.disruptions) == (state.TaskState.FAILED, 0)
    assert "started anew without it" in found.error


@pytest.mark.parametrize("newcomer", [_other(state_lock_id="a fresh folder"), _other(), _other(boot_id="")])
@pytest.mark.parametrize("went", [False, True])
async def test_a_fresh_process_under_the_same_name_costs_no_attempt(
    kept: store.Store, clock: Clock, newcomer: records.NewNode, went: bool
) -> None:
    await kept.submit([task("a", attempts=1)])
    here = await session(kept)
    handed = await take(kept, "n", here)
    if went:
        listed = records.Ref("a", handed.attempt, "running")
        await kept.heartbeat(records.Beat("n", here, status="offline", held=(listed,)))
    there = (await kept.register(newcomer, (), "" if went else here)).session_id
    found = await one(kept, "a")
    assert (found.state, found.attempt, found.disruptions) == (state.TaskState.QUEUED, 1, 1)
    assert (await poll(kept, "n", there)).tasks == ()  # such takeovers can follow each other within seconds
    clock.seconds += 1
    assert (await take(kept, "n", there)).attempt == 2


async def test_a_restart_in_the_same_folder_that_lists_nothing_is_a_crash(kept: store.Store) -> None:
    await kept.submit([task("a", attempts=1)])
    await take(kept, "n", await session(kept))
    await session(kept, boot_id="boot 2")
    found = await one(kept, "a")
    assert (found.state, found.disruptions) == (state.TaskState.FAILED, 0)
    assert "worker_crash" in found.reason


async def test_whether_a_session_may_be_on_its_way_back_is_told(opener: Opener, clock: Clock) -> None:
    first = opener()
    await first.open()
    clock.seconds += 1
    here = await session(first)
    with pytest.raises(takeover.SessionLives) as caught:
        await first.register(_other(), ())
    assert caught.value.returning == math.inf  # it has come in this life of the pool
    await first.close()
    second = opener()
    await second.open()
    clock.seconds += 3
    with pytest.raises(takeover.SessionLives) as caught:
        await second.register(_other(), ())
    assert caught.value.returning == pytest.approx(3)
    await second.heartbeat(records.Beat("n", here))
    with pytest.raises(takeover.SessionLives) as caught:
        await second.register(_other(), ())
    assert caught.value.returning == math.inf
    await second.close()


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("127.0.0.1:0", "alive at 127.0.0.1 (this pool's own host): this"),
        ("10.0.0.7:0", "alive at 10.0.0.7: this"),
        ("10.0.0.7:50052", "alive at 10.0.0.7:50052: this"),
        (":0", "alive: this"),
    ],
)
async def test_a_refusal_names_the_living_node_and_its_host(kept: store.Store, address: str, place: str) -> None:
    await kept.register(dataclasses.replace(node("n"), address=address), ())
    with pytest.raises(takeover.SessionLives) as caught:
        await kept.register(_other(), ())
    assert str(caught.value).startswith(f"'n' is the id of a worker that is {place}")
