"""An engine that answers wrongly, never, or breaks the line, at each call (L09): reasons are right, nothing is left."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import attempts
import engine_proxy
import own_images
import pytest
import waiting

from hivemind_worker.artifacts import store as stores
from hivemind_worker.concurrency import stopping
from hivemind_worker.runtime.docker import docker_executor
from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.tasks import outcome

pytestmark = pytest.mark.docker

CALLS = [b"/containers/create", b"/attach", b"/start", b"/images/"]


async def _attempt(
    url: str,
    image: str,
    folder: Path,
    fault: engine_proxy.Fault,
    stop: stopping.Stop | None = None,
    *,
    fill_again: bool = False,
) -> outcome.Outcome:
    node = f"test-{uuid.uuid4().hex[:12]}"
    store = stores.Store(folder)
    store.prepare()
    async with engine_proxy.before(url, fault) as address:
        under_test = docker_executor.DockerExecutor(
            engine=engines.Engine(address),
            store=store,
            node_id=node,
            boot_id="1",
            supply=docker_executor.Supply(access=own_images.ANY),
        )
        await under_test.open()
        if fill_again:
            under_test._program.forget()
        try:
            ended = await attempts.Bench(under_test, store, image).shell("echo ran; echo kept > results/x", stop=stop)
            await under_test._jobs.idle()
        finally:
            await under_test.close()
    engine = engines.Engine(url)
    await engine.connect()
    left = await engine.containers(f"io.hivemind.node-id={node}")
    await engine.close()
    assert not left
    return ended


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("answer", [500, 409, -1])
async def test_l09_a_call_that_fails_is_the_nodes_fault_and_leaves_nothing(
    docker_url: str, busybox_image: str, tmp_path: Path, call: bytes, answer: int
) -> None:
    ended = await _attempt(docker_url, busybox_image, tmp_path, engine_proxy.Fault(call, answer))
    assert ended.status is outcome.Status.FAILED
    expected = {outcome.Reason.ENGINE_LOST, outcome.Reason.INTERNAL}
    if b"images" in call:
        expected.add(outcome.Reason.IMAGE_UNAVAILABLE)
    assert ended.reason in expected
    assert "injected" in ended.error or "engine" in ended.error


@pytest.mark.parametrize("call", CALLS)
async def test_l09_a_call_that_hangs_is_given_up(
    docker_url: str, busybox_image: str, tmp_path: Path, call: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "CALL_SECONDS", 1.0)
    ended = await _attempt(docker_url, busybox_image, tmp_path, engine_proxy.Fault(call, 0, times=1))
    assert ended.reason is outcome.Reason.ENGINE_LOST
    assert "within" in ended.error


async def test_what_a_broken_line_left_of_filling_the_programs_volume_goes_with_the_worker(
    docker_url: str, busybox_image: str, tmp_path: Path
) -> None:
    fault = engine_proxy.Fault(b"DELETE ", -1, times=2)
    ended = await _attempt(docker_url, busybox_image, tmp_path, fault, fill_again=True)
    assert fault.met
    assert ended.reason is outcome.Reason.ENGINE_LOST


async def test_a_cancel_is_heard_while_the_engine_hangs(docker_url: str, busybox_image: str, tmp_path: Path) -> None:
    stop = stopping.Stop()
    fault = engine_proxy.Fault(b"/start", 0, times=1)
    running = asyncio.create_task(_attempt(docker_url, busybox_image, tmp_path, fault, stop))
    async with asyncio.timeout(20):
        await waiting.wait_until(lambda: fault.met, description="the engine hangs")
        stop.request(stopping.StopLevel.CANCEL, "enough")
        ended = await running
    assert ended.status is outcome.Status.CANCELLED


async def test_what_the_engine_cannot_count_does_not_fail_a_task(
    docker_url: str, busybox_image: str, tmp_path: Path
) -> None:
    ended = await _attempt(docker_url, busybox_image, tmp_path, engine_proxy.Fault(b"/stats", 500))
    assert ended.status is outcome.Status.COMPLETED
    assert ended.logs.text == b"ran\n"
