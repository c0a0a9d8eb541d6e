"""Requests of one message: read once there is room, refused with words beyond it; answers count until they went."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import memory_relay
import pool_parts
import pytest
import waiting

from hivemind_worker.pool.api import live, streams
from hivemind_worker.pool.store import records
from hivemind_worker.wire import calls, unparsed

pb = calls.pb
MIB = 1024**2


def half(**limits: Any) -> streams.Requests:
    return streams.Requests(reading=streams.Budget(**limits), work=streams.Budget(**limits))


def without_request(channel: grpc.aio.Channel, call: str = "TaskManager/SubmitTasks") -> Any:
    """A call of one request that begins, and sends none."""
    package = calls.pb.DESCRIPTOR.package
    method: Any = channel.stream_unary(f"/{package}.{call}")
    return method()


async def test_requests_that_do_not_come_hold_up_neither_others_nor_what_keeps_a_node_alive(tmp_path: Path) -> None:
    requests = half(max_peer_bytes=2 * calls.MESSAGE_BYTES, wait_seconds=0.3)
    async with pool_parts.running(tmp_path, budgets=streams.Streams(requests=requests)) as at:
        worker = await at.worker()
        async with (
            grpc.aio.insecure_channel(at.pool.address) as channel,
            memory_relay.Relay(at.pool.address, "127.0.0.9") as relay,
            grpc.aio.insecure_channel(relay.address) as elsewhere,
        ):
            begun = [without_request(channel) for _ in range(2)]
            await waiting.wait_until(
                lambda: requests.reading.used_bytes == 2 * calls.MESSAGE_BYTES, description="both are read", seconds=20
            )
            with pytest.raises(grpc.aio.AioRpcError, match="no room") as refused:
                await at.submit()
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE, "to be tried again"
            assert (await worker.beat()).success, "the node lives"
            submit = pb.SubmitTasksRequest(tasks=[pb.Task(command="true")])
            assert (await calls.task_manager(elsewhere).SubmitTasks(submit)).success, "others are served"
            for call in begun:
                call.cancel()
            assert await at.submit()
        await waiting.wait_until(
            lambda: requests.reading.used_bytes == requests.work.used_bytes == 0, description="nothing is counted"
        )


async def test_what_is_made_of_a_request_counts_before_it_is_made(tmp_path: Path) -> None:
    requests = half(max_peer_bytes=2 * calls.MESSAGE_BYTES, wait_seconds=0.3)
    async with pool_parts.running(tmp_path, budgets=streams.Streams(requests=requests)) as at:
        with await requests.work.take("ipv4:127.0.0.1", 2 * calls.MESSAGE_BYTES):
            with pytest.raises(grpc.aio.AioRpcError, match="no room") as refused:
                await at.submit()
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE, "to be tried again"
        assert await at.submit()


async def test_a_request_that_does_not_come_in_time_ends_its_call(tmp_path: Path) -> None:
    async with (
        pool_parts.running(tmp_path, budgets=streams.Streams(read_seconds=0.3)) as at,
        grpc.aio.insecure_channel(at.pool.address) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError, match="did not come within") as ended:
            await asyncio.wait_for(without_request(channel), 20)
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_call_without_its_request_is_said_to_have_none(tmp_path: Path) -> None:
    async with pool_parts.running(tmp_path) as at, grpc.aio.insecure_channel(at.pool.address) as channel:
        call = without_request(channel)
        await call.done_writing()
        with pytest.raises(grpc.aio.AioRpcError, match="no request") as ended:
            await asyncio.wait_for(call, 20)
        assert ended.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_an_answer_counts_until_its_caller_has_it(tmp_path: Path) -> None:
    budgets = streams.Streams()
    async with pool_parts.running(tmp_path, budgets=budgets) as at:
        worker = await at.worker()
        (task_id,) = await at.submit()
        await worker.report(await worker.take(), logs="x" * 3 * MIB)
        async with (
            memory_relay.Relay(at.pool.address, "127.0.0.9") as relay,
            grpc.aio.insecure_channel(relay.address, options=calls.CLIENT_OPTIONS) as channel,
        ):
            stub = calls.task_manager(channel)
            await stub.GetPoolInfo(pb.GetPoolInfoRequest())
            relay.answers.clear()
            # One of them the kernel may take.
            sent = [stub.GetTask(pb.GetTaskRequest(task_id=task_id)) for _ in range(4)]
            await waiting.wait_until(
                lambda: budgets.answers.used_bytes >= 6 * MIB and budgets.requests.work.used_bytes == 0,
                description="answers are being sent, and nobody works on them any more",
                seconds=60,
            )
            relay.answers.set()
            assert [len((await call).task.result.logs) for call in sent] == [3 * MIB] * 4
        await waiting.wait_until(lambda: budgets.answers.used_bytes == 0, description="nothing is counted")


async def test_a_list_does_not_read_large_output(tmp_path: Path) -> None:
    async with pool_parts.running(tmp_path) as at:
        worker = await at.worker()
        await at.submit()
        await worker.report(await worker.take(), logs="x" * MIB, files=[], stdout_bytes=MIB)

        def read(body: bytes) -> bytes:
            raise AssertionError(f"{len(body)} bytes were read for a list")

        (task,) = await at.pool.store.find(records.Filter(summary=read))
        summary = pb.TaskResult.FromString(task.result or b"")
        assert (summary.status, summary.stdout_bytes, summary.logs) == ("completed", MIB, "")
        (shown,) = (await at.tasks.ListTasks(pb.ListTasksRequest())).tasks
        assert shown.result == summary


async def test_large_bodies_and_results_are_read_when_there_is_room_for_them(tmp_path: Path) -> None:
    async with pool_parts.running(tmp_path) as at:
        worker = await at.worker()
        large = pb.Task(command="x" * 2 * records.MAX_HANDED_BODY)
        (task_id,) = await at.submit(large)
        handed = await worker.take()
        assert handed.command == large.command
        (again,) = (await worker.poll(5)).tasks
        assert again == handed, "it was not said to have come"
        await worker.report(handed, logs="x" * MIB)
        store = at.pool.store
        (whole,) = await store.tasks([task_id])
        assert whole.result is not None
        assert len(whole.result) == whole.result_bytes > MIB
        (unread,) = await store.tasks([task_id], max_result_bytes=MIB)
        assert (unread.result, unread.result_bytes) == (None, whole.result_bytes)
        assert whole.body_bytes == unread.body_bytes == len(await store.body(task_id))
        watched = [answer async for answer in at.tasks.WatchTasks(pb.WatchTasksRequest(task_ids=[task_id]))]
        assert len(watched[-1].task.result.logs) == MIB


def test_what_a_node_says_of_usage_does_not_keep_its_heartbeat() -> None:
    known = live.Live()
    ref = pb.AttemptRef(task_id="t", attempt=1, phase="running", usage=pb.Usage(cpu_percent=50))
    ref.usage.MergeFromString(b"\xc2\x3e\x03abc")  # a field of a later version
    known.beat("n", [ref], [])
    said = known.of("t", 1, "n")
    assert said is not None
    assert said.usage == pb.Usage(cpu_percent=50).SerializeToString()


def test_one_field_is_read_without_the_others() -> None:
    result = pb.TaskResult(status="failed", exit_code=-1, logs="🙂" * 1_000, error="e", timings={"a": 1.0})
    data = result.SerializeToString()
    assert unparsed.field_bytes(data, 3).decode() == result.logs
    assert unparsed.field_bytes(data, 4) == b"e"
    assert unparsed.field_bytes(data, 12) == b""
    assert unparsed.field_bytes(data + pb.TaskResult(logs="last").SerializeToString(), 3) == b"last"
    with pytest.raises(calls.Garbled):
        unparsed.field_bytes(b"\x08", 3)
