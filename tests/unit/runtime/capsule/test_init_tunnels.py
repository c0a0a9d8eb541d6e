"""The program's port for tasks: what goes through it, how much may be under way, and that it harms nothing else."""

from __future__ import annotations

import dataclasses
import socket
import time
from collections.abc import Callable
from pathlib import Path

import capsules
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hivemind_worker.runtime.capsule import frames, payloads
from hivemind_worker.runtime.capsule import messages as m
from hivemind_worker.runtime.capsule import tunnel_messages as t

Start = Callable[..., capsules.Capsule]
FUZZ = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
CONNECT = "import socket, sys, time; p = int(sys.argv[1]); dial = lambda: socket.create_connection(('127.0.0.1', p)); "


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def begin(capsule: capsules.Capsule, script: str, **fields: object) -> int:
    port = free_port()
    argv = (b"python3", b"-c", (CONNECT + script).encode(), str(port).encode())
    spec = m.Spec(argv=argv, env=capsules.ENVIRONMENT, workspace=bytes(capsule.workspace), proxy_port=port)
    capsule.begin(dataclasses.replace(spec, **fields))  # type: ignore[arg-type]  # names checked by replace
    return port


class Echo:
    """The worker's end: what comes up goes down, as far as there is room; credit is given for what went."""

    def __init__(self, capsule: capsules.Capsule) -> None:
        self.capsule = capsule
        self.waiting: dict[int, bytearray] = {}
        self.passed: dict[int, int] = {}
        self.ended: set[int] = set()

    def __call__(self, message: m.FromCapsule) -> bool:
        if isinstance(message, t.TunnelOpened):
            self.waiting[message.tunnel], self.passed[message.tunnel] = bytearray(), 0
        elif isinstance(message, t.TunnelUpload):
            self.waiting[message.tunnel] += message.data
            if not message.data:
                self.ended.add(message.tunnel)
        if isinstance(message, t.TunnelUpload | t.TunnelDownloadCredit):
            self.push(message.tunnel)
        return isinstance(message, m.Done)

    def to_the_end(self) -> capsules.Heard:
        self.capsule.hear(self)
        self.capsule.close()
        return self.capsule.heard

    def push(self, tunnel: int) -> None:
        if not self.capsule.talk.tunnels.is_open(tunnel):  # its closing came with the same bytes
            return
        waiting = self.waiting[tunnel]
        part = bytes(waiting[: self.capsule.talk.tunnels.room(tunnel)])
        if part:
            del waiting[: len(part)]
            self.passed[tunnel] += len(part)
            self.capsule.say(t.TunnelDownload(tunnel, part), t.TunnelUploadCredit(tunnel, self.passed[tunnel]))
        if not waiting and tunnel in self.ended:
            self.ended.discard(tunnel)
            self.capsule.say(t.TunnelDownload(tunnel, b""))


def test_more_than_a_window_there_and_back_on_two_connections(start: Start, tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = """
import os, threading
def one(n):
    data, c = bytes([n]) * 400_000 + b'end', dial()
    def send(): c.sendall(data); c.shutdown(socket.SHUT_WR)
    threading.Thread(target=send).start()
    back = b''.join(iter(lambda: c.recv(65536), b''))
    assert back == data, (len(back), len(data))
    print('same')
for t in [threading.Thread(target=one, args=(n,)) for n in range(2)]: t.start()
"""
    capsule = start(tmp_path)
    # A task's end closes what is open and tells nothing of it: this one waits until both closings were told.
    begin(capsule, script + f"while not os.path.exists({str(go)!r}): time.sleep(0.01)")
    echo, closed = Echo(capsule), list[m.FromCapsule]()

    def both_closed(message: m.FromCapsule) -> bool:
        if isinstance(message, t.TunnelClosed):
            closed.append(message)
        return echo(message) or len(closed) == 2

    capsule.hear(both_closed)
    go.touch()
    heard = echo.to_the_end()
    assert heard.output() == b"same\n" * 2, heard.output(m.Stream.ERR)
    assert len([message for message in heard.messages if isinstance(message, t.TunnelClosed)]) == 2


def test_a_worker_that_takes_nothing_holds_up_neither_output_nor_end(start: Start, tmp_path: Path) -> None:
    script = """
for c in [dial() for _ in range(40)]:
    c.setblocking(False)
    try:
        while c.send(bytes(65536)): pass
    except BlockingIOError: pass
print('x' * 5000, flush=True)
"""
    capsule = start(tmp_path)
    begin(capsule, script)
    heard = capsule.finish()
    assert heard.output() == b"x" * 5000 + b"\n", heard.output(m.Stream.ERR)
    opened = [message for message in heard.messages if isinstance(message, t.TunnelOpened)]
    assert len(opened) == t.MAX_OPEN
    up = sum(len(message.data) for message in heard.messages if isinstance(message, t.TunnelUpload))
    assert up <= t.MAX_OPEN * t.WINDOW


def test_a_new_stream_cuts_what_is_open_and_later_connections_work(start: Start, tmp_path: Path) -> None:
    script = "c = dial(); c.send(b'a'); print(c.recv(9), flush=True); c = dial(); c.send(b'b'); print(c.recv(9))"
    capsule = start(tmp_path)
    begin(capsule, script)
    capsule.hear(lambda message: isinstance(message, t.TunnelUpload))
    capsule.write(capsule.talk.resume(bytes(16)))
    heard = Echo(capsule).to_the_end()
    # A cut connection ends, by a reset or by its end.
    assert heard.output() in {b"b''\nb'b'\n", b""}, heard.output()
    if not heard.output():
        assert b"ConnectionReset" in heard.output(m.Stream.ERR)


def test_a_task_that_sends_byte_by_byte_causes_few_frames(start_shipped: Start, tmp_path: Path) -> None:
    script = """
many = [dial() for _ in range(20)]
for c in many: c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1); c.setblocking(False)
end = time.monotonic() + 9
while time.monotonic() < end:
    for c in many:
        try: c.send(b'x')
        except BlockingIOError: pass
"""
    capsule = start_shipped(tmp_path)
    begin(capsule, script)
    raw, end = [], time.monotonic() + 1.0
    while time.monotonic() < end:  # read as fast as can be, understood afterwards
        raw.append(capsule.bytes())
    seconds = time.monotonic() - end + 1.0
    caused = capsule.talk.receive(b"".join(raw))
    assert 100 < len(caused) <= 512 + 2000 * seconds + t.MAX_OPEN


def test_a_port_that_cannot_be_had_is_told(start_shipped: Start, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        capsule = start_shipped(tmp_path)
        capsule.begin(capsules.shell("true", tmp_path, proxy_port=taken.getsockname()[1]))
        error = capsule.finish().one(m.Error)
    assert "proxy" in error.text


NUMBERS = st.integers(0, 4) | st.integers(0, 2**32 - 1)
HOSTILE = st.one_of(
    st.builds(t.TunnelDownload, NUMBERS, st.binary(max_size=50) | st.just(bytes(t.WINDOW))),
    st.builds(t.TunnelUploadCredit, NUMBERS, st.integers(0, 70_000) | st.integers(0, 2**64 - 1)),
    st.builds(t.TunnelClose, NUMBERS),
)


def _anything(sanitized: Path, workspace: Path, messages: list[m.FromWorker]) -> None:
    script = (
        "d = [dial() for _ in range(4)]; [c.send(bytes(60000)) for c in d]; d[3].close(); d[0].recv(9); d[1].close()"
    )
    with capsules.Capsule([sanitized], workspace) as capsule:
        begin(capsule, script, limits=m.Limits(timeout_ms=5000, grace_ms=10))
        capsule.hear(lambda message: isinstance(message, t.TunnelOpened))
        for message in messages:  # past the checks of our own side
            kind, payload = payloads.encode(message)
            capsule.talk._said += 1
            capsule.write(frames.encode(kind, capsule.talk._said, payload))
        capsule.write(capsule.talk.resume(bytes(16)))
        capsule.hear(lambda message: isinstance(message, m.Ready))
        capsule.say(m.Stop(0))
        capsule.finish()


@FUZZ
@given(messages=st.lists(HOSTILE, max_size=8))
def test_any_words_about_tunnels_end_no_program(
    sanitized: Path, tmp_path_factory: pytest.TempPathFactory, messages: list[m.FromWorker]
) -> None:
    _anything(sanitized, tmp_path_factory.mktemp("workspace"), messages)


@pytest.mark.long
@settings(FUZZ, max_examples=600)
@given(messages=st.lists(HOSTILE, max_size=30))
def test_any_words_about_tunnels_for_long(
    sanitized: Path, tmp_path_factory: pytest.TempPathFactory, messages: list[m.FromWorker]
) -> None:
    _anything(sanitized, tmp_path_factory.mktemp("workspace"), messages)
