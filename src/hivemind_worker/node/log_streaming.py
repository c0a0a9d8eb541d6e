"""A task's output on its way to the pool while it runs: batches, acknowledged and resumed by number, bounded memory.

A slow or absent pool never holds the task back: what does not fit into the buffer is left out, and the offsets of the
chunks that follow show the gap. The report at the end carries head and tail in any case.
"""

from __future__ import annotations

import asyncio
import collections
from dataclasses import dataclass

from hivemind_worker.concurrency import backoff, clock, stopping
from hivemind_worker.executors import executor
from hivemind_worker.pool_client import client, session
from hivemind_worker.task import errors
from hivemind_worker.telemetry import logs
from hivemind_worker.wire import calls

BUFFER_BYTES = 1024**2
"""Output of one attempt that may wait for the pool."""

BATCH_BYTES = 256 * 1024
"""Most output in one message: a sixteenth of the message limit, and 4 of them empty the buffer."""

CHUNK_COST = 64
"""Bytes that a chunk costs beside its data, so that a million empty-ish chunks are bounded too."""

GATHER_SECONDS = 0.1
"""How long output is gathered before it is sent: no delay to a follower, and 10 calls a second from a chatty task."""

LAST_SECONDS = 5.0
"""How long the report waits for the last batch."""

log = logs.StructuredLogger(__name__)

_STREAMS = {
    executor.Stream.STDOUT: calls.pb.LOG_STREAM_STDOUT,
    executor.Stream.STDERR: calls.pb.LOG_STREAM_STDERR,
    executor.Stream.SYSTEM: calls.pb.LOG_STREAM_SYSTEM,
}


@dataclass(frozen=True, slots=True)
class Source:
    """Whose output it is."""

    node_id: str
    task_id: str
    attempt: int


class LogStream:
    """The output of one attempt. ``add`` never waits; ``pump`` is the loop that sends; ``finish`` ends it."""

    def __init__(self, pool: client.NodePoolClient, line: session.Session, source: Source) -> None:
        self._pool = pool
        self._line = line
        self._source = source
        self._waiting: collections.deque[calls.pb.LogChunk] = collections.deque()
        self._bytes = 0
        self._next = 0
        self._more = asyncio.Event()
        self._off = False
        self._last_by: float | None = None
        self.left_out_bytes = 0

    def add(self, stream: executor.Stream, offset: int, data: bytes) -> None:
        """Take output that has just arrived; leaves it out when the buffer is full."""
        if self._off or not data:
            return
        if self._bytes + len(data) + CHUNK_COST > BUFFER_BYTES:
            self.left_out_bytes += len(data)
            return
        for start in range(0, len(data), BATCH_BYTES):
            piece = data[start : start + BATCH_BYTES]
            chunk = calls.pb.LogChunk(stream=_STREAMS[stream], offset=offset + start, data=piece, sequence=self._next)
            self._next += 1
            self._waiting.append(chunk)
            self._bytes += len(piece) + CHUNK_COST
        self._more.set()

    def finish(self) -> None:
        """Nothing more comes: ``pump`` sends what waits, for ``LAST_SECONDS`` at most, and returns."""
        self._last_by = clock.now() + LAST_SECONDS
        self._more.set()

    async def pump(self) -> None:
        """Send batches until ``finish``. Ends early, for good, where the pool takes no output."""
        while not self._off:
            if not self._waiting and self._last_by is None:
                self._more.clear()
                await self._more.wait()
                await self._gather()
            if not self._waiting:
                if self._last_by is not None:
                    return
                continue
            try:
                async with asyncio.timeout_at(self._last_by):
                    await self._send()
            except TimeoutError:
                self._give_up("the pool was too slow for the last of it")

    async def _gather(self) -> None:
        if self._hurried():
            return
        self._more.clear()
        due = clock.now() + GATHER_SECONDS
        try:
            async with asyncio.timeout_at(due):
                while not self._hurried():
                    await self._more.wait()
                    self._more.clear()
        except TimeoutError:
            return

    def _hurried(self) -> bool:
        return self._last_by is not None or self._bytes >= BATCH_BYTES

    async def _send(self) -> None:
        """Send one batch until it is acknowledged, or there is no use in it."""
        # Never stops of its own accord: whoever runs the pump limits or cancels it.
        pauses = backoff.Backoff(stopping.Stop(), cap=10.0)
        batch = self._batch()
        while True:
            try:
                answer = await self._line.call(lambda session_id: self._append(session_id, batch))
            except errors.Unavailable:
                await pauses.pause()
            except errors.NotImplementedByPeer:
                self._give_up("")
                return
            except errors.HiveMindError as error:
                self._give_up(str(error))
                return
            else:
                self._acknowledged(answer, batch)
                return

    async def _append(self, session_id: str, batch: list[calls.pb.LogChunk]) -> calls.pb.AppendTaskLogsResponse:
        if self._line.plain:
            raise errors.NotImplementedByPeer("a pool without sessions takes no output")
        request = calls.pb.AppendTaskLogsRequest(
            task_id=self._source.task_id,
            attempt=self._source.attempt,
            node_id=self._source.node_id,
            session_id=session_id,
            chunks=batch,
        )
        return await self._pool.append_task_logs(request)

    def _batch(self) -> list[calls.pb.LogChunk]:
        batch: list[calls.pb.LogChunk] = []
        size = 0
        for chunk in self._waiting:
            size += len(chunk.data) + CHUNK_COST
            if batch and size > BATCH_BYTES:
                break
            batch.append(chunk)
        return batch

    def _acknowledged(self, answer: calls.pb.AppendTaskLogsResponse, batch: list[calls.pb.LogChunk]) -> None:
        """Forget what the pool has. One that acknowledges nothing of a batch does not want it: no endless loop."""
        got = max(answer.next_sequence, batch[0].sequence + 1) if answer.success else batch[-1].sequence + 1
        while self._waiting and self._waiting[0].sequence < got:
            self._bytes -= len(self._waiting.popleft().data) + CHUNK_COST

    def _give_up(self, why: str) -> None:
        self._off = True
        self._waiting.clear()
        self._bytes = 0
        if why:
            log.log_task_event("output_not_streamed", self._source.task_id, {"why": why}, level="warning")
