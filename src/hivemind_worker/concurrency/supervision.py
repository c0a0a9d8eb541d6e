"""A named group of loops that stops as one, stage by stage; and a set of jobs that may each fail alone.

`Loops` is for what must run as long as its owner does: if one loop fails or ends unasked, all stop and the failure is
raised with the loop's name. `Jobs` is for what comes and goes (attempts, removals). Neither ever loses a task: every
one is named, held and awaited.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from hivemind_worker import errors
from hivemind_worker.concurrency import clock, stopping

T = TypeVar("T")

# A cancelled loop may clean up for this long; then it is cancelled once more, and if that does not help it is named.
CANCEL_SECONDS = 5.0


class LoopFailed(errors.HiveMindError):
    """A loop raised or ended unasked, so its group stopped. `__cause__` is the loop's own error."""

    def __init__(self, group: str, loop: str, why: str) -> None:
        super().__init__(f"{group}: the loop '{loop}' {why}; all of {group} was stopped")
        self.group = group
        self.loop = loop


class LoopsStuck(errors.HiveMindError):
    """Loops ignored their cancellation: a fault in our code, and the process must end to be rid of them."""

    def __init__(self, group: str, loops: Iterable[str]) -> None:
        self.loops = tuple(sorted(loops))
        super().__init__(f"{group}: did not end although cancelled twice: {', '.join(self.loops)}")


@dataclasses.dataclass(frozen=True, slots=True)
class Stage:
    """Loops that stop together: they get `seconds` to end by themselves, then they are cancelled.

    None trusts them to keep the stop's own deadline (which they see as their `Stop`'s); only a kill cuts that short.
    """

    name: str
    seconds: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class Ending:
    """How a group of loops ended: which had to be cancelled because their stage's time was over."""

    overdue: tuple[str, ...]


@dataclasses.dataclass(slots=True)
class _Member:
    name: str
    stage: Stage
    run: Callable[[stopping.Stop], Awaitable[None]]


class Loops:
    """Loops by name, in stages that stop one after the other, the first stage first.

    Each loop is a function that gets its stage's `Stop` and returns when that is requested. A drain or cancel asked
    of the whole is given to the first stage; when that has ended, to the next; a rise of the level goes to the stage
    that is ending; a kill cancels all at once.
    """

    def __init__(self, name: str, stages: Sequence[Stage]) -> None:
        self.name = name
        self._stages = tuple(stages)
        self._stops = {stage.name: stopping.Stop() for stage in stages}
        self._members: dict[str, _Member] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def add(self, name: str, stage: str, run: Callable[[stopping.Stop], Awaitable[None]]) -> None:
        """Add a loop, before `run`. Raises ValueError for a name used twice, KeyError for an unknown stage."""
        if name in self._members:
            raise ValueError(f"{self.name}: there is already a loop '{name}'")
        place = {known.name: known for known in self._stages}[stage]
        self._members[name] = _Member(name, place, run)

    async def run(self, stop: stopping.Stop) -> Ending:
        """Run all loops until the stop is requested, then end them stage by stage.

        Raises LoopFailed when a loop raised or ended unasked (all others were stopped in order first), LoopsStuck
        when loops ignore cancellation. Nothing of the group runs any more when this returns or raises.
        """
        for member in self._members.values():
            self._tasks[member.name] = asyncio.create_task(
                _call(member.run, self._stops[member.stage.name]), name=f"{self.name}/{member.name}"
            )
        watch = asyncio.create_task(stop.wait(), name=f"{self.name}/watch")
        try:
            if self._tasks:
                await asyncio.wait({watch, *self._tasks.values()}, return_when=asyncio.FIRST_COMPLETED)
            else:
                await watch
            failed = None if stop.requested else self._first_ended()
            overdue = await self._end(stop, failed)
        finally:
            await stopping.settle(watch, *self._tasks.values())
        self._raise_failure(failed)
        return Ending(tuple(overdue))

    def _first_ended(self) -> str | None:
        """The loop that ended although nobody asked: one that raised, if there is one."""
        ended = [name for name, task in self._tasks.items() if task.done()]
        raised = [name for name in ended if _error(self._tasks[name]) is not None]
        return next(iter(raised or ended), None)

    async def _end(self, stop: stopping.Stop, failed: str | None) -> list[str]:
        """Every stage in turn; the names of the loops that had to be cancelled."""
        overdue: list[str] = []
        for stage in self._stages:
            if failed is not None:
                self._stops[stage.name].request(stopping.StopLevel.CANCEL, f"the loop '{failed}' failed", stage.seconds)
            await self._wait_for_stage(stop, stage)
            at_once = stop.level is stopping.StopLevel.KILL
            left = [each.name for each in self._pending() if at_once or each.stage is stage]
            overdue += left
            await self._cancel(left)
        return overdue

    async def _wait_for_stage(self, stop: stopping.Stop, stage: Stage) -> None:
        """Hand the stop down as it rises, until the stage has ended, its time is over, or it is a kill."""
        inner = self._stops[stage.name]
        limit = None if stage.seconds is None else clock.now() + stage.seconds
        while pending := [self._tasks[each.name] for each in self._pending() if each.stage is stage]:
            left = None if limit is None else max(0.0, limit - clock.now())
            if stop.requested:
                inner.request(stop.level, stop.reason, stop.remaining() if left is None else left)
            if stop.level is stopping.StopLevel.KILL or left == 0:
                return
            rise = asyncio.create_task(
                stop.wait(stopping.StopLevel(stop.level + 1)), name=f"{self.name}/{stage.name} rise"
            )
            try:
                await asyncio.wait({rise, *pending}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await stopping.settle(rise)

    def _pending(self) -> list[_Member]:
        return [each for each in self._members.values() if not self._tasks[each.name].done()]

    async def _cancel(self, names: list[str]) -> None:
        tasks = [self._tasks[name] for name in names]
        for _ in range(2):
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=CANCEL_SECONDS)
        stuck = [name for name in names if not self._tasks[name].done()]
        if stuck:
            for name in stuck:  # nothing more can be done for them here: they are named in the error
                del self._tasks[name], self._members[name]
            raise LoopsStuck(self.name, stuck)

    def _raise_failure(self, first: str | None) -> None:
        raised = {name: error for name, task in self._tasks.items() if (error := _error(task)) is not None}
        name = first if first is not None else next(iter(raised), None)
        if name is None:
            return
        cause = raised.pop(name, None)
        said = "ended although nobody asked" if cause is None else f"failed: {type(cause).__name__}: {cause}"
        failure = LoopFailed(self.name, name, said)
        for other, error in raised.items():
            failure.add_note(f"also '{other}' failed: {type(error).__name__}: {error}")
        raise failure from cause


class Jobs:
    """Named tasks that come and go; one that raises harms no other.

    An error that escapes a job is a fault in our code: it goes to `on_error(name, error)`, never into silence.
    """

    def __init__(self, name: str, on_error: Callable[[str, BaseException], None]) -> None:
        self.name = name
        self._on_error = on_error
        self._tasks: dict[asyncio.Task[Any], str] = {}

    def start(self, name: str, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a job. The task may be awaited or cancelled; it is held here until it ends."""
        task = asyncio.create_task(work, name=f"{self.name}/{name}")
        self._tasks[task] = name
        task.add_done_callback(self._forget)
        return task

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def names(self) -> tuple[str, ...]:
        """The jobs that run now, oldest first."""
        return tuple(self._tasks.values())

    async def idle(self) -> None:
        """Wait until no job runs, those started meanwhile included."""
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))

    async def close(self, seconds: float = 0.0) -> tuple[str, ...]:
        """Give the jobs `seconds` to end, then cancel and await the rest; their names are returned."""
        if self._tasks and seconds > 0:
            await asyncio.wait(tuple(self._tasks), timeout=seconds)
        left = dict(self._tasks)
        await stopping.settle(*left)
        return tuple(left.values())

    def _forget(self, task: asyncio.Task[Any]) -> None:
        name = self._tasks.pop(task)
        error = _error(task)
        if error is not None:
            self._on_error(name, error)


async def _call(run: Callable[[stopping.Stop], Awaitable[None]], stop: stopping.Stop) -> None:
    await run(stop)


def _error(task: asyncio.Task[Any]) -> BaseException | None:
    """The error a task ended with; a cancellation is none."""
    return None if not task.done() or task.cancelled() else task.exception()
