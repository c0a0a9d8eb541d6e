"""L01: START of a worker that was killed comes to its capsule late: after the next worker has asked how far it is."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import platform
import select
from pathlib import Path

import capsule_worker
import pytest
import waiting

from hivemind_worker.artifacts import store as stores
from hivemind_worker.concurrency import stopping
from hivemind_worker.runtime import capsule_run, capsule_spec, checkpoint
from hivemind_worker.runtime.capsule import conversation, init, messages
from hivemind_worker.tasks import outcome, plan

MIB = 1024 * 1024
PLAN = plan.RunPlan(
    "t",
    1,
    "",
    ("/bin/sh", "-c", "echo began; sleep 60"),
    outcome.Limits(256 * MIB, 100_000, 60.0, 512 * MIB, 64),
    plan.Caps(MIB, MIB, 512 * MIB, 1000, 8, 60.0),
)


@pytest.mark.parametrize("late", [True, False])
async def test_l01_a_task_that_began_after_all_is_not_taken_for_one_that_had_not(tmp_path: Path, *, late: bool) -> None:
    (tmp_path / "results").mkdir()
    to_capsule, from_capsule = os.pipe(), os.pipe()
    capsule = await asyncio.create_subprocess_exec(
        init.binary_path(platform.machine()), stdin=to_capsule[0], stdout=from_capsule[1]
    )
    os.close(to_capsule[0])
    os.close(from_capsule[1])
    pipe = capsule_worker.Pipe(from_capsule[0], to_capsule[1])
    spec = capsule_spec.spec_of(PLAN, {"PATH": os.environ["PATH"]}, messages.OnDisconnect.KEEP)
    spec = dataclasses.replace(spec, workspace=os.fsencode(tmp_path))
    before = conversation.Conversation()
    before.receive(await pipe.read())
    await pipe.write(before.send(spec))
    start = before.send(messages.Start())  # said, and still on its way as its worker is killed

    async def kill() -> None:
        if late:
            await pipe.write(start)
            await waiting.wait_until(lambda: _children(capsule.pid), description="the task runs")
            await asyncio.to_thread(_has_bytes, from_capsule[0])
        capsule.kill()

    store = stores.Store(tmp_path / "store")
    store.prepare()
    run = capsule_run.CapsuleRun(
        pipe=pipe,
        plan=PLAN,
        spec=spec,
        store=store,
        stop=stopping.Stop(),
        observer=capsule_worker.Quiet(),
        kill=kill,
        custody=checkpoint.Custody(capsule_worker.Files(tmp_path), {}, checkpoint.Checkpoint()),
    )
    try:
        heard = await run.run()
        assert heard.not_begun is not late, heard.fault
    finally:
        if capsule.returncode is None:
            capsule.kill()
        await capsule.wait()
        os.close(from_capsule[0])
        os.close(to_capsule[1])


def _children(pid: int) -> bool:
    return bool(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def _has_bytes(fd: int) -> None:
    """Wait until the capsule has said something."""

    assert select.select([fd], [], [], 20)[0]
