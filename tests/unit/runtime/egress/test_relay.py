"""The worker's end of tunnels, without a capsule: what a slow, greedy or silent task may take of the worker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import egress_world
import pytest_asyncio
import waiting

from hivemind_worker.runtime.capsule import conversation, frames, payloads
from hivemind_worker.runtime.capsule import messages as m
from hivemind_worker.runtime.capsule import tunnel_messages as t
from hivemind_worker.runtime.egress import gateway, relay


class Task:
    """A capsule as the relay sees it: it says what a test wants, and keeps what it is sent."""

    def __init__(self, way: gateway.Gateway) -> None:
        self.talk = conversation.Conversation()
        self.notes: list[str] = []
        self.relay = relay.Relay(way, "task-1", self.notes.append)
        self.received: dict[int, bytes] = {}
        self.closed: set[int] = set()
        self.credit: dict[int, int] = {}
        self._reader = frames.FrameReader()
        self.say(m.Ready(m.State.IDLE))
        self.talk.send(m.Spec(argv=(b"true",), proxy_port=1))
        self.talk.send(m.Start())
        self.relay.attach(self.talk, self._take)

    async def _take(self, data: bytes) -> None:
        for frame in self._reader.feed(data):
            message = payloads.decode(frame.kind, frame.payload)
            if isinstance(message, t.TunnelDownload):
                self.received[message.tunnel] = self.received.get(message.tunnel, b"") + message.data
            elif isinstance(message, t.TunnelUploadCredit):
                self.credit[message.tunnel] = message.total
            elif isinstance(message, t.TunnelClose):
                self.closed.add(message.tunnel)

    def say(self, *messages: m.FromCapsule) -> None:
        for kind, payload in map(payloads.encode, messages):
            for message in self.talk.receive(frames.encode(kind, 0, payload)):
                if isinstance(message, t.FromTunnel):
                    self.relay.receive(message)

    def ask(self, number: int, text: str) -> None:
        head = f"{text} HTTP/1.1\r\nHost: x\r\n\r\n"
        self.say(t.TunnelOpened(number), t.TunnelUpload(number, head.encode()))

    async def answer(self, number: int) -> bytes:
        """The status line, once it is there."""
        await waiting.wait_until(lambda: b"\r\n" in self.received.get(number, b""), description="an answer")
        return self.received[number].split(b"\r\n")[0]


@pytest_asyncio.fixture
async def world() -> AsyncIterator[egress_world.World]:
    async with egress_world.world() as made:
        yield made


@contextlib.asynccontextmanager
async def task(way: gateway.Gateway) -> AsyncIterator[Task]:
    made = Task(way)
    yield made
    await made.relay.detach()


async def test_a_task_that_does_not_read_makes_the_worker_hold_one_window(world: egress_world.World) -> None:
    async with task(world.gateway()) as asking:
        asking.ask(1, f"CONNECT {egress_world.GOOD}:{world.port}")
        await asking.answer(1)
        for at in range(1, 30):  # the server sends it all back, and nobody takes it
            if asking.talk.tunnels._open[1].uploaded - asking.credit.get(1, 0) + 16_000 <= t.WINDOW:
                asking.say(t.TunnelUpload(1, bytes(16_000)))
            await asyncio.sleep(0 if at % 5 else 0.01)
        await waiting.wait_until(lambda: len(asking.received[1]) >= t.WINDOW, description="the window is full")
        assert len(asking.received[1]) == t.WINDOW
        before = asking.relay.traffic.received_bytes
        assert before <= t.WINDOW + 2 * gateway.STREAM_BYTES
        asking.say(t.TunnelDownloadCredit(1, t.WINDOW))
        await waiting.wait_until(lambda: len(asking.received[1]) > t.WINDOW, description="it goes on")


async def test_a_task_has_its_connections_and_its_bytes(world: egress_world.World) -> None:
    async with task(world.gateway(connections=2, limit_bytes=100_000)) as asking:
        for number in (1, 2):
            asking.ask(number, f"CONNECT {egress_world.GOOD}:{world.port}")
            assert b"200" in await asking.answer(number)
        asking.ask(3, f"CONNECT {egress_world.GOOD}:{world.port}")
        assert b"429" in await asking.answer(3)
        asking.say(t.TunnelClosed(1), t.TunnelClosed(3))
        await waiting.wait_until(lambda: len(asking.relay._serving) == 1, description="two have ended")
        asking.ask(4, f"GET http://{egress_world.GOOD}:{world.port}/")
        await waiting.wait_until(lambda: 4 in asking.closed, description="300,000 bytes are too many")
        assert asking.relay.traffic.received_bytes <= 100_000
        assert any("egress_limit_bytes" in note for note in asking.notes)


async def test_a_connection_over_which_nothing_goes_ends(world: egress_world.World) -> None:
    async with task(world.gateway(idle_seconds=0.1)) as asking:
        asking.ask(1, f"CONNECT {egress_world.GOOD}:{world.port}")
        await waiting.wait_until(lambda: 1 in asking.closed, description="it is closed")


async def test_refusals_are_written_down_twenty_times_at_most(world: egress_world.World) -> None:
    async with task(world.gateway()) as asking:
        for number in range(1, 31):
            asking.ask(number, f"CONNECT 10.0.0.{number}:80")
            assert b"403" in await asking.answer(number)
            asking.say(t.TunnelClosed(number))
        await waiting.wait_until(lambda: not asking.relay._serving, description="all have ended")
        assert asking.relay.traffic.refused == 30
        assert len(asking.notes) == relay.REFUSALS_TOLD
        assert "only counted" in asking.notes[-1]


async def test_with_the_conversation_every_connection_ends(world: egress_world.World) -> None:
    async with task(world.gateway()) as asking:
        asking.ask(1, f"CONNECT {egress_world.GOOD}:{world.port}")
        await asking.answer(1)
        await asking.relay.detach()
        assert not asking.relay._serving


async def test_nothing_gets_out_while_it_cannot_be_told_where_the_pool_is(world: egress_world.World) -> None:
    way = world.gateway()
    hidden = gateway.Gateway(gateway.Terms(way.terms.policy, guarded=("pool.example:50051",)), world.resolve)
    async with task(hidden) as asking:
        asking.ask(1, f"CONNECT {egress_world.GOOD}:{world.port}")
        assert b"502" in await asking.answer(1)
