"""The pool as a server: where it may listen, TLS, health, reflection, stopping in order, starting again."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
from pathlib import Path

import grpc
import pool_parts
import pytest
import waiting
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc  # type: ignore[import-untyped]

from hivemind_worker import errors
from hivemind_worker.pool import server
from hivemind_worker.wire import calls, channels

pb = calls.pb


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "example.org:0"])
async def test_plain_text_is_for_this_machine_alone(tmp_path: Path, listen: str) -> None:
    with pytest.raises(errors.BadSettings, match="insecure"):
        await server.NodePool(tmp_path, listen).start()
    assert await asyncio.to_thread(os.listdir, tmp_path) == []


async def test_plain_text_elsewhere_when_it_was_allowed(tmp_path: Path) -> None:
    async with pool_parts.running(tmp_path, listen="0.0.0.0:0", insecure=True) as at:
        assert at.pool.address.startswith("0.0.0.0:")
        assert not at.pool.address.endswith(":0")


async def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(errors.BadSettings, match="taken"):
            await server.NodePool(tmp_path, listen).start()
    async with pool_parts.running(tmp_path, listen=listen) as at:  # and the store was let go
        assert at.pool.address == listen


async def test_tls(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    made += ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=localhost"]
    made += ["-addext", "subjectAltName=DNS:localhost"]
    await asyncio.to_thread(subprocess.run, made, check=True, capture_output=True)
    with pytest.raises(errors.BadSettings, match=r"missing\.pem"):
        await server.NodePool(tmp_path / "p", tls=server.Tls(tmp_path / "missing.pem", key)).start()
    pool = server.NodePool(tmp_path / "p", "0.0.0.0:0", tls=server.Tls(certificate, key))
    address = (await pool.start()).replace("0.0.0.0", "localhost")
    async with channels.open_channel(channels.Line(address, certificate.read_bytes())) as channel:
        answer = await calls.node_manager(channel).Ping(pb.PingRequest())
        assert answer.protocol_version == calls.PROTOCOL_VERSION
    async with grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await calls.node_manager(channel).Ping(pb.PingRequest(), timeout=5)
    del channel
    await pool.stop()


@pytest.mark.parametrize("shown", [True, False])
async def test_health_is_served_and_reflection_where_it_is_wanted(tmp_path: Path, shown: bool) -> None:
    async with (
        pool_parts.running(tmp_path, with_reflection=shown) as at,
        grpc.aio.insecure_channel(at.pool.address) as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", "nodepool.NodeManager", "nodepool.TaskManager"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        )
        if shown:
            answers = [answer async for answer in reflection]
            assert "nodepool.NodeManager" in {each.name for each in answers[0].list_services_response.service}
        else:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await reflection.read()
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_stopping_answers_whoever_waits(tmp_path: Path) -> None:
    async with pool_parts.running(tmp_path) as at:
        worker = await at.worker()
        polling = asyncio.create_task(worker.poll(60))
        (task_id,) = await at.submit(pb.Task(command="true", node_selector={"zone": "moon"}))

        async def watch() -> None:
            async for _ in at.tasks.WatchTasks(pb.WatchTasksRequest(task_ids=[task_id])):
                watched.set()

        watched = asyncio.Event()
        watching = asyncio.create_task(watch())
        await watched.wait()
        await waiting.wait_until(lambda: at.pool._parts.dispatch._waiting, description="the poll waits")
        async with asyncio.timeout(server.GRACE_SECONDS):
            await at.pool.stop()
        assert not (await polling).tasks
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await watching
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        await at.pool.stop()


async def test_a_session_and_its_attempt_outlive_the_pools_restart(tmp_path: Path) -> None:
    async with pool_parts.running(tmp_path) as first:
        before = await first.worker()
        (task_id,) = await first.submit()
        task = await before.take()
        chunk = pb.LogChunk(stream=pb.LOG_STREAM_STDERR, data=b"so far", sequence=0)
        said = pb.AppendTaskLogsRequest(
            task_id=task_id, attempt=1, node_id="n", session_id=before.session_id, chunks=[chunk]
        )
        await first.nodes.AppendTaskLogs(iter([said]))
    async with pool_parts.running(tmp_path) as second:
        worker = pool_parts.Worker(second, "n", before.session_id)
        assert not (await worker.beat(task)).drop
        said.chunks[0].sequence, said.chunks[0].data = 1, b" so good"
        assert (await second.nodes.AppendTaskLogs(iter([said]))).next_sequence == 2
        assert (await worker.report(task)).verdict == pb.VERDICT_ACCEPTED
        pages = second.tasks.GetTaskLogs(pb.GetTaskLogsRequest(task_id=task_id))
        assert b"".join([chunk.data async for page in pages for chunk in page.chunks]) == b"so far so good"


async def test_a_folder_of_files_that_cannot_be_written_is_the_owner_s_to_mend(tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "staging").symlink_to(tmp_path / "away" / "staging")
    with pytest.raises(errors.BadSettings, match=r"files cannot be written to .*pool_artifact_dir"):
        await server.NodePool(tmp_path).start()


async def test_calls_that_come_at_once_are_all_answered(tmp_path: Path) -> None:
    async with pool_parts.running(tmp_path) as at:
        answers = await asyncio.gather(*(at.nodes.Ping(pb.PingRequest()) for _ in range(2_000)))
    assert all(answer.version for answer in answers)
