from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from hivemind_worker.concurrency import stopping
from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.runtime.docker import taking_up


async def test_an_engine_that_is_gone_is_asked_for_as_long_as_is_set(tmp_path: Path) -> None:
    engine = engines.Engine(f"unix://{tmp_path}/none.sock", patience=1.0)
    began = time.monotonic()
    found = await taking_up.attach(engine, "0" * 64, stopping.Stop())
    assert (found.stream, found.away) == (None, True)
    assert "asked for 1 s" in found.why
    assert 1.0 <= time.monotonic() - began < 10


async def test_whoever_stops_the_task_does_not_wait_for_the_engine(tmp_path: Path) -> None:
    engine = engines.Engine(f"unix://{tmp_path}/none.sock", patience=100.0)
    stop = stopping.Stop()
    asking = asyncio.create_task(taking_up.attach(engine, "0" * 64, stop))
    await asyncio.sleep(0)
    stop.request(stopping.StopLevel.CANCEL, "enough")
    async with asyncio.timeout(5):
        with pytest.raises(stopping.Stopped):
            await asking
