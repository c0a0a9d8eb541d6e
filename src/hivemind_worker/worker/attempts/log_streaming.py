"""A task's output on its way to the pool while it runs: batches, acknowledged and resumed by number.

A slow or absent pool never holds the task back: what waits for it lies in a file, and what does not fit there is left
out and logged; the offsets of the chunks that follow show the gap, and the pool marks it. The report at the end carries
head and tail in any case.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from hivemind_worker import errors
from hivemind_worker.artifacts import spool as spools
from hivemind_worker.concurrency import backoff, clock, stopping
from hivemind_worker.runtime import executor
from hivemind_worker.tasks import attempt_id
from hivemind_worker.telemetry import logs
from hivemind_worker.wire import calls
from hivemind_worker.worker.pool_link import client, session

BATCH_BYTES = 256 * 1024
"""Most output in one message: a sixteenth of the message limit."""

GATHER_SECONDS = 0.1
"""How long output is gathered before it is sent: no delay to a follower, and 10 calls a second from a chatty task."""

LAST_SECONDS = 5.0
"""How long the report waits for the last of the output, once the pool is there."""

log = logs.StructuredLogger(__name__)

_STREAMS = {
    executor.Stream.STDOUT: calls.pb.LOG_STREAM_STDOUT,
    executor.Stream.STDERR: calls.pb.LOG_STREAM_STDERR,
    executor.Stream.SYSTEM: calls.pb.LOG_STREAM_SYSTEM,
}


@dataclass(frozen=True, slots=True)
class Source:
    """Whose output it is: the node's, and ``run`` tells of which attempt and, once it may have begun, of which run."""

    node_id: str
    run: Callable[[], attempt_id.RunKey]


class LogStream:
    """The output of one attempt. ``add`` never waits; ``pump`` sends until it is cancelled, ``rest`` what is left."""

    def __init__(self, pool: client.NodePoolClient, line: session.Session, source: Source, spool: spools.Spool) -> None:
        self._pool = pool
        self._line = line
        self._source = source
        self._spool = spool
        self._more = asyncio.Event()
        self._off = False
        self._refused = False
        self._left_out = False

    @property
    def waiting(self) -> bool:
        """Whether anything has still to be sent."""
        return not self._off and self._spool.waiting_bytes > 0

    def add(self, stream: executor.Stream, offset: int, data: bytes) -> None:
        """Take output that has just arrived; what came before is passed over."""
        if self._off:
            return
        for start in range(0, len(data), BATCH_BYTES):
            self._spool.add(_STREAMS[stream], offset + start, data[start : start + BATCH_BYTES])
        if self._spool.left_out_bytes and not self._left_out:
            self._left_out = True
            self._warn("the outbox has no room for all of it: its disk is full, or the pool takes it too slowly")
        self._more.set()

    async def pump(self) -> None:
        """Send batches as they come. Ends, for good, where the pool takes no output."""
        pauses = backoff.Backoff(stopping.Stop(), cap=10.0)
        while not self._off:
            if not self._spool.waiting_bytes:
                self._more.clear()
                await self._more.wait()
                await self._gather()
            try:
                await self._send()
            except (errors.Unavailable, OSError):
                await pauses.pause()
            else:
                pauses.reset()

    async def rest(self) -> None:
        """Send what is left, for ``LAST_SECONDS`` at most. What the pool does not take now stays here.

        Raises nothing for that: whoever delivers an end must not wait for its output.
        """
        try:
            async with asyncio.timeout(LAST_SECONDS):
                while self.waiting and await self._send():
                    pass
        except TimeoutError:
            self._give_up("the pool was too slow for the last of it")
        except OSError as error:
            self._give_up(f"the outbox cannot be read: {error}")
        except errors.Unavailable:
            return

    async def last(self) -> None:
        """The end has been delivered: send what could not be sent before it, and then give up what is left."""
        await self.rest()
        if self.waiting:
            self._give_up("the pool took the end, but not the last of the output")

    async def _gather(self) -> None:
        due = clock.now() + GATHER_SECONDS
        try:
            async with asyncio.timeout_at(due):
                while self._spool.waiting_bytes < BATCH_BYTES:
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            return

    async def _send(self) -> bool:
        """Send one batch until it is acknowledged, or there is no use in it; whether there was one.

        Raises :class:`errors.Unavailable`, OSError where this node's disk does not give it back.
        """
        batch = [
            calls.pb.LogChunk(
                stream=calls.pb.LogStream.ValueType(chunk.stream),
                offset=chunk.offset,
                data=chunk.data,
                sequence=chunk.sequence,
            )
            for chunk in self._spool.batch(BATCH_BYTES)
        ]
        if not batch:  # the disk took none of it
            await asyncio.sleep(GATHER_SECONDS)
            return False
        try:
            answer = await self._line.call(lambda session_id: self._append(session_id, batch))
        except errors.Unavailable:
            raise
        except errors.NotImplementedByPeer:
            self._give_up("")
        except errors.HiveMindError as error:
            self._give_up(str(error))
        else:
            if not answer.success and not self._refused:
                self._refused = True
                self._warn(f"the pool leaves out some of it: {answer.message}")
            # A pool that acknowledges nothing of a batch does not want it: no endless loop.
            got = max(answer.next_sequence, batch[0].sequence + 1) if answer.success else batch[-1].sequence + 1
            self._spool.arrived(got)
        return True

    async def _append(self, session_id: str, batch: list[calls.pb.LogChunk]) -> calls.pb.AppendTaskLogsResponse:
        if self._line.plain:
            raise errors.NotImplementedByPeer("a pool without sessions takes no output")
        run = self._source.run()
        about = run.attempt_id
        request = calls.pb.AppendTaskLogsRequest(
            task_id=about.task_id,
            attempt=about.attempt,
            store_epoch=about.store_epoch,
            run_id=run.run_id,
            node_id=self._source.node_id,
            session_id=session_id,
            chunks=batch,
        )
        return await self._pool.append_task_logs(request)

    def _give_up(self, why: str) -> None:
        self._off = True
        if why:
            self._warn(why)

    def _warn(self, why: str) -> None:
        log.log_task_event("output_not_streamed", self._source.run().attempt_id.task_id, {"why": why}, level="warning")
