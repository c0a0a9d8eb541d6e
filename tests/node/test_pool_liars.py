"""Peers that lie and lag, over gRPC: whatever they say, one sound node brings every task to its one end."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import pool_parts
import pytest
import waiting

from hivemind_worker.pool.scheduling import challenge
from hivemind_worker.pool.store import resting
from hivemind_worker.wire import calls

pb = calls.pb

LEASE = 0.5
STEPS = 150
TASKS = 16
ENDED = frozenset({"completed", "failed", "cancelled"})


@dataclasses.dataclass
class Liar:
    """A node of several lives, all of which go on talking: its lists leave out and invent, its calls come late."""

    at: pool_parts.Running
    name: str
    rng: random.Random
    lives: list[pool_parts.Worker] = dataclasses.field(default_factory=list)
    seen: list[pb.Task] = dataclasses.field(default_factory=list)
    accepted: list[tuple[str, int]] = dataclasses.field(default_factory=list)

    async def step(self) -> None:
        """Do one thing that a broken, slow or copied worker may do."""
        deeds: list[Callable[[], Awaitable[object]]] = [
            *(self._register, self._poll, self._poll, self._poll, self._poll, self._beat, self._beat),
            *(self.start, self.start, self._end, self._end, self._invented),
        ]
        with contextlib.suppress(grpc.aio.AioRpcError):
            await self.rng.choice(deeds)()

    async def _register(self) -> None:
        lock = self.rng.choice(["", "folder", "copy"])
        boot = self.rng.choice(["", "first", f"boot {len(self.lives)}"])
        self.lives.append(await self.at.worker(self.name, boot, state_lock_id=lock, held=self._list()))

    def _speaker(self) -> pool_parts.Worker:
        if not self.lives:
            return pool_parts.Worker(self.at, self.name, "")
        speaker = self.rng.choice(self.lives[-2:])
        return dataclasses.replace(speaker, session_id="") if self.rng.random() < 0.1 else speaker

    def _list(self) -> list[pb.AttemptRef]:
        known = [pb.AttemptRef(task_id=task.id, attempt=task.attempt, phase="running") for task in self.seen]
        listed = [ref for ref in known if self.rng.random() < 0.7]
        listed += [
            pb.AttemptRef(task_id=ref.task_id, attempt=ref.attempt + 1, phase="reporting")
            for ref in known
            if self.rng.random() < 0.1
        ]
        if self.rng.random() < 0.2:
            listed.append(pb.AttemptRef(task_id="never heard of", attempt=1))
        return listed

    async def _poll(self) -> None:
        speaker = self._speaker()
        request = pb.GetAssignedTasksRequest(
            node_id=self.name, session_id=speaker.session_id, wait_seconds=0.01, most=2, held=self._list()
        )
        answer = await self.at.nodes.GetAssignedTasks(request)
        if self.rng.random() < 0.8:  # or the answer was lost
            self.seen += answer.tasks

    async def _beat(self) -> None:
        speaker = self._speaker()
        status = self.rng.choice(["idle", "busy", "draining", "offline"])
        request = pb.UpdateNodeStatusRequest(
            node_id=self.name, session_id=speaker.session_id, status=status, held=self._list()
        )
        await self.at.nodes.UpdateNodeStatus(request)  # and what it is to drop it keeps

    async def start(self) -> None:
        """Say that something runs that it was given at some time."""
        if self.seen:
            await self._speaker().report(self.rng.choice(self.seen), "running")

    async def _end(self) -> None:
        if self.seen:
            task = self.rng.choice(self.seen)
            reason = self.rng.choice(["nonzero_exit", "engine_lost", *["node_shutdown"] * 10])
            answer = await self._speaker().report(task, "failed", reason=reason)
            if answer.verdict == pb.VERDICT_ACCEPTED:
                self.accepted.append((task.id, task.attempt))

    async def _invented(self) -> None:
        if self.seen:
            task = self.rng.choice(self.seen)
            await self._speaker().report(pb.Task(id=task.id, attempt=task.attempt + self.rng.choice([1, 5])))


async def _sound(at: pool_parts.Running, ended: list[str]) -> None:
    """A worker that does what it is given, and says so."""
    worker = await at.worker("sound", "sound", cpu_cores=8)
    while True:
        held = list((await worker.poll(0.1, most=4)).tasks)
        await worker.beat(*held)
        for task in held:
            await worker.report(task, "running")
            answer = await worker.report(task)
            if answer.verdict == pb.VERDICT_ACCEPTED:
                ended.append(task.id)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 24))
async def test_one_sound_node_brings_every_task_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(challenge, "CHALLENGE_SECONDS", 0.05)
    # Liars hand back and fail what they can: rests as long as real ones would leave them nothing to lie about.
    monkeypatch.setattr(resting, "FIRST_SECONDS", 0.001)
    monkeypatch.setattr(resting, "FACTOR", 1.0)
    async with pool_parts.running(tmp_path, lease_seconds=LEASE) as at:
        ids = await at.submit(*[pb.Task(command="true", max_attempts=100) for _ in range(TASKS)])
        liars = [Liar(at, f"liar{number}", random.Random(f"{seed}/{number}")) for number in range(3)]
        for step in range(10 * STEPS):
            # On a busy machine most of their calls come too late: until they have had enough to lie about.
            if step >= STEPS and sum(len(liar.seen) for liar in liars) >= TASKS:
                break
            await asyncio.gather(*(liar.step() for liar in liars))
        sound_ends: list[str] = []
        sound = asyncio.create_task(_sound(at, sound_ends))

        async def over() -> list[pb.TaskInfo] | None:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await liars[0].start()  # one of them goes on, now and then
            assert not sound.done(), sound.exception()
            infos = [await at.info(task_id) for task_id in ids]
            return infos if all(info.state in ENDED for info in infos) else None

        infos: list[pb.TaskInfo] | None = await waiting.wait_until(over, description="every task has ended", seconds=60)
        sound.cancel()
        await asyncio.gather(sound, return_exceptions=True)
        assert infos is not None
        for info in infos:
            ends = [event for event in info.story if event.event in ("complete", "fail", "cancel")]
            assert len(ends) == 1, info.story
            given = [event.attempt for event in info.story if event.event == "assign" and not event.details]
            assert given == sorted(set(given)), "an attempt was handed out twice"
        assert len(sound_ends) == len(set(sound_ends)), "two results of one task counted"
        accepted = [pair for liar in liars for pair in liar.accepted]
        assert len(accepted) == len(set(accepted)), "two ends of one attempt counted"
        # And it has tried what it says.
        assert sum(len(liar.seen) for liar in liars) >= TASKS
        assert sum(info.attempt > 1 for info in infos) >= 0.3 * TASKS, "too few tasks came to a second attempt"
