"""Followers hear of what they follow, miss nothing, and are let go."""

from __future__ import annotations

import asyncio

import pytest

from hivemind_worker.pool.api import changes
from hivemind_worker.pool.matching import assignment
from hivemind_worker.pool.store import records
from hivemind_worker.tasks import resources, state


def change(task_id: str, now: state.TaskState = state.TaskState.RUNNING) -> records.Change:
    return records.Change(task_id, now)


async def test_what_changes_while_nobody_looks_is_still_there() -> None:
    followers = changes.Followers()
    with followers.follow(["a", "b"]) as follower, followers.follow(["c"]) as other:
        followers.heard([change("a"), change("x")])
        followers.heard([change("b"), change("a")])
        assert await follower.changed() == {"a", "b"}
        waits = asyncio.create_task(other.changed())
        followers.tell("c")
        assert await waits == {"c"}
        assert not follower.closed
    assert followers._of == {}
    followers.tell("a")


async def test_who_wants_the_end_alone_is_woken_by_nothing_else() -> None:
    followers = changes.Followers()
    with followers.follow(["a", "b"], ended_only=True) as follower:
        followers.heard([change("a"), change("b", state.TaskState.FAILED)])
        followers.tell("a")
        assert await follower.changed() == {"b"}


async def test_closing_ends_every_following() -> None:
    followers = changes.Followers()
    with followers.follow(["a"]) as before:
        waits = asyncio.create_task(before.changed())
        await asyncio.sleep(0)
        followers.close()
        assert await waits == frozenset()
        assert await before.changed() == frozenset()
        with followers.follow(["a"]) as after:
            assert after.closed
            assert await after.changed() == frozenset()


async def test_an_end_that_is_told_whole_need_not_be_read_and_never_hides_a_later_change() -> None:
    followers = changes.Followers()
    shape = assignment.Shape("command", resources.Resources())
    task = records.Task(1, "a", state.TaskState.COMPLETED, shape, result=b"result")
    whole = records.Change("a", state.TaskState.COMPLETED, task=task)
    with followers.follow(["a"], ended_only=True) as follower:
        followers.heard([whole])
        assert await follower.changed() == {"a"}
        assert follower.take("a") is task
        assert follower.take("a") is None
        followers.heard([whole, change("a", state.TaskState.COMPLETED)])
        assert await follower.changed() == {"a"}
        assert follower.take("a") is None
    many = [f"t{number}" for number in range(2 * changes.MAX_WHOLE)]
    with followers.follow(many) as follower:
        followers.heard([records.Change(name, state.TaskState.COMPLETED, task=task) for name in many])
        assert await follower.changed() == set(many)
        assert len([name for name in many if follower.take(name) is not None]) == changes.MAX_WHOLE


async def test_a_task_that_goes_on_is_known_to_until_its_end_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "MAX_GOING_ON", 2)
    followers = changes.Followers()
    assert not followers.goes_on("a")  # it may have ended, or not be there at all
    followers.heard([change("a", state.TaskState.QUEUED), change("b"), change("a")])
    assert followers.goes_on("a")
    followers.heard([change("b", state.TaskState.FAILED)])
    assert not followers.goes_on("b")
    followers.heard([change("c"), change("d")])
    assert [followers.goes_on(task_id) for task_id in "acd"] == [False, True, True]
