"""What only the Docker executor can do or get wrong: images, leftovers, another socket, an engine that goes away."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import attempts
import own_images
import pytest
import waiting

from hivemind_worker import errors
from hivemind_worker.artifacts import store as stores
from hivemind_worker.concurrency import stopping, supervision
from hivemind_worker.runtime.docker import docker_executor, images, leftovers, program, pulling, sweeper, workspaces
from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.settings import schema
from hivemind_worker.tasks import outcome, plan

pytestmark = pytest.mark.docker


async def test_an_image_that_cannot_be_had_is_said(docker_url: str, python_image: str, tmp_path: Path) -> None:
    quickly = docker_executor.Supply(pulls=pulling.Terms(pauses=(0.1, 0.2, 0.3)))
    async with attempts.docker_bench(docker_url, python_image, tmp_path, supply=quickly) as bench:
        ended = await bench.run(["true"], image="127.0.0.1:1/no/such:image")
    assert (ended.status, ended.reason) == (outcome.Status.FAILED, outcome.Reason.IMAGE_UNAVAILABLE)
    assert "no/such" in ended.error
    assert not ended.try_again


async def test_no_image_is_pulled_where_the_owner_forbids_it(docker_url: str, tmp_path: Path) -> None:
    under_test = docker_executor.DockerExecutor(
        engine=engines.Engine(docker_url),
        store=stores.Store(tmp_path),
        node_id="test-never",
        boot_id="1",
        pull_policy=schema.PullPolicy.NEVER,
    )
    await under_test.open()
    try:
        bench = attempts.Bench(under_test, stores.Store(tmp_path), "no-such-image:1")
        ended = await bench.run(["true"])
    finally:
        await under_test.close()
    assert ended.reason is outcome.Reason.IMAGE_UNAVAILABLE
    assert "pull_policy" in ended.error


async def test_egress_that_the_owner_has_not_allowed_is_refused(
    docker_url: str, python_image: str, tmp_path: Path
) -> None:
    async with attempts.docker_bench(docker_url, python_image, tmp_path) as bench:
        ended = await bench.run(["true"], network=plan.Network.EGRESS)
    assert ended.status is outcome.Status.FAILED
    assert "egress" in ended.error


async def test_a_task_with_egress_gets_the_owners_network_which_is_made_once(
    docker_url: str, python_image: str, tmp_path: Path
) -> None:
    name = f"test-{uuid.uuid4().hex[:8]}"
    engine = engines.Engine(docker_url)
    await engine.connect()
    under_test = docker_executor.DockerExecutor(
        engine=engine,
        store=stores.Store(tmp_path),
        node_id=name,
        boot_id="1",
        network=name,
        supply=docker_executor.Supply(access=own_images.ANY),
    )
    stores.Store(tmp_path).prepare()
    try:
        await under_test.open()
        bench = attempts.Bench(under_test, stores.Store(tmp_path), python_image)
        script = "python3 -c 'import socket; print(sorted(name for _, name in socket.if_nameindex()))'"
        ended = await asyncio.gather(*(bench.shell(script, network=plan.Network.EGRESS) for _ in range(2)))
        without = await bench.shell(script)
        made = [network for network in await engine.networks(name) if network["Name"] == name]
        await under_test._jobs.idle()
        for network in made:
            await engine.remove_network(network["Id"])
    finally:
        await under_test.close()
    assert len(made) == 1
    assert all(b"eth0" in each.logs.text for each in ended), ended[0].error
    assert b"eth0" not in without.logs.text


async def test_leftovers_of_an_earlier_life_go_and_nobody_elses(
    docker_url: str, busybox_image: str, tmp_path: Path
) -> None:
    engine = engines.Engine(docker_url)
    await engine.connect()
    ours, other = f"test-{uuid.uuid4().hex[:8]}", f"test-{uuid.uuid4().hex[:8]}"

    def body(node: str, boot: str) -> dict[str, object]:
        labels = {"io.hivemind.node-id": node, "io.hivemind.boot-id": boot}
        host = {"LogConfig": {"Type": "none", "Config": {}}}
        return {"Image": busybox_image, "Cmd": ["sleep", "1000"], "Labels": labels, "HostConfig": host}

    try:
        old = await engine.create(f"{ours}-old", body(ours, "boot-0"))
        await engine.start(old)
        await engine.create(f"{ours}-new", body(ours, "boot-1"))
        await engine.create(f"{other}-old", body(other, "boot-0"))
        plain = await engine.create(f"{ours}-plain", {"Image": busybox_image, "Cmd": ["true"]})
        await engine.create_volume(f"{ours}-volume", {"io.hivemind.node-id": ours, "io.hivemind.boot-id": "boot-0"})

        removed = await leftovers.remove(engine, ours, boot_id="boot-1")

        assert removed.containers == (old,)
        assert removed.volumes == (f"{ours}-volume",)
        assert (await engine.inspect(plain))["State"]["Status"] == "created"
        assert len(await engine.containers(f"io.hivemind.node-id={other}")) == 1
        assert len(await engine.containers(f"io.hivemind.node-id={ours}")) == 1
    finally:
        for name in (f"{ours}-old", f"{ours}-new", f"{other}-old", f"{ours}-plain"):
            await engine.remove(name)
        await engine.remove_volume(f"{ours}-volume")
        await engine.close()


async def test_images_that_were_used_are_remembered_the_last_one_last(docker_url: str, python_image: str) -> None:
    engine = engines.Engine(docker_url)
    await engine.connect()
    under_test = images.Images(engine=engine, policy=schema.PullPolicy.NEVER, access=own_images.ANY)
    try:
        by_id = (await under_test.ensure(python_image, print)).id
        for name in (by_id, by_id.removeprefix("sha256:"), by_id.removeprefix("sha256:")[:12], "there-is/none:such"):
            with pytest.raises(errors.ImageUnavailable):  # no id is a name, and no id resolves as one
                await under_test.ensure(name, print)
        in_full = f"docker.io/{python_image}"
        await under_test.ensure(in_full, print)
        await under_test.ensure(python_image, print)
        assert under_test.present == (in_full, python_image)
    finally:
        await engine.close()


async def test_workspaces_half_made_when_the_task_is_stopped_are_not_left(docker_url: str) -> None:
    engine, node = engines.Engine(docker_url), f"test-{uuid.uuid4().hex[:8]}"
    await engine.connect()
    jobs = supervision.Jobs("test", lambda name, error: pytest.fail(f"{name}: {error}"))
    under_test = workspaces.Workspaces(engine=engine, jobs=jobs, node_id=node, boot_id="1")
    label = f"io.hivemind.node-id={node}"
    try:
        taking = asyncio.create_task(under_test.take())
        while not await engine.volumes(label):
            assert not taking.done()
        taking.cancel()
        await asyncio.wait({taking})
        assert taking.cancelled()
        await jobs.idle()
        await under_test.close()
        left = [*await engine.containers(label), *await engine.volumes(label)]
        await leftovers.remove(engine, node, all_boots=True)
    finally:
        await engine.close()
    assert not left


async def test_the_program_is_put_right_when_its_volume_holds_something_else(
    docker_url: str, busybox_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = f"hivemind-init-test{uuid.uuid4().hex[:12]}"
    monkeypatch.setattr(program, "volume_name", lambda _machine: volume)  # the real one is in use by others
    engine = engines.Engine(docker_url)
    await engine.connect()
    try:
        await engine.create_volume(volume, {})  # there, and empty: as if the first filling had broken off
        async with attempts.docker_bench(docker_url, busybox_image, tmp_path) as bench:
            ended = await asyncio.gather(*(bench.run(["echo", "ok"]) for _ in range(2)))
        assert [each.logs.text for each in ended] == [b"ok\n", b"ok\n"]
    finally:
        assert await engine.remove_volume(volume), "no container uses it any more"
        await engine.remove_volume(f"{volume}-whole")
        await engine.close()


async def test_a_container_that_someone_removes_is_the_nodes_fault(
    docker_url: str, python_image: str, tmp_path: Path
) -> None:
    async with attempts.docker_bench(docker_url, python_image, tmp_path) as bench:
        watcher = attempts.Watcher()
        running = asyncio.create_task(bench.shell("echo up; sleep 100", watcher=watcher))
        await waiting.wait_until(lambda: b"up" in watcher.text(), description="the task is up")
        engine = engines.Engine(docker_url)
        await engine.connect()
        node = bench.executor._around.node_id  # type: ignore[attr-defined]
        for found in await engine.containers(f"io.hivemind.node-id={node}"):
            await engine.remove(found["Id"])
        await engine.close()
        ended = await running
    assert ended.status is outcome.Status.FAILED
    assert ended.try_again
    assert b"up" in ended.logs.text


async def test_a_remote_socket_serves_as_well(docker_url: str, python_image: str, tmp_path: Path) -> None:
    async with _tcp(docker_url) as address, attempts.docker_bench(address, python_image, tmp_path) as bench:
        artifact = bench.store.put(b"content")
        given = (plan.InputFile("a", content=b"inline\n"), plan.InputFile("b", artifact=artifact))
        ended = await bench.shell("cat a b; cp b results/c", files=given, limits={"disk_bytes": 1 << 30})
        assert ended.logs.text == b"inline\ncontent"
        assert bench.content(ended, "c") == b"content"


async def test_an_engine_that_goes_away_is_said_to_be_lost(docker_url: str, python_image: str, tmp_path: Path) -> None:
    watcher, gone = attempts.Watcher(), asyncio.Event()
    async with attempts.docker_bench(docker_url, python_image, tmp_path) as direct, _tcp(docker_url, gone) as address:
        node = direct.executor._around.node_id  # type: ignore[attr-defined]
        engine = engines.Engine(address)
        under_test = docker_executor.DockerExecutor(
            engine=engine,
            store=direct.store,
            node_id=node,
            boot_id="boot-1",
            supply=docker_executor.Supply(access=own_images.ANY),
        )
        await under_test.open()
        asked = direct.plan(["sh", "-c", "echo up; sleep 100"])
        running = asyncio.create_task(under_test.run(asked, stopping.Stop(), watcher))
        await waiting.wait_until(lambda: b"up" in watcher.text(), description="the task is up")
        gone.set()
        ended = await running
        assert ended.reason is outcome.Reason.ENGINE_LOST
        assert b"up" in ended.logs.text
        await under_test.close()  # its removal finds no engine either, and is given up
        await leftovers.remove(direct.executor._engine, node, all_boots=True)  # type: ignore[attr-defined]


async def test_no_engine_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(errors.EngineLost):
        await engines.Engine(f"unix://{tmp_path}/nobody.sock").connect()
    lost = docker_executor.DockerExecutor(
        engine=engines.Engine(f"unix://{tmp_path}/nobody.sock"),
        store=stores.Store(tmp_path),
        node_id="test",
        boot_id="1",
    )
    fit = await lost.fitness()
    await lost.close()
    assert not fit.usable
    assert "cannot be reached" in fit.why


@contextlib.asynccontextmanager
async def _tcp(docker_url: str, gone: asyncio.Event | None = None) -> AsyncIterator[str]:
    """The engine's socket behind a port of its own; when `gone` is set all connections break and none is taken."""
    path = docker_url.removeprefix("unix://")
    writers: set[asyncio.StreamWriter] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.write_eof()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if gone is not None and gone.is_set():
            writer.close()
            return
        to_engine = await asyncio.open_unix_connection(path)
        mine = {writer, to_engine[1]}
        writers.update(mine)
        await asyncio.gather(pump(reader, to_engine[1]), pump(to_engine[0], writer))
        writers.difference_update(mine)
        for each in mine:
            each.close()

    async def break_all(signal: asyncio.Event) -> None:
        await signal.wait()
        for each in tuple(writers):
            each.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    breaker = asyncio.create_task(break_all(gone)) if gone is not None else None
    try:
        host, port = server.sockets[0].getsockname()[:2]
        yield f"tcp://{host}:{port}"
    finally:
        if breaker is not None:
            await stopping.settle(breaker)
        server.close()
        for each in tuple(writers):
            each.transport.abort()
        await server.wait_closed()


async def test_l05_what_an_earlier_life_left_late_is_found_by_a_later_look(
    docker_url: str, busybox_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "SWEEP_SECONDS", 0.2)
    async with attempts.docker_bench(docker_url, busybox_image, tmp_path) as bench:
        assert isinstance(bench.executor, docker_executor.DockerExecutor)
        engine, node = bench.executor._engine, bench.executor._around.node_id
        labels = {"io.hivemind.node-id": node, "io.hivemind.boot-id": "boot-0"}
        await engine.create(f"{node}-late", {"Image": busybox_image, "Cmd": ["true"], "Labels": labels})

        async def gone() -> bool:
            return not await engine.containers(f"io.hivemind.node-id={node}")

        look: Callable[[], bool | Awaitable[bool]] = gone
        await waiting.wait_until(look, description="it is removed")
