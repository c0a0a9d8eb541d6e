"""Pools that are silent, slow or reset the line (P01), or answer nonsense (P02): that call fails, nothing else does."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import cutting_proxy
import grpc
import grpc_bomb
import grpc_proxy
import node_parts
import pool_parts
import pytest
import pytest_asyncio
import waiting

from hivemind_worker.client import asynchronous
from hivemind_worker.tasks import state
from hivemind_worker.wire import calls
from hivemind_worker.worker.pool_link import client as pool_client

pb = calls.pb
MIB = 1024**2
CALLS = ("RegisterNode", "UpdateNodeStatus", "GetAssignedTasks", "ReportTaskResult", "AppendTaskLogs", "UploadArtifact")
# A string field (2, message) that is no UTF-8; a field whose length says more than comes; and what is no protobuf.
NONSENSE = {
    "no utf-8": b"\x12\x04\xff\xfe\xc3\x28",
    "torn": b"\x12\xff\xff\xff\x7fx",
    "garbage": bytes(range(256)) * 40,
    "5 MB": b"\x12\xc0\x96\xb1\x02" + b"x" * 5_000_000,
}
ALWAYS = ("torn", "5 MB")


@pytest.fixture(autouse=True)
def _no_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the library logs of nonsense holds the whole call, sockets and all, for as long as the log is kept."""
    for name in ("grpc._common", "grpc._cython.cygrpc"):
        monkeypatch.setattr(logging.getLogger(name), "disabled", True)


@pytest_asyncio.fixture
async def pool(tmp_path: Path) -> AsyncIterator[pool_parts.Running]:
    async with pool_parts.running(tmp_path / "pool", lease_seconds=30.0) as found:
        yield found


async def _works(address: str, node: node_parts.Node) -> None:
    """A task goes in, is run once, and its result comes back."""
    async with asynchronous.AsyncClient(address) as client:
        (task_id,) = await client.submit({"command": "echo said; echo kept > results/out; sleep 0.2"})
        (ended,) = await client.wait(task_id, 60)
        assert (ended.status, ended.attempt) == (state.TaskState.COMPLETED, 1)
        assert [file.name for file in await client.results(task_id)] == ["out"]
    assert node.runs.ran.count((task_id, 1)) == 1


@pytest.mark.parametrize(
    "nonsense", [pytest.param(name, marks=[] if name in ALWAYS else pytest.mark.long) for name in NONSENSE]
)
async def test_p02_nonsense_fails_its_own_call_and_nothing_else(
    pool: pool_parts.Running, tmp_path: Path, nonsense: str
) -> None:
    faults = [grpc_proxy.Fault(call, "garbled", data=NONSENSE[nonsense]) for call in CALLS]
    async with (
        grpc_proxy.before(pool.pool.address, *faults) as proxy,
        node_parts.running(proxy.address, tmp_path / "work") as node,
    ):
        await _works(pool.pool.address, node)
        assert [fault.call for fault in faults if not fault.met] == []


async def test_p02_a_download_of_nonsense_is_not_taken_for_the_file(pool: pool_parts.Running, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(bytes(range(256)) * 10_000)
    wrong = pb.DownloadArtifactResponse(data=b"something else", offset=0, size=2_560_000).SerializeToString()
    faults = [grpc_proxy.Fault("DownloadArtifact", "garbled", data=data) for data in (NONSENSE["garbage"], wrong)]
    async with (
        grpc_proxy.before(pool.pool.address, *faults) as proxy,
        node_parts.running(proxy.address, tmp_path / "work"),
        asynchronous.AsyncClient(pool.pool.address) as client,
    ):
        task = {"command": "cp in results/out", "input_files": {"in": {"file": "in"}}}
        (task_id,) = await client.submit(task, base=tmp_path)
        await client.wait(task_id, 60)
        await client.download(task_id, tmp_path / "fetched")
    assert (tmp_path / "fetched" / "out").read_bytes() == (tmp_path / "in").read_bytes()
    assert [fault.met for fault in faults] == [1, 1]


@pytest.mark.long
async def test_p02_a_gzip_bomb_is_not_unpacked(pool: pool_parts.Running, tmp_path: Path) -> None:
    bombed = ("RegisterNode", "UpdateNodeStatus", "GetAssignedTasks", "ReportTaskResult")
    async with grpc_bomb.before(pool.pool.address, 128, *bombed) as address:  # 130 KB on the line
        await asyncio.to_thread(Path("/proc/self/clear_refs").write_text, "5")  # the peak is counted anew
        before = _peak()
        async with node_parts.running(address, tmp_path / "work") as node:
            await _works(pool.pool.address, node)
        assert _peak() - before < 64 * MIB


def _peak() -> int:
    """The most memory that this process has had, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) * 1024


@pytest.mark.long
async def test_p02_a_hundred_thousand_tasks_in_one_answer(pool: pool_parts.Running, tmp_path: Path) -> None:
    flood = pb.GetAssignedTasksResponse(success=True)
    flood.tasks.extend(pb.Task(id=f"t{number}", command="true", attempt=1) for number in range(100_000))
    assert flood.ByteSize() < calls.MESSAGE_BYTES
    fault = grpc_proxy.Fault("GetAssignedTasks", "garbled", data=flood.SerializeToString())
    async with (
        grpc_proxy.before(pool.pool.address) as proxy,
        node_parts.running(proxy.address, tmp_path / "work") as node,
    ):
        await _works(pool.pool.address, node)  # it has tried its defences: before that it takes nothing
        ended = node.node.snapshot().ended
        proxy.faults.append(fault)
        await waiting.wait_until(lambda: fault.met, description="the flood has come", seconds=60)
        await waiting.wait_until(
            lambda: node.node.snapshot().ended > ended, description="some of it has ended", seconds=60
        )
        assert len(node.node.snapshot().attempts) <= 256
        await _works(pool.pool.address, node)
        nodes = (await pool.tasks.ListNodes(pb.ListNodesRequest())).nodes
        assert [(known.node_id, known.status) for known in nodes] != [("node-1", "lost")]


@pytest.mark.parametrize("how", ["silent", *(pytest.param(how, marks=pytest.mark.long) for how in ("slow", "resets"))])
async def test_p01_deadlines_hold(
    pool: pool_parts.Running,
    tmp_path: Path,
    how: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(pool_client, "CALL_SECONDS", 1.0)
    monkeypatch.setattr(pool_client, "POLL_SLACK_SECONDS", 1.0)
    async with (
        cutting_proxy.line(pool.pool.address, [150] * 2 if how == "resets" else []) as line,
        node_parts.running(line.address, tmp_path / "work", poll_seconds=1.0) as node,
    ):
        if how == "resets":
            await waiting.wait_until(lambda: line.broken >= 2, description="the line breaks", seconds=30)
        else:
            await waiting.wait_until(lambda: node.node.snapshot().connected, description="the node is there")
        if how == "silent":
            line.freeze()
            # Nobody waits for longer than its call's deadline.
            await waiting.wait_until(lambda: "poll_failed" in caplog.text, description="a poll was given up")
            line.join()
        if how == "slow":
            line.delay_seconds = 0.3
        await _works(pool.pool.address, node)


@pytest.mark.parametrize("service", ["NodeManager", "TaskManager"])
async def test_nonsense_sent_to_the_pool_fails_its_own_call_and_nothing_else(
    pool: pool_parts.Running, service: str
) -> None:
    described = pb.DESCRIPTOR.services_by_name[service]
    async with grpc.aio.insecure_channel(pool.pool.address, options=calls.CLIENT_OPTIONS) as channel:
        codes = [await _garbage(channel, f"/{described.full_name}/{method.name}") for method in described.methods]
        assert set(codes) == {grpc.StatusCode.INVALID_ARGUMENT}
    assert (await pool.info((await pool.submit())[0])).state == "queued"


async def _garbage(channel: grpc.aio.Channel, method: str) -> grpc.StatusCode:
    ask: Callable[..., Any] = channel.stream_stream(method)
    call = ask(timeout=10)
    await call.write(b"\xff" * 100)
    await call.done_writing()
    code: grpc.StatusCode = await call.code()
    return code
