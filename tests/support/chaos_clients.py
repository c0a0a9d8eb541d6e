"""The clients of a chaos run: they submit, cancel, retry, read and follow, and every call goes into the history."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field

import chaos_plan
import chaos_record
import chaos_world

from hivemind_worker import errors
from hivemind_worker.concurrency import stopping
from hivemind_worker.tasks import state

WAVE = 50
"""Tasks in one call: submissions fall into the middle of the blows, too."""

READERS = 2
PATIENCE_SECONDS = 120.0
DOWNLOADS = 300
"""Tasks whose result files are fetched at the end, at most."""

ENDED_WATCHED = 20
"""Tasks that have ended and are watched again each time."""

_UNDONE = (errors.Unavailable, TimeoutError)


class Gate:
    """Lets changes pass, many at once, except while it is closed: then none is under way."""

    def __init__(self) -> None:
        self._condition = asyncio.Condition()
        self._passing = 0
        self._closed = False

    @contextlib.asynccontextmanager
    async def change(self) -> AsyncIterator[None]:
        """One change; waits while the gate is closed."""
        async with self._condition:
            await self._condition.wait_for(lambda: not self._closed)
            self._passing += 1
        try:
            yield
        finally:
            async with self._condition:
                self._passing -= 1
                self._condition.notify_all()

    @contextlib.asynccontextmanager
    async def closed(self) -> AsyncIterator[None]:
        """No change is under way within the block."""
        async with self._condition:
            self._closed = True
            await self._condition.wait_for(lambda: not self._passing)
        try:
            yield
        finally:
            async with self._condition:
                self._closed = False
                self._condition.notify_all()


@dataclass
class Clients:
    """All clients of one run. ``current`` maps each id to the submission that counts in this era.

    ``restored``: retries from before a restore, by the ids that the pool had made for them. A client cannot submit them
    again under these; those that the pool had before the backup it has again.
    """

    world: chaos_world.World
    client: chaos_record.Client
    era: int = 0
    current: dict[str, chaos_plan.Planned] = field(default_factory=dict)
    restored: dict[str, chaos_plan.Planned] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    gate: Gate = field(default_factory=Gate)
    retrying: bool = True
    _beside: set[asyncio.Task[None]] = field(default_factory=set)
    _draw: random.Random = field(default_factory=lambda: random.Random("clients"))

    async def submit(self, wave: Sequence[chaos_plan.Planned], key: str) -> None:
        """Submit until it is acknowledged; the same key makes the repeat harmless."""
        for plan in wave:
            chaos_record.planned(plan.client, self.world.recorder)
        async with self.gate.change():
            await self._until_answered(lambda: self.client.submit([plan.task for plan in wave], key))
            for plan in wave:
                self.current[plan.client.task] = plan
                self.ended.discard(plan.client.task)
        for plan in wave:
            if plan.cancel_after is not None:
                self._begin(self._cancel(plan, plan.cancel_after, self.era), "cancel")

    def _begin(self, work: Coroutine[object, object, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    async def settle(self) -> None:
        """Wait for cancels and retries that are still to come; raises what went wrong in them."""
        while self._beside:
            await asyncio.gather(*self._beside)

    async def stop(self) -> None:
        """Let go of those that are still to come; what went wrong in them counts no more."""
        beside = list(self._beside)
        await stopping.settle(*beside)
        await asyncio.gather(*beside, return_exceptions=True)

    async def _until_answered(self, call: Callable[[], Awaitable[object]]) -> None:
        while True:
            with contextlib.suppress(*_UNDONE):
                await call()
                return

    async def _cancel(self, plan: chaos_plan.Planned, after: float, era: int) -> None:
        await asyncio.sleep(after)
        async with self.gate.change():
            if era == self.era:
                await self._until_answered(lambda: self.client.cancel(plan.client.task))

    async def _retry(self, plan: chaos_plan.Planned, era: int) -> None:
        async with self.gate.change():
            if era != self.era:
                return
            with contextlib.suppress(*_UNDONE, errors.HiveMindError):
                for new_id in await self.client.retry(plan.client.task):
                    again = chaos_plan.retried(plan, new_id, self.era)
                    chaos_record.planned(again.client, self.world.recorder)
                    self.current[new_id] = again

    async def until_open(self, max_open: int) -> None:
        """Wait until at most so many tasks have not ended."""
        while True:
            with contextlib.suppress(*_UNDONE):
                info = await self.client.info()
                open_tasks = sum(info.tasks_by_state.get(word, 0) for word in set(state.TaskState) - state.ENDED)
                if open_tasks <= max_open and not (max_open == 0 and self._beside):
                    return
            await asyncio.sleep(0.25)

    async def follow(self) -> None:
        """Watch the tasks there are, again with the new ones every few seconds; of those that have ended, only some.

        All of 10,000 that have ended, told anew each time, took the pool half a core.
        """
        draw, era, ended = random.Random("follower"), self.era, set[str]()
        while True:
            if era != self.era:
                era, ended = self.era, set()  # what had ended may be open again
            open_ids = [task_id for task_id in self.current if task_id not in ended]
            again = draw.sample(sorted(ended), min(len(ended), ENDED_WATCHED))
            with contextlib.suppress(*_UNDONE, errors.HiveMindError):
                async with asyncio.timeout(5):
                    await self.client.follow([*open_ids, *again], ended)
            await asyncio.sleep(0.5)

    async def observe_nodes(self) -> None:
        """Look at the nodes: a new heartbeat says that one acts."""
        last: dict[str, float] = {}
        while True:
            with contextlib.suppress(*_UNDONE):
                for node in await self.client.nodes():
                    if last.get(node.node_id) != node.last_heartbeat_at:
                        last[node.node_id] = node.last_heartbeat_at
                        self.world.alive[node.node_id] = time.monotonic()
            await asyncio.sleep(0.3)

    async def read(self, number: int) -> None:
        """Read this and that without end, as users do."""
        draw = random.Random(f"reader {number}")
        kinds = {"status": 50, "list": 3, "logs": 12, "results": 10, "wait": 10, "other": 3}
        while True:
            await asyncio.sleep(draw.uniform(0.05, 0.4) * self.world.pace.slowness)
            if not self.current:
                continue
            task_id = draw.choice(list(self.current))
            kind = draw.choices(list(kinds), weights=list(kinds.values()))[0]
            try:
                await self._read(kind, task_id, draw)
            except (*_UNDONE, errors.UserError):
                continue

    async def _read(self, kind: str, task_id: str, draw: random.Random) -> None:
        if kind == "list":
            await self.client.list_all()
        elif kind == "logs":
            await self.client.logs(task_id)
        elif kind == "results":
            await self.client.results(task_id)
        elif kind == "wait":
            await self.client.wait([task_id], draw.uniform(0.1, 2.0))
        elif kind == "other":
            async with self.gate.change():
                if task_id in self.current:
                    other = {**self.current[task_id].task, "command": ["/bin/sh", "-c", "echo another command"]}
                    await self.client.submit([other], f"other {task_id} {draw.random()}", "submit_other")
        else:
            task = await self.client.status(task_id)
            plan = self.current.get(task_id)
            if task.ended and task_id not in self.ended and plan is not None:
                self.ended.add(task_id)
                if self.retrying and plan.retry and task.reason == plan.client.reason:
                    self._begin(self._retry(plan, self.era), "retry")

    async def read_all(self) -> None:
        """The end: everything is read once more, and what is read now is what counts."""
        await self._until_answered(self.client.list_all)
        downloads = 0
        for task_id, plan in [*self.current.items(), *self.restored.items()]:
            with contextlib.suppress(errors.UserError):
                await self._until_answered(functools.partial(self.client.status, task_id, final=True))
                await self._until_answered(functools.partial(self.client.logs, task_id, final=True))
                files = await self.client.results(task_id)
                if "deep/name" in plan.client.files and "deep/name" in files and downloads < DOWNLOADS:
                    downloads += 1
                    await self.client.download(task_id, ["deep/name"], final=True)
