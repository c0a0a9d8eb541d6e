"""Two processes of one node id, over gRPC: the living one goes on, a dead one is replaced, and no task pays for it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pool_parts
import pytest
import pytest_asyncio
import waiting

from hivemind_worker.pool.scheduling import challenge
from hivemind_worker.wire import calls, verdicts

pb = calls.pb
LOCK, COPY = "a" * 64, "b" * 64


@pytest_asyncio.fixture
async def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[pool_parts.Running]:
    monkeypatch.setattr(challenge, "CHALLENGE_SECONDS", 2.0)
    monkeypatch.setattr(challenge, "RECONNECT_SECONDS", 0.0)
    async with pool_parts.running(tmp_path) as running:
        yield running


@contextlib.asynccontextmanager
async def polling(worker: pool_parts.Worker, *held: pb.Task) -> AsyncIterator[None]:
    """A worker that lives: it asks for work again whenever it was answered."""

    async def poll() -> None:
        while True:
            await worker.poll(30, *held)

    task = asyncio.create_task(poll())
    assert isinstance(worker.at, pool_parts.Running)
    waits = worker.at.pool._parts.dispatch._waiting
    await waiting.wait_until(lambda: any(key[0] == worker.name for key in waits), description="the poll waits")
    try:
        yield
        assert not task.done(), "its poll was refused"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _refused(at: pool_parts.Running, boot_id: str, state_lock_id: str = "") -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await at.worker("n", boot_id, state_lock_id=state_lock_id)
    assert verdicts.read(caught.value).reason is verdicts.Reason.SESSION_REPLACED
    assert "is alive" in (caught.value.details() or "")


@pytest.mark.parametrize(("boot_id", "state_lock_id"), [("newcomer", COPY), ("newcomer", ""), ("", "")])
async def test_a_living_session_is_not_taken_over(at: pool_parts.Running, boot_id: str, state_lock_id: str) -> None:
    worker = await at.worker("n", "incumbent", state_lock_id=LOCK)
    (task_id,) = await at.submit()
    task = await worker.take()
    async with polling(worker, task):
        for _ in range(3):
            await _refused(at, boot_id, state_lock_id)
    assert not (await worker.beat(task)).drop
    info = await at.info(task_id)
    assert (info.state, info.attempt, info.disruptions) == ("assigned", 1, 0)
    assert (await worker.report(task)).verdict == pb.VERDICT_ACCEPTED


async def test_any_call_in_its_session_shows_that_it_lives(at: pool_parts.Running) -> None:
    worker = await at.worker("n", "incumbent", state_lock_id=LOCK)
    refusing = asyncio.create_task(_refused(at, "newcomer", COPY))

    while not refusing.done():
        await worker.beat()
    await refusing


async def test_a_call_without_the_session_shows_nothing(at: pool_parts.Running) -> None:
    worker = await at.worker("n", "incumbent", state_lock_id=LOCK)
    newcomer = asyncio.create_task(at.worker("n", "newcomer", state_lock_id=COPY))
    stranger = dataclasses.replace(worker, session_id="made up")

    while not newcomer.done():
        for impostor in (stranger, dataclasses.replace(worker, session_id="")):
            with contextlib.suppress(grpc.aio.AioRpcError):
                await impostor.beat()
    assert (await newcomer).session_id != worker.session_id


async def test_the_same_state_folder_is_taken_over_at_once(at: pool_parts.Running) -> None:
    before = await at.worker("n", "incumbent", state_lock_id=LOCK)
    async with polling(await at.worker("other")):
        began = time.monotonic()
        after = await at.worker("n", "restarted", state_lock_id=LOCK)
        assert time.monotonic() - began < 1.5  # less than a challenge
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await before.beat()
    assert verdicts.read(caught.value).reason is verdicts.Reason.SESSION_REPLACED
    await after.beat()


async def test_a_worker_that_said_that_it_goes_is_taken_over_at_once(at: pool_parts.Running) -> None:
    before = await at.worker("n", "incumbent")
    await before.beat(status="offline")
    began = time.monotonic()
    await at.worker("n", "next")
    assert time.monotonic() - began < 1.5


async def test_a_silent_session_of_an_older_worker_is_taken_over_within_the_challenge(at: pool_parts.Running) -> None:
    before = await at.worker("n", "crashed")
    (kept_id, _) = await at.submit(pb.Task(command="true"), pb.Task(command="false"))
    tasks = list((await before.poll(10, most=2)).tasks)
    (kept,) = [task for task in tasks if task.id == kept_id]
    held = [pb.AttemptRef(task_id=kept.id, attempt=1, phase="running")]
    after = await at.worker("n", "restarted", held=held)
    assert (await at.info(kept_id)).state == "running"
    assert (await after.report(kept)).verdict == pb.VERDICT_ACCEPTED
    # What it does not list was lost in the crash, which may be the task's own doing: that uses up an attempt.
    (lost,) = [task for task in tasks if task.id != kept_id]
    info = await at.info(lost.id)
    assert (info.state, info.disruptions) == ("queued", 0)


async def test_what_is_lost_by_a_copied_folder_is_a_disruption(at: pool_parts.Running) -> None:
    before = await at.worker("n", "incumbent", state_lock_id=LOCK)
    (task_id,) = await at.submit(pb.Task(command="true", max_attempts=1))
    await before.take()
    after = await at.worker("n", "copy", state_lock_id=COPY)  # the other is silent: its machine is off
    info = await at.info(task_id)
    assert (info.state, info.attempt, info.disruptions) == ("queued", 1, 1)
    task = await after.take()
    assert (await after.report(task)).verdict == pb.VERDICT_ACCEPTED
    # And when the first is back, it is the newcomer.
    async with polling(after):
        await _refused(at, "incumbent, started again", LOCK)


@pytest.mark.long
async def test_of_many_newcomers_one_is_let_in(at: pool_parts.Running) -> None:
    await at.worker("n", "crashed")
    answers = await asyncio.gather(
        *(at.worker("n", f"newcomer {number}", state_lock_id=f"{number:064}") for number in range(3)),
        return_exceptions=True,
    )
    # The others challenge the one that came first, which says nothing more here: each is let in in its turn, or told
    # to try again. None of them is refused for a session that was silent.
    opened = [answer for answer in answers if isinstance(answer, pool_parts.Worker)]
    assert opened
    refused = [answer for answer in answers if not isinstance(answer, pool_parts.Worker)]
    assert all(isinstance(error, grpc.aio.AioRpcError) for error in refused)
    living = [worker for worker in opened if await _lives(worker)]
    assert len(living) == 1


async def _lives(worker: pool_parts.Worker) -> bool:
    try:
        await worker.beat()
    except grpc.aio.AioRpcError:
        return False
    return True


async def test_nobody_is_taken_for_silent_when_the_pool_has_just_returned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(challenge, "CHALLENGE_SECONDS", 0.2)
    async with pool_parts.running(tmp_path) as first:
        session_id = (await first.worker("n", "incumbent", state_lock_id=LOCK)).session_id
    async with pool_parts.running(tmp_path) as second:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await second.worker("n", "copy", state_lock_id=COPY)
        assert verdicts.read(caught.value).course is verdicts.Course.RETRY
        await pool_parts.Worker(second, "n", session_id).beat()
        await second.worker("n", "restarted", state_lock_id=LOCK)  # which waits for nothing
