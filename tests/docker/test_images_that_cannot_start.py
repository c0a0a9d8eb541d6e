"""Images in which no capsule starts are their author's fault, said so, and keep nobody else's task waiting."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attempts
import engine_proxy
import node_parts
import odd_images
import own_images
import pytest

from hivemind_worker.artifacts import store as stores
from hivemind_worker.client import asynchronous
from hivemind_worker.concurrency import clock
from hivemind_worker.pool import server
from hivemind_worker.runtime import node_check
from hivemind_worker.runtime.docker import docker_executor, leftovers
from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.tasks import outcome

pytestmark = pytest.mark.docker

EIGHT = ("volume-proc", "tmp-is-a-link")
"""One that is refused for what it declares, and one of which only a trial tells; four tasks of each."""

ON_DISK = {"disk_bytes": 200 * attempts.MIB}
"""More than fits into memory: the workspace is a volume."""


def _checked(bench: attempts.Bench) -> attempts.Bench:
    return attempts.Bench(node_check.checked(bench.executor), bench.store, bench.image)


async def _ends(bench: attempts.Bench, image: str, **more: Any) -> tuple[outcome.Reason | None, outcome.NodeCheck, str]:
    ended = await bench.shell("echo ran", image=image, **more)
    return ended.reason, ended.node_check, ended.error


@pytest.mark.long
async def test_every_image_in_which_nothing_starts_is_to_blame(
    docker_url: str, busybox_image: str, tmp_path: Path
) -> None:
    async with (
        odd_images.made(docker_url, odd_images.BROKEN) as images,
        attempts.docker_bench(docker_url, busybox_image, tmp_path) as bench,
    ):
        checked = _checked(bench)
        for name, image in images.items():
            for limits in ({}, ON_DISK):
                reason, check, error = await _ends(checked, image, limits=limits)
                assert reason is outcome.Reason.IMAGE_UNAVAILABLE, f"{name}: {error}"
                assert check is not outcome.NodeCheck.FAILED, name
                assert image in error, name
        assert (await checked.shell("echo ran", limits=ON_DISK)).logs.text == b"ran\n", "others' workspaces are whole"


async def test_an_image_that_would_hold_the_engine_is_refused_unopened(
    docker_url: str, busybox_image: str, tmp_path: Path
) -> None:
    names = ("passwd-is-a-pipe", "group-leads-to-a-pipe", "passwd-is-too-large")
    began = clock.now()
    async with (
        odd_images.made(docker_url, {name: odd_images.BROKEN[name] for name in names}) as images,
        attempts.docker_bench(docker_url, busybox_image, tmp_path) as bench,
    ):
        for name, image in images.items():
            ended = await bench.shell("echo ran", image=image)
            assert ended.reason is outcome.Reason.IMAGE_UNAVAILABLE, f"{name}: {ended.error}"
            assert f"image {image} cannot be started: its /etc/" in ended.error
    assert clock.now() - began < 30.0, "a start that hangs has a deadline of 60 s"


@pytest.mark.long
async def test_odd_images_in_which_a_task_runs_are_no_failure(
    docker_url: str, busybox_image: str, tmp_path: Path
) -> None:
    async with (
        odd_images.made(docker_url, odd_images.ODD) as images,
        attempts.docker_bench(docker_url, busybox_image, tmp_path) as bench,
    ):
        for name, image in images.items():
            assert await _ends(_checked(bench), image) == (None, outcome.NodeCheck.NOT_NEEDED, ""), name


@contextlib.asynccontextmanager
async def _behind(url: str, folder: Path, fault: engine_proxy.Fault, image: str) -> AsyncIterator[attempts.Bench]:
    async with engine_proxy.before(url, fault) as address, attempts.docker_bench(address, image, folder) as bench:
        yield _checked(bench)


async def test_an_engine_that_starts_nothing_is_the_nodes_fault(
    docker_url: str, busybox_image: str, tmp_path: Path
) -> None:
    fault = engine_proxy.Fault(b"/start", 500)
    async with _behind(docker_url, tmp_path, fault, busybox_image) as bench:
        reason, check, error = await _ends(bench, busybox_image)
    assert (reason, check) == (outcome.Reason.INTERNAL, outcome.NodeCheck.FAILED)
    assert "it is this node" in error


async def test_a_start_that_fails_once_is_tried_again_at_once(
    docker_url: str, busybox_image: str, tmp_path: Path
) -> None:
    fault = engine_proxy.Fault(b"/start", 500, times=1)
    async with _behind(docker_url, tmp_path, fault, busybox_image) as bench:
        assert await _ends(bench, busybox_image) == (None, outcome.NodeCheck.NOT_NEEDED, "")


@pytest.mark.long
async def test_an_engine_that_goes_away_twice_proves_nothing_against_an_image(
    docker_url: str, busybox_image: str, tmp_path: Path
) -> None:
    class EveryOther(engine_proxy.Fault):
        """The first start and the third: the task's; the second is that of the node's own capsule."""

        def hits(self, request: bytes) -> bool:
            line = request.partition(b"\r\n")[0]
            if self.call not in line or b" HTTP/1." not in line:
                return False
            self.met += 1
            return self.met % 2 == 1

    async with _behind(docker_url, tmp_path, EveryOther(b"/start", -1), busybox_image) as bench:
        reason, check, _ = await _ends(bench, busybox_image)
    assert (reason, check) == (outcome.Reason.ENGINE_LOST, outcome.NodeCheck.PASSED)


async def test_eight_images_that_cannot_start_keep_nobody_waiting(
    docker_url: str, busybox_image: str, tmp_path: Path
) -> None:
    node_id = f"test-{uuid.uuid4().hex[:12]}"
    files = stores.Store(tmp_path / "work")
    runs = docker_executor.DockerExecutor(
        engine=engines.Engine(docker_url),
        store=files,
        node_id=node_id,
        boot_id="1",
        supply=docker_executor.Supply(access=own_images.ANY),
    )
    pool = server.NodePool(tmp_path / "pool", lease_seconds=5.0)
    await pool.start()
    small = {"memory_limit": "64m", "cpu_quota": 50_000, "disk_limit": "16m"}
    try:
        async with (
            odd_images.made(docker_url, {name: odd_images.BROKEN[name] for name in EIGHT}) as images,
            asynchronous.AsyncClient(pool.address) as client,
            node_parts.running(pool.address, tmp_path / "work", runs=node_check.checked(runs), max_concurrent_tasks=4),
        ):
            broken = [{"command": "true", "docker_image": image, **small} for image in images.values()]
            bad = await client.submit(broken * 4)
            (good,) = await client.submit({"command": "echo ran", "docker_image": busybox_image, **small})
            (ordinary,) = await client.wait(good, 40)
            ended = await client.wait(bad, 40)
            (node,) = await client.nodes()
    finally:
        await pool.stop()
        engine = engines.Engine(docker_url)
        await engine.connect()
        await leftovers.remove(engine, node_id, all_boots=True)
        await engine.close()
    assert (str(ordinary.status), ordinary.attempt) == ("completed", 1)
    assert {(task.reason, task.attempt) for task in ended} == {(outcome.Reason.IMAGE_UNAVAILABLE, 1)}
    assert "rests" not in node.message
