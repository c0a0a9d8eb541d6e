"""Loops stop as one, stage by stage and in time; jobs fail alone; nothing is left running."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from hivemind_worker.concurrency import stopping, supervision
from hivemind_worker.concurrency.stopping import Stop, StopLevel
from hivemind_worker.concurrency.supervision import Loops, Stage

Virtually = Callable[[Coroutine[Any, Any, Any]], Any]
Loop = Callable[[Stop], Coroutine[Any, Any, None]]


class Told:
    """What happened when: a list that each loop writes to."""

    def __init__(self) -> None:
        self.lines: list[tuple[float, str]] = []

    def __call__(self, what: str) -> None:
        self.lines.append((asyncio.get_running_loop().time(), what))

    def loop(self, name: str, takes: float = 0.0) -> Loop:
        """A loop that runs until it is asked to stop and takes so many seconds to end."""

        async def run(stop: Stop) -> None:
            await stop.wait()
            self(f"{name} asked to {stop.level.name}")
            await asyncio.sleep(takes)
            self(f"{name} ended")

        return run


def _only_this_task() -> bool:
    return asyncio.all_tasks() == {asyncio.current_task()}


def _ask(after: float, stop: Stop, level: StopLevel, reason: str = "asked", seconds: float | None = None) -> None:
    asyncio.get_running_loop().call_later(after, stop.request, level, reason, seconds)


def test_stages_end_one_after_the_other_each_when_the_last_has_ended(virtually: Virtually) -> None:
    async def story() -> None:
        told, stop = Told(), Stop()
        loops = Loops("worker", [Stage("intake", 5), Stage("reports", 5), Stage("heartbeat", 5)])
        loops.add("heartbeat", "heartbeat", told.loop("heartbeat"))
        loops.add("intake", "intake", told.loop("intake", takes=2))
        loops.add("reports", "reports", told.loop("reports", takes=3))
        _ask(10, stop, StopLevel.DRAIN)
        assert await loops.run(stop) == supervision.Ending(overdue=())
        assert told.lines == [
            (10, "intake asked to DRAIN"),
            (12, "intake ended"),
            (12, "reports asked to DRAIN"),
            (15, "reports ended"),
            (15, "heartbeat asked to DRAIN"),
            (15, "heartbeat ended"),
        ]
        assert _only_this_task()

    virtually(story())


def test_every_loop_is_a_task_by_its_name(virtually: Virtually) -> None:
    async def story() -> None:
        stop = Stop()
        names: list[str] = []

        async def look(stop: Stop) -> None:
            names.extend(task.get_name() for task in asyncio.all_tasks())
            await stop.wait()

        loops = Loops("pool", [Stage("only", 1)])
        loops.add("leases", "only", look)
        _ask(1, stop, StopLevel.DRAIN)
        await loops.run(stop)
        assert "pool/leases" in names

    virtually(story())


def test_a_loop_that_raises_stops_all_in_order_and_is_named(virtually: Virtually) -> None:
    async def story() -> None:
        told = Told()

        async def breaks(_: Stop) -> None:
            await asyncio.sleep(4)
            raise OSError("no more")

        loops = Loops("worker", [Stage("first", 5), Stage("last", 5)])
        loops.add("reports", "last", told.loop("reports", takes=1))
        loops.add("heartbeat", "first", breaks)
        loops.add("intake", "first", told.loop("intake", takes=2))
        with pytest.raises(
            supervision.LoopFailed, match="worker: the loop 'heartbeat' failed: OSError: no more"
        ) as caught:
            await loops.run(Stop())
        assert isinstance(caught.value.__cause__, OSError)
        assert caught.value.loop == "heartbeat"
        assert told.lines == [
            (4, "intake asked to CANCEL"),
            (6, "intake ended"),
            (6, "reports asked to CANCEL"),
            (7, "reports ended"),
        ]
        assert _only_this_task()

    virtually(story())


def test_a_loop_that_ends_unasked_is_a_failure(virtually: Virtually) -> None:
    async def story() -> None:
        async def ends(_: Stop) -> None:
            await asyncio.sleep(1)

        loops = Loops("worker", [Stage("only", 5)])
        loops.add("heartbeat", "only", Told().loop("heartbeat"))
        loops.add("intake", "only", ends)
        with pytest.raises(supervision.LoopFailed, match="'intake' ended although nobody asked"):
            await loops.run(Stop())

    virtually(story())


def test_failures_while_ending_are_told_and_the_others_noted(virtually: Virtually) -> None:
    async def story() -> None:
        def breaks(text: str) -> Loop:
            async def run(stop: Stop) -> None:
                await stop.wait()
                raise ValueError(text)

            return run

        stop = Stop()
        loops = Loops("worker", [Stage("only", 5)])
        loops.add("a", "only", breaks("one"))
        loops.add("b", "only", breaks("two"))
        _ask(1, stop, StopLevel.DRAIN)
        with pytest.raises(supervision.LoopFailed, match="one") as caught:
            await loops.run(stop)
        assert caught.value.__notes__ == ["also 'b' failed: ValueError: two"]

    virtually(story())


def test_a_stage_past_its_time_is_cancelled_and_the_next_still_gets_its_own(virtually: Virtually) -> None:
    async def story() -> None:
        told, stop = Told(), Stop()
        loops = Loops("worker", [Stage("slow", 5), Stage("after", 5)])
        loops.add("slow", "slow", told.loop("slow", takes=100))
        loops.add("after", "after", told.loop("after", takes=4))
        _ask(1, stop, StopLevel.DRAIN, seconds=3)
        assert await loops.run(stop) == supervision.Ending(overdue=("slow",))
        assert told.lines == [
            (1, "slow asked to DRAIN"),
            (6, "after asked to DRAIN"),
            (10, "after ended"),
        ]

    virtually(story())


def test_a_trusted_stage_sees_the_stops_deadline_and_hears_the_rise(virtually: Virtually) -> None:
    async def story() -> None:
        stop = Stop()
        seen: list[Any] = []

        async def attempts(stop: Stop) -> None:
            await stop.wait(StopLevel.DRAIN)
            seen.append(stop.remaining())
            await stop.wait(StopLevel.CANCEL)
            seen.append((asyncio.get_running_loop().time(), stop.reason, stop.remaining()))

        loops = Loops("worker", [Stage("attempts", None)])
        loops.add("attempts", "attempts", attempts)
        _ask(1, stop, StopLevel.DRAIN, "SIGTERM", 300)
        _ask(50, stop, StopLevel.CANCEL, "cannot wait", 10)
        await loops.run(stop)
        assert seen == [300, (50, "cannot wait", 10)]

    virtually(story())


def test_a_kill_cancels_all_stages_at_once(virtually: Virtually) -> None:
    async def story() -> None:
        told, stop = Told(), Stop()
        loops = Loops("worker", [Stage("a", None), Stage("b", 60), Stage("c", 60)])
        for name in "abc":
            loops.add(name, name, told.loop(name, takes=1000))
        _ask(1, stop, StopLevel.DRAIN, "SIGTERM")
        _ask(3, stop, StopLevel.KILL, "second SIGTERM")
        ending = await loops.run(stop)
        assert ending.overdue == ("a", "b", "c")
        assert asyncio.get_running_loop().time() == 3
        assert _only_this_task()

    virtually(story())


def test_a_stop_asked_before_the_start_still_ends_in_order(virtually: Virtually) -> None:
    async def story() -> None:
        told, stop = Told(), Stop()
        stop.request(StopLevel.DRAIN, "early")
        loops = Loops("worker", [Stage("a", 5), Stage("b", 5)])
        loops.add("b", "b", told.loop("b"))
        loops.add("a", "a", told.loop("a"))
        await loops.run(stop)
        assert [what for _, what in told.lines] == ["a asked to DRAIN", "a ended", "b asked to DRAIN", "b ended"]

    virtually(story())


def test_a_cancelled_run_takes_its_loops_with_it(virtually: Virtually) -> None:
    async def story() -> None:
        loops = Loops("worker", [Stage("only", 5)])
        loops.add("a", "only", Told().loop("a"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await loops.run(Stop())
        assert _only_this_task()

    virtually(story())


def test_a_loop_deaf_to_two_cancellations_is_named(virtually: Virtually) -> None:
    async def story() -> None:
        release = asyncio.Event()

        async def deaf(_: Stop) -> None:
            while not release.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await release.wait()

        stop = Stop()
        loops = Loops("worker", [Stage("only", 1)])
        loops.add("deaf", "only", deaf)
        _ask(1, stop, StopLevel.DRAIN)
        with pytest.raises(supervision.LoopsStuck, match="cancelled twice: deaf"):
            await loops.run(stop)
        release.set()
        await asyncio.sleep(0.1)
        assert _only_this_task()

    virtually(story())


def test_a_name_is_used_once_and_a_stage_must_be_there() -> None:
    loops = Loops("worker", [Stage("only", 1)])
    loops.add("a", "only", Told().loop("a"))
    with pytest.raises(ValueError, match="already a loop 'a'"):
        loops.add("a", "only", Told().loop("a"))
    with pytest.raises(KeyError):
        loops.add("b", "elsewhere", Told().loop("b"))


def test_a_job_that_raises_harms_no_other_and_is_told(virtually: Virtually) -> None:
    async def story() -> None:
        told: list[str] = []
        jobs = supervision.Jobs("attempts", lambda name, error: told.append(f"{name}: {error}"))

        async def breaks() -> None:
            await asyncio.sleep(1)
            raise OSError("broken")

        async def works() -> str:
            await asyncio.sleep(5)
            return "done"

        jobs.start("t1", breaks())
        good = jobs.start("t2", works())
        assert jobs.names == ("t1", "t2")
        await jobs.idle()
        assert good.result() == "done"
        assert good.get_name() == "attempts/t2"
        assert told == ["t1: broken"]
        assert len(jobs) == 0

    virtually(story())


def test_closing_waits_then_cancels_what_is_left_and_says_which(virtually: Virtually) -> None:
    async def story() -> None:
        told: list[str] = []
        jobs = supervision.Jobs("removals", lambda name, _: told.append(name))
        quick = jobs.start("quick", asyncio.sleep(1, "quick"))
        slow = jobs.start("slow", asyncio.sleep(100))
        assert await jobs.close(5) == ("slow",)
        assert quick.result() == "quick"
        assert slow.cancelled()
        assert told == [], "a cancellation is no error"
        assert _only_this_task()

    virtually(story())


def test_idle_waits_for_jobs_that_jobs_start(virtually: Virtually) -> None:
    async def story() -> float:
        jobs = supervision.Jobs("chain", lambda _, error: pytest.fail(str(error)))

        async def first() -> None:
            await asyncio.sleep(1)
            jobs.start("second", asyncio.sleep(2))

        jobs.start("first", first())
        await jobs.idle()
        return asyncio.get_running_loop().time()

    assert virtually(story()) == 3


def test_settling_nothing_is_nothing(virtually: Virtually) -> None:
    virtually(stopping.settle())
