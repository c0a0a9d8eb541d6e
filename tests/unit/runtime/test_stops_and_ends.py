"""A stop and a task's own end in the same moment: an end that came first stands, and a kill makes no end of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import attempts
import pytest

from hivemind_worker.artifacts import store as stores
from hivemind_worker.concurrency import stopping
from hivemind_worker.runtime import capsule_run, capsule_spec, verdict
from hivemind_worker.runtime.capsule import accounts, frames, messages, payloads
from hivemind_worker.tasks import outcome, plan, state

PLAN = plan.RunPlan("task", 1, "image", ("true",), attempts.LIMITS, attempts.CAPS)
SETTING = verdict.Setting("sandbox", "bubblewrap", "", attempts.LIMITS)
MEMORY_KILL = accounts.Reading(memory_kills=1, limit_hits=1)


def _exited(*, status: int | None = 0, signal: int | None = None) -> messages.Exited:
    return messages.Exited(status=status, signal=signal, why=messages.Why.OWN, wall_us=1)


class Capsule:
    """READY; then its end and DONE in one piece, once it was told to start, or once it was killed."""

    def __init__(self, exited: messages.Exited, *, ends_when_killed: bool) -> None:
        self._pieces = [(messages.Ready(messages.State.IDLE),), (exited, messages.Done(files=0, content_bytes=0))]
        self._sequence = 0
        self._ends_when_killed = ends_when_killed
        self.started, self.killed = asyncio.Event(), asyncio.Event()

    async def read(self) -> bytes:
        if not self._pieces:
            return b""
        if self._sequence:
            await (self.killed if self._ends_when_killed else self.started).wait()
        data = b""
        for message in self._pieces.pop(0):
            kind, payload = payloads.encode(message)
            data += frames.encode(kind, self._sequence, payload)
            self._sequence += 1
        return data

    async def write(self, data: bytes) -> None:
        assert data
        self.started.set()

    async def kill(self) -> None:
        self.killed.set()


class Stopping(attempts.Watcher):
    """Asks for a stop in one phase of the attempt."""

    def __init__(self, stop: stopping.Stop, level: stopping.StopLevel, reason: str, phase: state.Phase) -> None:
        super().__init__()
        self._request = (level, reason)
        self._stop, self._phase = stop, phase

    def phase(self, phase: state.Phase) -> None:
        if phase is self._phase:
            self._stop.request(*self._request)


async def _ended(
    folder: Path, exited: messages.Exited, phase: state.Phase, reason: str, counted: accounts.Reading
) -> outcome.Outcome:
    store = stores.Store(folder / "store")
    store.prepare()
    stop = stopping.Stop()
    capsule = Capsule(exited, ends_when_killed=phase is state.Phase.RUNNING)
    run = capsule_run.CapsuleRun(
        pipe=capsule,
        plan=PLAN,
        spec=capsule_spec.spec_of(PLAN, {}, messages.OnDisconnect.KEEP),
        store=store,
        stop=stop,
        observer=Stopping(stop, stopping.StopLevel.KILL, reason, phase),
        kill=capsule.kill,
    )
    heard = await run.run()
    assert heard.stopped
    return verdict.judge(SETTING, heard, stop, counted, {})


@pytest.mark.parametrize("reason", ["cancelled", "node_shutdown: drained"])
@pytest.mark.parametrize(
    ("exited", "counted", "expected"),
    [
        (_exited(status=None, signal=9), accounts.Reading(), outcome.Reason.NONZERO_EXIT),
        (_exited(status=None, signal=9), MEMORY_KILL, outcome.Reason.OOM),
        (_exited(status=137), MEMORY_KILL, outcome.Reason.OOM),
        (_exited(status=3), accounts.Reading(), outcome.Reason.NONZERO_EXIT),
        (_exited(), accounts.Reading(), None),
    ],
)
async def test_an_end_that_came_whole_before_the_stop_stands(
    tmp_path: Path,
    exited: messages.Exited,
    counted: accounts.Reading,
    expected: outcome.Reason | None,
    reason: str,
) -> None:
    ended = await _ended(tmp_path, exited, state.Phase.COLLECTING, reason, counted)
    assert ended.reason is expected


@pytest.mark.parametrize(
    "exited",
    [_exited(status=None, signal=9), _exited(status=137), _exited(status=1), _exited(status=None, signal=6), _exited()],
)
@pytest.mark.parametrize(
    ("reason", "expected"),
    [("cancelled", outcome.Reason.CANCELLED), ("node_shutdown: drained", outcome.Reason.NODE_SHUTDOWN)],
)
async def test_what_a_task_makes_of_its_kill_is_no_end_of_its_own(
    tmp_path: Path, exited: messages.Exited, reason: str, expected: outcome.Reason
) -> None:
    ended = await _ended(tmp_path, exited, state.Phase.RUNNING, reason, accounts.Reading())
    assert ended.reason is expected
    assert not ended.results
