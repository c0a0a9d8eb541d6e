"""One attempt's way out: each of its tunnels is asked what it wants, connected, and passed on; all of it counted."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Final

from hivemind_worker import errors
from hivemind_worker.concurrency import clock
from hivemind_worker.runtime.capsule import conversation
from hivemind_worker.runtime.capsule import tunnel_messages as t
from hivemind_worker.runtime.egress import gateway, policy, request
from hivemind_worker.runtime.egress.stream import Broken, TunnelStream
from hivemind_worker.telemetry import logs

log = logs.StructuredLogger(__name__)

HEAD_SECONDS: Final = 30.0
"""From a connection to what it asks for."""

LINGER_SECONDS: Final = 2.0
"""After a refusal what the task is still sending is taken for so long: it would see a reset instead of the reason."""

CONNECTING: Final = 4
"""Connections of one attempt that are being made at once: one with many dead names must leave look-ups to others."""

REFUSALS_TOLD: Final = 20
"""Different refused targets of one attempt that are written down; the others are counted."""

Note = Callable[[str], None]


@dataclasses.dataclass(slots=True)
class Traffic:
    """What one attempt has sent and received, in bytes; its connections, and how many were refused."""

    sent_bytes: int = 0
    received_bytes: int = 0
    connections: int = 0
    refused: int = 0


class Relay:
    """One attempt's tunnels. `attach` it to each conversation with the capsule, and `detach` it after."""

    def __init__(self, way: gateway.Gateway, task_id: str, note: Note) -> None:
        """``note`` is told lines for the task's log."""
        self._way = way
        self._task_id = task_id
        self._note = note
        self._talk: conversation.Conversation | None = None
        self._write: Callable[[bytes], Awaitable[None]] | None = None
        self._streams: dict[int, TunnelStream] = {}
        self._serving: dict[int, asyncio.Task[None]] = {}
        self._told: set[str] = set()
        self._free_at = 0.0
        self._connecting = asyncio.Semaphore(CONNECTING)
        self.traffic = Traffic()
        self._logged = Traffic()

    def attach(self, talk: conversation.Conversation, write: Callable[[bytes], Awaitable[None]]) -> None:
        """From now on tunnels are spoken of in this conversation; ``write`` sends bytes to the capsule."""
        self._talk, self._write = talk, write

    async def detach(self) -> Traffic:
        """The conversation is over: all connections end. Return what went through, in this one and those before."""
        self._talk = None
        serving = list(self._serving.values())
        for task in serving:
            task.cancel()
        if serving:
            await asyncio.wait(serving)
        self._streams.clear()
        self._serving.clear()
        if self.traffic != self._logged:
            self._logged = dataclasses.replace(self.traffic)
            log.log_task_event("egress_used", self._task_id, dataclasses.asdict(self.traffic))
        return self.traffic

    def receive(self, message: t.FromTunnel) -> None:
        """Take what the capsule said of a tunnel; returns at once."""
        match message:
            case t.TunnelOpened():
                stream = TunnelStream(message.tunnel, self._send, self._room)
                self._streams[message.tunnel] = stream
                name = f"egress/{self._task_id}/{message.tunnel}"
                task = asyncio.create_task(self._serve(stream), name=name)
                self._serving[message.tunnel] = task
                task.add_done_callback(lambda _: self._serving.pop(message.tunnel, None))
            case t.TunnelClosed():
                if (stream_gone := self._streams.pop(message.tunnel, None)) is not None:
                    stream_gone.gone()
            case t.TunnelUpload():
                self._streams[message.tunnel].feed(message.data)
            case t.TunnelDownloadCredit():
                self._streams[message.tunnel].wake()

    def _room(self, tunnel: int) -> int:
        return 0 if self._talk is None else self._talk.tunnels.room(tunnel)

    async def _send(self, message: t.ToTunnel) -> None:
        if self._talk is None or self._write is None or not self._talk.tunnels.is_open(message.tunnel):
            raise Broken
        try:
            await self._write(self._talk.send(message))
        except (conversation.ConversationError, errors.EngineLost):
            raise Broken from None

    async def _serve(self, stream: TunnelStream) -> None:
        """One connection of the task, from its first byte to its end."""
        self.traffic.connections += 1
        try:
            try:
                await self._connection(stream)
            except request.BadRequest as error:
                await self._refuse(stream, 400, "", str(error))
            except gateway.Unreachable as error:
                await self._refuse(stream, 502, "", str(error))
            await self._send(t.TunnelClose(stream.number))
        except (Broken, OSError):
            with contextlib.suppress(Broken):
                await self._send(t.TunnelClose(stream.number))

    async def _connection(self, stream: TunnelStream) -> None:
        limits = self._way.terms.limits
        if len(self._serving) > limits.connections:
            await self._refuse(stream, 429, "", f"more than {limits.connections} connections at once")
            return
        if self._spent >= limits.total_bytes:
            await self._refuse(stream, 403, "", "the task has used up its bytes (egress_limit_bytes)")
            return
        asked = request.Request()
        try:
            async with asyncio.timeout(HEAD_SECONDS):
                target = None
                while target is None:
                    data = await stream.read()
                    target = asked.feed(data)
                    await stream.credit(len(data))
        except TimeoutError:
            raise request.BadRequest("nothing was asked for in time") from None
        try:
            async with self._connecting:
                reader, writer = await self._way.connect(target)
        except (policy.Refused, gateway.Unreachable) as error:
            status = 403 if isinstance(error, policy.Refused) else 502
            await self._refuse(stream, status, target.authority, str(error))
            return
        try:
            if target.tunnel:
                await stream.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                first = asked.tunnelled()
            else:
                first = asked.begin(target)
            await self._pass_on(stream, asked if not target.tunnel else None, first, reader, writer)
        finally:
            writer.transport.abort()

    async def _pass_on(
        self,
        stream: TunnelStream,
        plain: request.Request | None,
        first: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Both directions until both have ended; of a plain request, until its answer has."""
        await self._onward(writer, first)
        up = asyncio.create_task(self._upload(stream, plain, writer), name="egress/up")
        down = asyncio.create_task(self._download(stream, reader), name="egress/down")
        try:
            while not down.done() or (plain is None and not up.done()):
                before = stream.moved
                waiting = {task for task in (up, down) if not task.done()}
                await asyncio.wait(waiting, timeout=self._way.terms.limits.idle_seconds, return_when="FIRST_COMPLETED")
                for task in (up, down):
                    if task.done():
                        task.result()
                if waiting == {task for task in (up, down) if not task.done()} and before == stream.moved:
                    break
        finally:
            for task in (up, down):
                task.cancel()
            await asyncio.wait({up, down})

    @property
    def _spent(self) -> int:
        return self.traffic.sent_bytes + self.traffic.received_bytes

    async def _upload(self, stream: TunnelStream, plain: request.Request | None, writer: asyncio.StreamWriter) -> None:
        while plain is None or not plain.over:
            data = await stream.read()
            if not data:
                if plain is None and writer.can_write_eof():
                    writer.write_eof()
                return
            try:
                onward = data if plain is None else plain.go_on(data)
            except request.BadRequest:  # in the middle of its body: an answer may have begun
                raise Broken from None
            await self._onward(writer, onward)
            await stream.credit(len(data))

    async def _onward(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if data:
            await self._take(len(data))
            self.traffic.sent_bytes += len(data)
            writer.write(data)
            await writer.drain()

    async def _download(self, stream: TunnelStream, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(gateway.STREAM_BYTES):
            await self._take(len(data))
            self.traffic.received_bytes += len(data)
            await stream.write(data)
        await stream.end()

    async def _take(self, size: int) -> None:
        """Wait until so many bytes may go, by the owner's rate. Raises Broken where the task has used up its share."""
        limits = self._way.terms.limits
        if self._spent + size > limits.total_bytes:
            self._tell("its connections", "the task has used up its bytes (egress_limit_bytes)")
            raise Broken
        if limits.bytes_per_second:
            now = clock.now()
            self._free_at = max(now, self._free_at) + size / limits.bytes_per_second
            if self._free_at - now > 1.0:  # a second's worth may go at once
                await asyncio.sleep(self._free_at - now - 1.0)

    async def _refuse(self, stream: TunnelStream, status: int, authority: str, reason: str) -> None:
        self._tell(authority, reason)
        await stream.write(request.refusal(status, f"{authority}: {reason}" if authority else reason))
        await stream.end()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while data := await stream.read():
                    await stream.credit(len(data))

    def _tell(self, authority: str, reason: str) -> None:
        """Write a refusal down, for the owner and for the task's author; each once, and not without end."""
        self.traffic.refused += 1
        line = f"{authority}: {reason}" if authority else reason
        if line in self._told or len(self._told) >= REFUSALS_TOLD:
            return
        self._told.add(line)
        rest = "; further ones are only counted" if len(self._told) == REFUSALS_TOLD else ""
        log.log_task_event("egress_refused", self._task_id, {"target": authority, "reason": reason}, level="warning")
        self._note(f"egress refused: {line}{rest}")
