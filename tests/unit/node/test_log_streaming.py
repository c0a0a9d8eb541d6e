from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import waiting
from scripted_pool import ScriptedPool, serving

from hivemind_worker.concurrency import stopping
from hivemind_worker.executors import executor
from hivemind_worker.node import log_streaming
from hivemind_worker.pool_client import channel, client, session
from hivemind_worker.task import errors
from hivemind_worker.wire import calls

OUT, ERR, _ = executor.Stream


class Sending:
    def __init__(self, pool: ScriptedPool, stream: log_streaming.LogStream) -> None:
        self.pool, self.stream = pool, stream

    def arrived(self, which: int = calls.pb.LOG_STREAM_STDOUT) -> bytes:
        chunks = self.pool.output["t"]
        return b"".join(chunks[at].data for at in sorted(chunks) if chunks[at].stream == which)

    def gaps(self) -> list[tuple[int, int]]:
        """Where the offsets of stdout jump."""
        found, expected = [], 0
        for at in sorted(self.pool.output["t"]):
            chunk = self.pool.output["t"][at]
            if chunk.offset != expected:
                found.append((expected, chunk.offset))
            expected = chunk.offset + len(chunk.data)
        return found


@contextlib.asynccontextmanager
async def _sending() -> AsyncIterator[Sending]:
    pool = ScriptedPool()
    async with serving(pool) as address:
        link = client.NodePoolClient(channel.Access(address))
        line, stop = session.Session(link), stopping.Stop()
        stream = log_streaming.LogStream(link, line, log_streaming.Source("node-1", "t", 1))
        keeping = asyncio.create_task(
            line.keep(stop, lambda: calls.pb.RegisterNodeRequest(node_id="node-1"), lambda _: None)
        )
        pump = asyncio.create_task(stream.pump())
        try:
            yield Sending(pool, stream)
        finally:
            stream.finish()
            await pump
            stop.request(stopping.StopLevel.KILL, "the test is over")
            await keeping
            await link.close()


async def test_output_arrives_in_order_and_both_streams_apart() -> None:
    async with _sending() as sending:
        offset = 0
        for number in range(200):
            data = f"line {number}\n".encode()
            sending.stream.add(OUT, offset, data)
            sending.stream.add(ERR, number, b"e")
            offset += len(data)
        sending.stream.finish()
        await waiting.wait_until(lambda: len(sending.arrived()) == offset, description="all output")
    assert sending.arrived() == b"".join(f"line {number}\n".encode() for number in range(200))
    assert sending.arrived(calls.pb.LOG_STREAM_STDERR) == b"e" * 200


async def test_failed_and_forgotten_batches_are_sent_again_and_stand_once() -> None:
    async with _sending() as sending:
        sending.pool.fail["AppendTaskLogs"] = [errors.Unavailable("busy")]
        sending.stream.add(OUT, 0, b"one ")
        await waiting.wait_until(lambda: sending.arrived() == b"one ", description="the first")
        sending.pool.forget()
        sending.stream.add(OUT, 4, b"two")
        await waiting.wait_until(lambda: sending.arrived() == b"one two", description="the second")
    assert sending.gaps() == []


async def test_a_slow_pool_costs_bounded_memory_and_the_gap_shows() -> None:
    async with _sending() as sending:
        sending.pool.output_gate.clear()
        offset = 0
        for _ in range(1_000):  # 64 MB: far more than the buffer
            sending.stream.add(OUT, offset, b"x" * 65_536)
            offset += 65_536
        assert sending.stream._bytes <= log_streaming.BUFFER_BYTES
        assert sending.stream.left_out_bytes > 60_000_000
        sending.pool.output_gate.set()
        await waiting.wait_until(lambda: sending.stream._bytes == 0, description="the buffer is empty again")
        sending.stream.add(OUT, offset, b"end")
        sending.stream.finish()
        await waiting.wait_until(lambda: sending.arrived().endswith(b"end"), description="the end")
    ((gap_from, gap_to),) = sending.gaps()
    assert gap_to == offset
    assert gap_to - gap_from == sending.stream.left_out_bytes


async def test_a_chunk_larger_than_a_message_is_cut() -> None:
    async with _sending() as sending:
        data = bytes(range(256)) * 3_900
        sending.stream.add(OUT, 0, data)
        await waiting.wait_until(lambda: len(sending.arrived()) == len(data), description="all of it")
        assert sending.arrived() == data
        assert max(len(chunk.data) for chunk in sending.pool.output["t"].values()) <= log_streaming.BATCH_BYTES


async def test_a_pool_that_never_takes_the_last_batch_does_not_hold_up_the_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log_streaming, "LAST_SECONDS", 0.2)
    async with _sending() as sending:
        sending.pool.output_gate.clear()
        sending.stream.add(OUT, 0, b"never")
        sending.stream.finish()
        await waiting.wait_until(lambda: sending.stream._off, description="given up", seconds=5)
        sending.pool.output_gate.set()


async def test_where_the_pool_says_no_nothing_more_is_sent() -> None:
    async with _sending() as sending:
        sending.pool.fail["AppendTaskLogs"] = [errors.Rejected("not yours")]
        sending.stream.add(OUT, 0, b"a")
        await waiting.wait_until(lambda: sending.stream._off, description="given up")
        sending.stream.add(OUT, 1, b"b")
        sending.stream.finish()
    assert sending.pool.calls["AppendTaskLogs"] == 1
