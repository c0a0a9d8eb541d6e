"""A stop only grows, reaches every child, and wakes whoever waits."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivemind_worker.concurrency import stopping
from hivemind_worker.concurrency.stopping import Stop, StopLevel

Virtually = Callable[[Coroutine[Any, Any, Any]], Any]

LEVELS = st.sampled_from([StopLevel.DRAIN, StopLevel.CANCEL, StopLevel.KILL])


@given(st.lists(st.tuples(st.booleans(), LEVELS), max_size=12))
def test_a_stop_never_falls_and_a_child_is_never_below_its_parent(requests: list[tuple[bool, StopLevel]]) -> None:
    parent = Stop()
    child = parent.child()
    asked_of_parent = [level for of_parent, level in requests if of_parent]
    for of_parent, level in requests:
        before = (parent.level, child.level)
        (parent if of_parent else child).request(level, f"because {level.name}")
        assert parent.level >= before[0]
        assert child.level >= before[1]
        assert child.level >= parent.level
    assert parent.level == max(asked_of_parent, default=StopLevel.RUN)
    assert child.level == max((level for _, level in requests), default=StopLevel.RUN)


def test_what_is_asked_of_a_child_does_not_touch_the_parent() -> None:
    parent = Stop()
    child = parent.child()
    assert child.request(StopLevel.KILL, "cancelled by its submitter")
    assert not parent.requested
    assert parent.level is StopLevel.RUN
    assert parent.reason == ""


def test_a_child_made_late_inherits_what_was_asked_with_each_reason_and_the_deadline(virtually: Virtually) -> None:
    async def story() -> None:
        parent = Stop()
        parent.request(StopLevel.DRAIN, "SIGTERM", deadline_seconds=300)
        parent.request(StopLevel.CANCEL, "drained long enough")
        child = parent.child()
        assert child.level is StopLevel.CANCEL
        assert child.reason == "drained long enough"
        assert child.reason_for(StopLevel.DRAIN) == "SIGTERM"
        assert child.remaining() == 300

    virtually(story())


def test_a_grandchild_hears_even_when_nobody_holds_the_child() -> None:
    top = Stop()
    grandchild = top.child().child()
    gc.collect()
    top.request(StopLevel.CANCEL, "over")
    assert grandchild.level is StopLevel.CANCEL


def test_an_ended_child_is_forgotten() -> None:
    top = Stop()
    child = top.child()
    assert len(top._children) == 1
    del child
    gc.collect()
    assert len(top._children) == 0


def test_the_reason_of_the_cancel_survives_the_kill_that_follows() -> None:
    stop = Stop()
    stop.request(StopLevel.CANCEL, "cancelled")
    stop.request(StopLevel.KILL, "grace time over")
    assert stop.reason == "grace time over"
    assert stop.reason_for(StopLevel.CANCEL) == "cancelled"
    assert stop.reason_for(StopLevel.KILL) == "grace time over"
    assert stop.reason_for(StopLevel.DRAIN) == "cancelled"


def test_lower_and_repeated_requests_change_nothing_but_a_nearer_deadline(virtually: Virtually) -> None:
    async def story() -> None:
        stop = Stop()
        assert stop.request(StopLevel.CANCEL, "first", deadline_seconds=10)
        assert not stop.request(StopLevel.DRAIN, "lower", deadline_seconds=1)
        assert not stop.request(StopLevel.CANCEL, "later", deadline_seconds=20)
        assert (stop.reason, stop.remaining()) == ("first", 10)
        assert stop.request(StopLevel.CANCEL, "nearer", deadline_seconds=4)
        assert (stop.reason, stop.remaining()) == ("first", 4)
        await asyncio.sleep(3)
        assert stop.remaining() == 1
        await asyncio.sleep(3)
        assert stop.remaining() == 0

    virtually(story())


def test_it_cannot_be_taken_back() -> None:
    with pytest.raises(ValueError, match="cannot be taken back"):
        Stop().request(StopLevel.RUN, "changed my mind")


def test_waiting_ends_at_the_level_asked_for_and_not_before(virtually: Virtually) -> None:
    async def story() -> list[str]:
        stop = Stop()
        order: list[str] = []

        async def waiter(level: StopLevel) -> None:
            assert await stop.wait(level)
            order.append(level.name)

        async with asyncio.TaskGroup() as group:
            for level in (StopLevel.KILL, StopLevel.DRAIN, StopLevel.CANCEL):
                group.create_task(waiter(level))
            for level in (StopLevel.DRAIN, StopLevel.CANCEL, StopLevel.KILL):
                await asyncio.sleep(1)
                assert level.name not in order
                stop.request(level, "test")
        assert not stop._waiters
        return order

    assert virtually(story()) == ["DRAIN", "CANCEL", "KILL"]


def test_a_wait_with_a_timeout_is_a_sleep_that_a_stop_ends(virtually: Virtually) -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        stop = Stop()
        assert not await stop.wait(timeout=5)
        assert loop.time() == 5
        loop.call_later(2, stop.request, StopLevel.DRAIN, "enough")
        assert await stop.wait(timeout=5)
        assert loop.time() == 7
        assert not stop._waiters

    virtually(story())


async def test_a_signal_handler_may_ask() -> None:
    stop = Stop()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, stop.request, StopLevel.DRAIN, "SIGUSR1")
    try:
        signal.raise_signal(signal.SIGUSR1)
        assert await stop.wait(timeout=10)
    finally:
        loop.remove_signal_handler(signal.SIGUSR1)
    assert stop.reason == "SIGUSR1"


def test_until_gives_the_works_answer(virtually: Virtually) -> None:
    async def work() -> int:
        await asyncio.sleep(3)
        return 42

    async def story() -> int:
        return await Stop().until(StopLevel.CANCEL, work())

    assert virtually(story()) == 42


def test_until_passes_the_works_error_on(virtually: Virtually) -> None:
    async def work() -> None:
        raise OSError("its own")

    async def story() -> None:
        with pytest.raises(OSError, match="its own"):
            await Stop().until(StopLevel.CANCEL, work())

    virtually(story())


def test_until_cancels_the_work_and_waits_for_its_cleaning_up(virtually: Virtually) -> None:
    cleaned: list[float] = []

    async def work() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(2)
            cleaned.append(asyncio.get_running_loop().time())

    async def story() -> None:
        stop = Stop()
        asyncio.get_running_loop().call_later(1, stop.request, StopLevel.CANCEL, "cancelled")
        with pytest.raises(stopping.Stopped) as caught:
            await stop.until(StopLevel.CANCEL, work())
        assert caught.value.reason == "cancelled"
        with pytest.raises(stopping.Stopped):
            await stop.until(StopLevel.DRAIN, work())  # not begun at all

    virtually(story())
    assert cleaned == [3]


def test_until_leaves_nothing_behind_when_it_is_cancelled_itself(virtually: Virtually) -> None:
    async def story() -> None:
        stop = Stop()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await stop.until(StopLevel.KILL, asyncio.sleep(100))
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert not stop._waiters

    virtually(story())


def test_settling_survives_a_cancellation_and_raises_it_after(virtually: Virtually) -> None:
    ended: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(5)
            ended.append("slow")

    async def story() -> None:
        task = asyncio.create_task(slow())
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await stopping.settle(task)
        assert ended == ["slow"]

    virtually(story())
