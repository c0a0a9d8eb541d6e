"""The submitter's line breaks, again and again: nothing is lost, nothing is done twice, and what was sent counts."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import cutting_proxy
import installed
import node_parts
import pytest
import pytest_asyncio
import waiting

from hivemind_worker import errors
from hivemind_worker.client import asynchronous
from hivemind_worker.pool import server
from hivemind_worker.tasks import state

MIB = 1024 * 1024


@pytest_asyncio.fixture
async def pool(tmp_path: Path) -> AsyncIterator[server.NodePool]:
    made = server.NodePool(tmp_path / "pool", lease_seconds=30.0)
    await made.start()
    yield made
    await made.stop()


@pytest.mark.long
async def test_files_go_up_and_come_down_over_a_line_that_takes_5_mib_at_a_time(
    pool: server.NodePool, tmp_path: Path
) -> None:
    content = os.urandom(12 * MIB)
    (tmp_path / "in.bin").write_bytes(content)
    task = {"id": "copy", "command": "cp in.bin results/out.bin", "input_files": {"in.bin": {"file": "in.bin"}}}
    (tmp_path / "task.json").write_text(json.dumps(task))
    async with (
        node_parts.running(pool.address, tmp_path / "work"),
        # Begun again instead of gone on, neither way would ever come to its end.
        cutting_proxy.line(pool.address, [5 * MIB] * 100) as line,
    ):
        assert await _hivemind("submit", str(tmp_path / "task.json"), "--node-pool", line.address) == b"copy\n"
        up = line.broken
        assert up >= 2
        await _hivemind("wait", "copy", "--node-pool", pool.address)
        fetched = await _hivemind("results", "copy", "-o", str(tmp_path / "fetched"), "--node-pool", line.address)
        assert line.broken - up >= 2
    assert fetched.decode() == f"{tmp_path / 'fetched' / 'out.bin'}\n"
    assert (tmp_path / "fetched" / "out.bin").read_bytes() == content


async def _hivemind(*words: str) -> bytes:
    """The command, in a process of its own: in ours gRPC would keep two sockets for every stream that broke."""
    process = await asyncio.create_subprocess_exec(installed.HIVEMIND, *words, stdout=subprocess.PIPE)
    said, _ = await process.communicate()
    assert process.returncode == 0
    return said


async def test_an_answer_that_is_lost_makes_no_second_task(pool: server.NodePool) -> None:
    async with (
        cutting_proxy.line(pool.address, [300, 600, 900, 1200]) as line,
        asynchronous.AsyncClient(line.address) as client,
    ):
        ids = await client.submit([{"command": f"echo {number}"} for number in range(20)])
        assert line.broken
        assert len(set(ids)) == 20
        assert {task.id async for task in client.tasks()} == set(ids)


async def test_waiting_and_following_go_on_where_they_were(pool: server.NodePool, tmp_path: Path) -> None:
    async with (
        node_parts.running(pool.address, tmp_path / "work"),
        cutting_proxy.line(pool.address) as line,
        asynchronous.AsyncClient(line.address) as client,
    ):
        go = tmp_path / "go"  # made when the line has been broken
        (task_id,) = await client.submit(
            {"command": f"seq 1 500; while [ ! -e {go} ]; do sleep 0.02; done; seq 501 1000"}
        )
        heard = bytearray()

        async def listen() -> None:
            async for output in client.logs(task_id, follow=True):
                heard.extend(output.data)

        listening = asyncio.create_task(listen(), name="listening")
        ending = asyncio.create_task(client.wait(task_id, 60), name="waiting")
        await waiting.wait_until(lambda: heard.endswith(b"\n500\n"), description="the first half", seconds=20)
        line.break_now()
        await asyncio.to_thread(go.touch)
        (task,) = await ending
        await listening
        assert task.status is state.TaskState.COMPLETED
        assert heard.decode() == "".join(f"{number}\n" for number in range(1, 1001))
        assert line.broken


async def test_a_pool_that_comes_back_in_time_is_waited_for(tmp_path: Path) -> None:
    first = server.NodePool(tmp_path / "pool")
    address = await first.start()
    async with asynchronous.AsyncClient(address, patience=20) as client:
        (task_id,) = await client.submit({"command": "true"})
        await first.stop()
        asking = asyncio.create_task(client.task(task_id), name="asking")
        second = server.NodePool(tmp_path / "pool", address)
        await second.start()
        assert (await asking).status is state.TaskState.QUEUED
        await second.stop()


async def test_a_pool_that_does_not_is_unavailable(tmp_path: Path) -> None:
    async with asynchronous.AsyncClient(f"unix:{tmp_path}/nobody.sock", patience=0.3) as client:
        with pytest.raises(errors.Unavailable, match="no pool answers"):
            await client.info()
        with pytest.raises(errors.Unavailable):
            await client.wait("x")
