"""The HTTP door: serves an ASGI application on the process's own event loop, with patience, but not without end.

Uvicorn without what is another's business: it takes no signals, sets up no logging, and does not wake ten times a
second.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

import h11
import uvicorn
from uvicorn.protocols.http import h11_impl

from hivemind_worker import errors
from hivemind_worker.concurrency import periodic, stopping
from hivemind_worker.telemetry import logs
from hivemind_worker.web import finding, hosts

MOST_CONNECTIONS: Final = 256
"""Open at once: a quarter of the 1,024 files that a process may have open where nobody set more."""

REQUEST_SECONDS: Final = 10.0
"""How long a connection may be open without a whole request; the next look after that closes it."""

WRITE_SECONDS: Final = 10.0
"""How long an answer may wait to be read; the next look after that ends its connection."""

END_SECONDS: Final = 2
"""What answers under way get to end when the process stops."""

log = logs.StructuredLogger(__name__)


class Door:
    """One listening socket for ``app``.

    ``listen`` is host:port, port 0 a free one; ``hosts_too`` are names, beside this machine's own, by which it may be
    asked. ``note`` is the file in the state folder that tells where it listens, for as long as it does.
    """

    def __init__(self, app: hosts.App, listen: str, *, note: Path, hosts_too: tuple[str, ...] = ()) -> None:
        self._listen = listen
        self._note = note
        self._app = hosts.Guarded(app, listen, hosts_too)
        self._open = contextlib.AsyncExitStack()
        self.address = ""

    async def __aenter__(self) -> Self:
        """Listen, and serve until the block ends. Raises :class:`errors.BadSettings` where it cannot listen there."""
        async with contextlib.AsyncExitStack() as undo:
            listening = undo.enter_context(self._socket())
            undo.enter_context(finding.told(self._note, self.address))
            stop = stopping.Stop()
            serving = asyncio.create_task(_Server(self._app, stop).serve([listening]), name="http")
            undo.push_async_callback(_end, serving, stop)
            self._open = undo.pop_all()
        log.log_system_event("http_listening", {"address": self.address})
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening; answers under way may end."""
        await self._open.aclose()

    @contextlib.contextmanager
    def _socket(self) -> Iterator[socket.socket]:
        host, _, port = self._listen.rpartition(":")
        host = host.strip("[]")
        try:
            listening = socket.create_server((host, int(port)), family=_family(host), backlog=128)
        except (OSError, ValueError) as error:
            number = error.errno if isinstance(error, OSError) else None
            why = os.strerror(number) if number is not None and number > 0 else "write host:port"
            raise errors.BadSettings(f"cannot listen for HTTP on {self._listen}: {why}; see http_listen") from None
        with listening:
            listening.setblocking(False)  # noqa: FBT003  (the standard library's own signature)
            bound = listening.getsockname()
            self.address = f"[{bound[0]}]:{bound[1]}" if ":" in bound[0] else f"{bound[0]}:{bound[1]}"
            yield listening


async def _end(serving: asyncio.Task[None], stop: stopping.Stop) -> None:
    stop.request(stopping.StopLevel.DRAIN, "the process ends")
    await asyncio.wait({serving})
    if not serving.cancelled() and (error := serving.exception()) is not None:
        # Nothing of a worker's tasks hangs on it.
        log.log_system_event("http_failed", level="error", error=error)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


class _Crowd:
    """The open connections, oldest first: which of them wait for a request, and which take no answer."""

    def __init__(self) -> None:
        self._since: collections.OrderedDict[h11_impl.H11Protocol, float] = collections.OrderedDict()
        self._unread: dict[h11_impl.H11Protocol, float] = {}

    def arrived(self, connection: h11_impl.H11Protocol) -> None:
        """Let one in; where there are too many, one that takes no answer goes, one that waits, and at last itself."""
        self._since[connection] = asyncio.get_running_loop().time()
        if len(self._since) > MOST_CONNECTIONS:
            idle = (each for each in self._since if each is not connection and _waits(each))
            stuck = (each for each in self._since if each is not connection and _unread_bytes(each))
            _drop(next(stuck, None) or next(idle, connection))

    def left(self, connection: h11_impl.H11Protocol) -> None:
        """Forget one."""
        self._since.pop(connection, None)
        self._unread.pop(connection, None)

    def sweep(self) -> None:
        """End those that have not asked, or not taken an answer, for too long."""
        now = asyncio.get_running_loop().time()
        for connection, since in list(self._since.items()):
            if _unread_bytes(connection):
                if now - self._unread.setdefault(connection, now) >= WRITE_SECONDS:
                    _drop(connection)
                continue
            self._unread.pop(connection, None)
            if not _waits(connection):
                self._since[connection] = now
            elif now - since >= REQUEST_SECONDS:
                _drop(connection)


def _unread_bytes(connection: h11_impl.H11Protocol) -> int:
    """How much of an answer waits for the other end to read."""
    return int(connection.transport.get_write_buffer_size())


def _drop(connection: h11_impl.H11Protocol) -> None:
    """End a connection now: `close` waits for as long as nobody reads, and after it the kernel with what was sent."""
    if _unread_bytes(connection):
        end = connection.transport.get_extra_info("socket")
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.transport.abort()


def _waits(connection: h11_impl.H11Protocol) -> bool:
    """Whether the other end owes us something: a request, or the rest of one."""
    return connection.conn.their_state in {h11.IDLE, h11.SEND_BODY}


class _Server(uvicorn.Server):
    """Uvicorn's server, ended by a `Stop`."""

    def __init__(self, app: hosts.App, stop: stopping.Stop) -> None:
        crowd = _Crowd()

        class Connection(h11_impl.H11Protocol):
            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
                super().connection_made(transport)
                crowd.arrived(self)

            def on_response_complete(self) -> None:
                # One that sends requests without waiting for answers may never read one: others have their turn.
                if self.conn.trailing_data[0]:
                    self.transport.close()
                super().on_response_complete()

            def connection_lost(self, exc: Exception | None) -> None:
                crowd.left(self)
                super().connection_lost(exc)

        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=END_SECONDS,
            )
        )
        self._crowd = crowd
        self._stop = stop

    async def main_loop(self) -> None:
        """Until the stop. Uvicorn's own wakes ten times a second."""
        async for _ in periodic.every(min(REQUEST_SECONDS, WRITE_SECONDS) / 2, self._stop):
            self._crowd.sweep()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the process's own business."""
        yield
