"""One tunnel as a stream of bytes: read and write with backpressure, whatever the capsule does with its windows."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Awaitable, Callable
from typing import Final

from hivemind_worker.runtime.capsule import tunnel_messages as t

PIECE: Final = 64 * 1024


class Broken(Exception):
    """The task's connection, or the conversation with its capsule, is gone."""


class TunnelStream:
    """The worker's end of a tunnel. What it holds is bounded by the tunnel's window: the conversation sees to that."""

    def __init__(self, number: int, send: Callable[[t.ToTunnel], Awaitable[None]], room: Callable[[int], int]) -> None:
        self.number = number
        self.moved = 0
        """Bytes that have gone through, either way."""
        self._send = send
        self._room = room
        self._waiting: collections.deque[bytes] = collections.deque()
        self._ended = self._gone = False
        self._credited = 0
        self._changed = asyncio.Event()

    def feed(self, data: bytes) -> None:
        """The task has sent this; empty: it sends no more."""
        if data:
            self._waiting.append(data)
        else:
            self._ended = True
        self.wake()

    def wake(self) -> None:
        """Something has changed: there is more to read, or room to write."""
        self._changed.set()

    def gone(self) -> None:
        """The task's connection is gone."""
        self._gone = True
        self.wake()

    async def read(self) -> bytes:
        """The next bytes from the task, empty at the end. `credit` what has gone on. Raises Broken."""
        while not self._waiting:
            if self._gone:
                raise Broken
            if self._ended:
                return b""
            self._changed.clear()
            await self._changed.wait()
        return self._waiting.popleft()

    async def credit(self, size: int) -> None:
        """So many bytes more have gone on: the task may send as many. Raises Broken."""
        if size:
            self._credited += size
            self.moved += size
            await self._send(t.TunnelUploadCredit(self.number, self._credited))

    async def write(self, data: bytes) -> None:
        """Send to the task, as it reads. Raises Broken."""
        view = memoryview(data)
        while view:
            room = min(self._room(self.number), PIECE)
            if self._gone:
                raise Broken
            if not room:
                self._changed.clear()
                await self._changed.wait()
                continue
            piece, view = bytes(view[:room]), view[room:]
            self.moved += len(piece)
            await self._send(t.TunnelDownload(self.number, piece))

    async def end(self) -> None:
        """Nothing more comes for the task. Raises Broken."""
        await self._send(t.TunnelDownload(self.number, b""))
