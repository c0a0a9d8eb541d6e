"""A conversation with a capsule waits for as long as its state allows, and no message keeps a capsule beyond that."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import attempts
import pytest

from hivemind_worker.artifacts import store as stores
from hivemind_worker.concurrency import clock, stopping
from hivemind_worker.runtime import capsule_run, capsule_spec, deadlines, executor, session_result, start_time, verdict
from hivemind_worker.runtime.capsule import accounts, frame_types, frames, messages, payloads
from hivemind_worker.tasks import outcome, plan

Virtually = Callable[[Coroutine[Any, Any, Any]], Any]
State = deadlines.State
TIMES = deadlines.Times(timeout=100.0, grace=10.0, results=600.0)
PLAN = plan.RunPlan(
    "t", 1, "", ("true",), outcome.Limits(1 << 28, 100_000, 100.0, 1 << 29, 64), attempts.CAPS, grace_seconds=10.0
)


def first() -> deadlines.Deadline:
    return deadlines.Deadline.first(TIMES, 0.0)


def test_every_state_has_its_deadline() -> None:
    assert set(deadlines.TABLE) == set(State)
    at = {state: first().enter(state, 1000.0).at - 1000.0 for state in State if not deadlines.TABLE[state].shortens}
    assert at == {
        State.CONNECTING: 60,
        State.LOADING: 300,
        State.RUNNING: 115,
        State.COLLECTING: 60,
        State.KILLING: 1.5,
    }


def test_running_is_not_renewed_by_anything_that_a_capsule_says() -> None:
    running = first().enter(State.RUNNING, 5.0)
    assert running.progress(90.0, own_seconds=50.0) == running
    assert running.passed(120.0)
    assert not running.passed(119.9)


def test_a_stop_and_a_kill_only_bring_the_end_nearer() -> None:
    running = first().enter(State.RUNNING, 0.0)
    assert running.stop(50.0, grace=3.0).at == 58.0
    assert running.stop(114.0, grace=10.0).at == 115.0
    stopping_ = running.stop(50.0, grace=3.0)
    assert stopping_.enter(State.RUNNING, 51.0) == stopping_
    killing = stopping_.enter(State.KILLING, 52.0)
    assert killing.at == 53.5
    for state in State:
        assert killing.enter(state, 53.0) == killing


def test_results_that_trickle_have_an_end_to_which_our_own_slowness_is_added() -> None:
    deadline = first().enter(State.COLLECTING, 0.0)
    for now in range(0, 660, 30):
        assert not deadline.passed(now)
        deadline = deadline.progress(now)
    assert deadline.at == 660.0
    assert deadline.progress(650.0, own_seconds=20.0).at == 680.0


@pytest.mark.parametrize(
    ("began", "by_other_process", "at"),
    [(None, True, 1115.0), (990.0, False, 1105.0), (100.0, False, 1005.0), (900.0, True, 1075.0)],
)
def test_a_task_that_ran_before_has_its_first_deadline(
    began: float | None, at: float, *, by_other_process: bool
) -> None:
    assert first().reattach(1000.0, began, by_other_process=by_other_process).at == at


def test_a_start_is_known_to_the_next_process_of_this_boot_alone() -> None:
    assert start_time.decode(start_time.encode(123.5)) == 123.5
    for text in ("", "another-boot 5.0", start_time.encode(1.0).replace("1.000", "x")):
        assert start_time.decode(text) is None


class Capsule:
    """The far end of a conversation: READY, and after START what ``after`` gives."""

    def __init__(self, after: Callable[[], Coroutine[Any, Any, bytes]]) -> None:
        self._after = after
        self._greeted = False
        self.killed_at = -1.0
        self.spoken_to = asyncio.Event()

    async def read(self) -> bytes:
        if self.killed_at >= 0:
            return b""
        if not self._greeted:
            self._greeted = True
            return frames.encode(*_numbered(messages.Ready(messages.State.IDLE), 0))
        return await self._after()

    async def write(self, data: bytes) -> None:
        assert data
        self.spoken_to.set()

    async def kill(self) -> None:
        self.killed_at = clock.now()


def _numbered(message: messages.Message, sequence: int) -> tuple[frame_types.FrameType, int, bytes]:
    kind, payload = payloads.encode(message)
    return kind, sequence, payload


def held(
    capsule: Capsule,
    folder: Path,
    stop: stopping.Stop | None = None,
    observer: attempts.Watcher | None = None,
) -> Coroutine[Any, Any, session_result.SessionResult]:
    store = stores.Store(folder / "store")
    store.prepare()
    return capsule_run.CapsuleRun(
        pipe=capsule,
        plan=PLAN,
        spec=capsule_spec.spec_of(PLAN, {}, messages.OnDisconnect.KEEP),
        store=store,
        stop=stop or stopping.Stop(),
        observer=observer or attempts.Watcher(),
        kill=capsule.kill,
    ).run()


async def _silence() -> bytes:
    await asyncio.Event().wait()
    raise AssertionError


def test_a_capsule_that_falls_silent_at_start_is_killed_in_time(virtually: Virtually, tmp_path: Path) -> None:
    async def story() -> tuple[session_result.SessionResult, float]:
        async with asyncio.timeout(4000):
            capsule = Capsule(_silence)
            return await held(capsule, tmp_path), capsule.killed_at

    heard, killed_at = virtually(story())
    assert heard.overtime
    assert 115 <= killed_at <= 116


def test_a_capsule_that_falls_silent_with_its_results_is_not_the_tasks_fault(
    virtually: Virtually, tmp_path: Path
) -> None:
    """It is our own program: frozen from outside, starved, or behind an engine that no longer passes anything on."""
    exited = messages.Exited(status=0, signal=None, why=messages.Why.OWN, wall_us=1)
    pieces = [frames.encode(*_numbered(exited, 1))]

    async def story() -> tuple[session_result.SessionResult, float]:
        async def after() -> bytes:
            if pieces:
                await asyncio.sleep(1)  # START comes first
                return pieces.pop()
            return await _silence()

        async with asyncio.timeout(4000):
            capsule = Capsule(after)
            return await held(capsule, tmp_path), capsule.killed_at

    heard, killed_at = virtually(story())
    assert 60 <= killed_at <= 62
    setting = verdict.Setting("docker", "runc", "sha256:x", PLAN.limits)
    ended = verdict.judge(setting, heard, stopping.Stop(), accounts.Reading(), {})
    assert ended.reason is outcome.Reason.INTERNAL, ended
    assert "60 s to the next message" in ended.error


def test_a_capsule_that_never_pauses_is_killed_in_time(virtually: Virtually, tmp_path: Path) -> None:
    numbers = itertools.count(1)

    async def flood() -> bytes:
        loop: Any = asyncio.get_running_loop()
        loop._leap.seconds += 1.0  # what it says costs time, and no moment of waiting
        assert clock.now() < 200, "it is listened to for ever"
        return frames.encode(*_numbered(messages.Taken(0), next(numbers)))

    async def story() -> tuple[session_result.SessionResult, float]:
        async def after() -> bytes:
            if clock.now() < 1:
                await asyncio.sleep(1)  # START comes first
            return await flood()

        capsule = Capsule(after)
        return await held(capsule, tmp_path), capsule.killed_at

    heard, killed_at = virtually(story())
    assert heard.overtime, heard.fault
    assert 115 <= killed_at <= 117


def test_a_capsule_that_ignores_its_stop_and_its_kill_holds_nobody_up(virtually: Virtually, tmp_path: Path) -> None:
    stop = stopping.Stop()

    class Undead(Capsule):
        async def kill(self) -> None:
            await asyncio.Event().wait()

    async def story() -> tuple[session_result.SessionResult, float]:
        asyncio.get_running_loop().call_later(20, stop.request, stopping.StopLevel.CANCEL, "cancelled")
        async with asyncio.timeout(4000):
            return await held(Undead(_silence), tmp_path, stop), clock.now()

    heard, ended_at = virtually(story())
    assert heard.stopped
    assert not heard.overtime
    assert 35 <= ended_at <= 20 + 10 + 7


async def test_a_flood_of_output_leaves_turns_to_others(tmp_path: Path) -> None:
    pieces, lines = 8, 2_000
    numbers, turns = itertools.count(1), 0
    turns_at_start: int | None = None

    async def flood() -> bytes:
        """More at once, for ever, as a pipe has it that is filled as fast as it is read; then the end."""
        nonlocal turns_at_start
        await capsule.spoken_to.wait()
        turns_at_start = turns if turns_at_start is None else turns_at_start
        first = next(numbers)
        if first > pieces * lines:
            return b""
        outputs = [messages.Output(messages.Stream.OUT, 2 * (first - 1), b"y\n")]
        outputs += [messages.Output(messages.Stream.OUT, 2 * (next(numbers) - 1), b"y\n") for _ in range(lines - 1)]
        return b"".join(frames.encode(*_numbered(output, first + at)) for at, output in enumerate(outputs))

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    taking_turns = asyncio.create_task(others())
    capsule = Capsule(flood)
    heard = await held(capsule, tmp_path)
    await stopping.settle(taking_turns)
    assert heard.fault == "the capsule ended without a word"
    assert turns_at_start is not None
    assert turns - turns_at_start >= pieces


async def test_frames_that_take_long_each_leave_turns_to_others(tmp_path: Path) -> None:
    frames_in_piece = 30
    turns: list[int] = []

    class Slow(attempts.Watcher):
        """Takes as long for a few bytes as the search for many secrets does."""

        def output(self, stream: executor.Stream, offset: int, data: bytes) -> None:
            super().output(stream, offset, data)
            turns.append(0)
            time.sleep(1.2 * capsule_run._TURN_SECONDS)

    async def once() -> bytes:
        await capsule.spoken_to.wait()
        if turns:
            return b""
        outputs = (messages.Output(messages.Stream.OUT, 2 * at, b"y\n") for at in range(frames_in_piece))
        return b"".join(frames.encode(*_numbered(output, 1 + at)) for at, output in enumerate(outputs))

    async def others() -> None:
        while True:
            await asyncio.sleep(0)
            if turns:
                turns[-1] += 1

    taking_turns = asyncio.create_task(others())
    capsule = Capsule(once)
    await held(capsule, tmp_path, observer=Slow())
    await stopping.settle(taking_turns)
    assert len(turns) == frames_in_piece
    assert sum(count > 0 for count in turns) >= frames_in_piece - 1
