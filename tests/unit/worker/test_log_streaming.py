from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import waiting
from scripted_pool import ScriptedPool, serving

from hivemind_worker import errors
from hivemind_worker.artifacts import spool
from hivemind_worker.concurrency import stopping
from hivemind_worker.runtime import executor
from hivemind_worker.tasks import attempt_id
from hivemind_worker.wire import calls
from hivemind_worker.worker.attempts import log_streaming
from hivemind_worker.worker.pool_link import channel, client, session

OUT, ERR, _ = executor.Stream


class Sending:
    def __init__(
        self, pool: ScriptedPool, stream: log_streaming.LogStream, waits: spool.Spool, pump: asyncio.Task[None]
    ) -> None:
        self.pool, self.stream, self.waits, self.pump = pool, stream, waits, pump

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


RUN = attempt_id.RunKey(attempt_id.AttemptId("t", 1, "e" * 32), "r" * 32)


@contextlib.asynccontextmanager
async def _sending(folder: Path, limit: int = spool.LIMIT_BYTES) -> AsyncIterator[Sending]:
    waiting_output = spool.Spool(folder / "output", limit)
    pool = ScriptedPool()
    async with serving(pool) as address:
        link = client.NodePoolClient(channel.Access(address))
        line, stop = session.Session(link), stopping.Stop()
        stream = log_streaming.LogStream(link, line, log_streaming.Source("node-1", lambda: RUN), waiting_output)
        keeping = asyncio.create_task(
            line.keep(stop, lambda: calls.pb.RegisterNodeRequest(node_id="node-1"), lambda _: None)
        )
        pump = asyncio.create_task(stream.pump())
        try:
            yield Sending(pool, stream, waiting_output, pump)
        finally:
            await stopping.settle(pump)
            await stream.rest()
            waiting_output.remove()
            stop.request(stopping.StopLevel.KILL, "the test is over")
            await keeping
            await link.close()


async def test_output_arrives_in_order_and_both_streams_apart(tmp_path: Path) -> None:
    async with _sending(tmp_path) as sending:
        offset = 0
        for number in range(200):
            data = f"line {number}\n".encode()
            sending.stream.add(OUT, offset, data)
            sending.stream.add(ERR, number, b"e")
            offset += len(data)
        await waiting.wait_until(lambda: len(sending.arrived()) == offset, description="all output")
    assert sending.arrived() == b"".join(f"line {number}\n".encode() for number in range(200))
    assert sending.arrived(calls.pb.LOG_STREAM_STDERR) == b"e" * 200


async def test_failed_and_forgotten_batches_are_sent_again_and_stand_once(tmp_path: Path) -> None:
    async with _sending(tmp_path) as sending:
        sending.pool.fail["AppendTaskLogs"] = [errors.Unavailable("busy")]
        sending.stream.add(OUT, 0, b"one ")
        await waiting.wait_until(lambda: sending.arrived() == b"one ", description="the first")
        sending.pool.forget()
        sending.stream.add(OUT, 4, b"two")
        await waiting.wait_until(lambda: sending.arrived() == b"one two", description="the second")
    assert sending.gaps() == []


async def test_a_slow_pool_costs_bounded_room_and_the_gap_shows(tmp_path: Path) -> None:
    async with _sending(tmp_path, limit=1024**2) as sending:
        sending.pool.output_gate.clear()
        offset = 0
        for _ in range(1_000):  # 64 MB: far more than there is room for
            sending.stream.add(OUT, offset, b"x" * 65_536)
            offset += 65_536
        assert (tmp_path / "output").stat().st_size <= 1024**2
        assert sending.waits.left_out_bytes > 60_000_000
        sending.pool.output_gate.set()
        await waiting.wait_until(lambda: not sending.stream.waiting, description="all has arrived")
        sending.stream.add(OUT, offset, b"end")
        await waiting.wait_until(lambda: sending.arrived().endswith(b"end"), description="the end")
    ((gap_from, gap_to),) = sending.gaps()
    assert gap_to == offset
    assert gap_to - gap_from == sending.waits.left_out_bytes


async def test_a_chunk_larger_than_a_message_is_cut(tmp_path: Path) -> None:
    async with _sending(tmp_path) as sending:
        data = bytes(range(256)) * 3_900
        sending.stream.add(OUT, 0, data)
        await waiting.wait_until(lambda: len(sending.arrived()) == len(data), description="all of it")
        assert sending.arrived() == data
        assert max(len(chunk.data) for chunk in sending.pool.output["t"].values()) <= log_streaming.BATCH_BYTES


async def test_output_that_the_disk_does_not_give_back_does_not_hold_up_the_report(tmp_path: Path) -> None:
    async with _sending(tmp_path) as sending:
        sending.pool.output_gate.clear()
        sending.stream.add(OUT, 0, b"lost")
        sending.waits.close()
        (tmp_path / "output").unlink()
        (tmp_path / "output").symlink_to("/proc/self/mem")  # EIO, as the kernel answers for a broken sector
        sending.pool.output_gate.set()
        await asyncio.wait({sending.pump}, timeout=0.3)
        assert not sending.pump.done(), "it may be read again later"
        await sending.stream.rest()
        assert not sending.stream.waiting


async def test_a_pool_that_never_takes_the_last_batch_does_not_hold_up_the_report(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(log_streaming, "LAST_SECONDS", 0.2)
    async with _sending(tmp_path) as sending:
        sending.pool.output_gate.clear()
        sending.stream.add(OUT, 0, b"never")
        async with asyncio.timeout(5):
            await sending.stream.rest()
        assert not sending.stream.waiting
        sending.pool.output_gate.set()


async def test_what_has_not_arrived_is_sent_by_the_next_process_once(tmp_path: Path) -> None:
    first = spool.Spool(tmp_path / "output")
    first.add(1, 0, b"one ")
    first.add(1, 4, b"two ")
    first.add(2, 0, b"complaint")
    first.close()
    torn = (tmp_path / "output").read_bytes()
    (tmp_path / "output").write_bytes(torn + torn[:23])  # killed in the middle of a chunk
    async with _sending(tmp_path) as sending:
        sending.stream.add(OUT, 0, b"one two three")  # the capsule repeats what was not acknowledged
        sending.stream.add(ERR, 9, b"!")
        await waiting.wait_until(lambda: not sending.stream.waiting, description="all has arrived")
        assert sending.arrived() == b"one two three"
        assert sending.arrived(calls.pb.LOG_STREAM_STDERR) == b"complaint!"


def test_what_has_arrived_takes_no_room_and_is_still_known(tmp_path: Path) -> None:
    waits = spool.Spool(tmp_path / "output")
    for offset in range(0, 3 * spool.AFRESH_BYTES, 65_536):
        waits.add(1, offset, b"x" * 65_536)
        waits.arrived(waits.batch(1)[-1].sequence + 1)
    assert (tmp_path / "output").stat().st_size < 2 * spool.AFRESH_BYTES
    waits.close()
    again = spool.Spool(tmp_path / "output")
    again.add(1, 0, b"x" * 3 * spool.AFRESH_BYTES)
    assert not [chunk for chunk in again.batch(2**30) if chunk.data and chunk.offset >= 3 * spool.AFRESH_BYTES]
    again.remove()
    assert not list(tmp_path.iterdir())


async def test_where_the_pool_says_no_nothing_more_is_sent(tmp_path: Path) -> None:
    async with _sending(tmp_path) as sending:
        sending.pool.fail["AppendTaskLogs"] = [errors.Rejected("not yours")]
        sending.stream.add(OUT, 0, b"a")
        await waiting.wait_until(lambda: sending.stream._off, description="given up")
        sending.stream.add(OUT, 1, b"b")
    assert sending.pool.calls["AppendTaskLogs"] == 1
