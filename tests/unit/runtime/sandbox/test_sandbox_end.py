"""How a sandbox ends: seen by asyncio alone, whoever comes first."""

import asyncio
import logging
import os
import signal

import pytest

from hivemind_worker.runtime.sandbox import launch, probe, process

TIMES = 20
pytestmark = pytest.mark.sandbox


@pytest.mark.long
async def test_the_end_of_a_sandbox_is_waited_for_by_asyncio_alone(caplog: pytest.LogCaptureFixture) -> None:
    ground = await probe.ground()
    room = launch.Room(workspace_bytes=2**20, scratch_bytes=2**20)

    async def once() -> int | None:
        sandbox = await process.start(
            ground.furnishing, room, ground.machine, bwrap=ground.bwrap, drop_to=ground.drop_to
        )
        sandbox.go()
        os.kill(sandbox.pid, signal.SIGKILL)
        while await sandbox.read():
            pass
        await sandbox.close()  # bubblewrap is about to end by itself in this very moment
        return sandbox.process.returncode

    with caplog.at_level(logging.WARNING, "asyncio"):
        ended = [code for _ in range(TIMES // 4) for code in await asyncio.gather(*(once() for _ in range(4)))]
    assert 255 not in ended  # what asyncio says when somebody else took the end
    assert not caplog.messages
