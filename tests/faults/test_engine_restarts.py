"""L09: the engine itself is killed and started again, with and without live-restore, under a worker that goes on."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import in_containers
import private_engine
import pytest
import test_images
import waiting

pytestmark = [
    pytest.mark.docker,
    pytest.mark.own_engine,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("dockerd") is None, reason="needs root and dockerd"),
]
TASK = 'i=0; while [ $i -lt 80 ]; do echo "line $i"; i=$((i+1)); sleep 0.1; done; echo kept > results/x'
LINES = b"".join(b"line %d\n" % number for number in range(80))


@pytest.mark.long
@pytest.mark.parametrize("live_restore", [True, False], ids=["live-restore", "plain"])
async def test_l09_an_engine_that_dies_and_comes_back(tmp_path: Path, live_restore: bool) -> None:
    with private_engine.running(live_restore=live_restore) as engine:
        more = ("--health-probe-seconds=2", "--monitor-interval=1")
        async with in_containers.worker(engine.url, test_images.BUSYBOX, tmp_path, *more) as worker:
            await worker.start()
            task_id = await worker.submit(TASK)
            pids = await in_containers.runs(engine.url, worker)
            engine.kill()
            await waiting.wait_until(
                lambda: "capsule_cut_off" in worker.log(), description="the worker has noticed", seconds=10
            )
            await asyncio.to_thread(engine.start)  # the pool is in our own process
            if live_restore:
                assert in_containers.pids(engine.url, worker.node_id, "while") == pids
            info = await worker.ended(task_id, 60)
            assert (info.state, info.result.logs.encode()) == ("completed", LINES), worker.log()
            assert await worker.output(task_id) == LINES
            assert [file.name for file in info.result.files] == ["x"]
            events = [event.details for event in info.story if event.event == "requeue"]
            if live_restore:
                assert (info.attempt, events) == (1, [])
            else:
                assert info.attempt == 2
                assert "engine_lost" in events[0]
            assert (await worker.ended(await worker.submit("echo next"))).result.logs == "next\n"
