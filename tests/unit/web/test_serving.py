from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import waiting

from hivemind_worker import errors
from hivemind_worker.telemetry.health import checks, report
from hivemind_worker.web import endpoints, finding, serving


class Part:
    """What a test makes well or unwell."""

    def __init__(self) -> None:
        self.trouble = ""
        self.why_not_ready = ""
        self.lives = True
        self.hang = asyncio.Event()
        self.hang.set()

    async def look(self) -> checks.Check:
        await self.hang.wait()
        if self.trouble == "raise":
            raise ValueError("broken")
        return checks.unhealthy(self.trouble) if self.trouble else checks.healthy("fine")

    def checker(self) -> report.HealthChecker:
        return report.HealthChecker(
            {"part": self.look},
            live=lambda: self.lives,
            ready=lambda: (not self.why_not_ready, self.why_not_ready),
            seconds=0.2,
        )


async def _metrics() -> tuple[bytes, str]:
    return b"some_metric 1.0\n", "text/plain; version=0.0.4"


@contextlib.asynccontextmanager
async def _door(part: Part, folder: Path) -> AsyncIterator[serving.Door]:
    door = serving.Door(endpoints.app(part.checker(), _metrics), "127.0.0.1:0", note=folder / finding.WORKER)
    async with door:
        yield door


async def _get(address: str, path: str, method: str = "GET", host: str = "localhost") -> tuple[int, bytes]:
    name, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(name, int(port))
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def _is_reset(connection: socket.socket) -> bool:
    return bool(connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))


async def test_yes_is_200_and_no_is_503_with_the_reason(tmp_path: Path) -> None:
    part = Part()
    async with _door(part, tmp_path) as door:
        assert await _get(door.address, "/livez") == (200, b"ok\n")
        assert await _get(door.address, "/readyz") == (200, b"ok\n")
        assert await _get(door.address, "/metrics") == (200, b"some_metric 1.0\n")
        part.lives, part.why_not_ready, part.trouble = False, "draining", "it smokes"
        assert (await _get(door.address, "/livez"))[0] == 503
        assert await _get(door.address, "/readyz") == (503, b"draining\n")
        status, body = await _get(door.address, "/healthz")
        said = json.loads(body)
        assert (status, said["status"]) == (503, "unhealthy")
        assert said["checks"] == {"part": {"status": "unhealthy", "message": "it smokes"}}
        assert isinstance(said["timestamp"], float)
        assert (await _get(door.address, "/"))[0] == 404


async def test_a_probe_that_hangs_or_breaks_is_a_failed_check_in_time(tmp_path: Path) -> None:
    part = Part()
    async with _door(part, tmp_path) as door:
        part.hang.clear()
        status, body = await _get(door.address, "/healthz")
        assert status == 503
        assert "no answer within 0.2 s" in json.loads(body)["checks"]["part"]["message"]
        part.hang.set()
        part.trouble = "raise"
        assert (
            "ValueError: broken" in json.loads((await _get(door.address, "/healthz"))[1])["checks"]["part"]["message"]
        )


async def test_nothing_is_changed_and_no_other_site_is_answered(tmp_path: Path) -> None:
    async with _door(Part(), tmp_path) as door:
        assert (await _get(door.address, "/healthz", "POST"))[0] == 405
        assert (await _get(door.address, "/healthz", "DELETE"))[0] == 405
        assert (await _get(door.address, "/healthz", host="evil.example"))[0] == 403


@pytest.mark.serial
async def test_w01_a_good_client_is_answered_beside_five_hundred_slow_ones(tmp_path: Path) -> None:
    async with _door(Part(), tmp_path) as door, contextlib.AsyncExitStack() as open_ones:
        host, _, port = door.address.rpartition(":")
        for _ in range(500):
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: loc")
            open_ones.callback(writer.close)
        began = asyncio.get_running_loop().time()
        assert (await _get(door.address, "/healthz"))[0] == 200
        assert asyncio.get_running_loop().time() - began < 1.0


@pytest.mark.serial
async def test_w01_a_good_client_is_answered_beside_two_hundred_that_pipeline_and_never_read(tmp_path: Path) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with _door(Part(), tmp_path) as door, contextlib.AsyncExitStack() as open_ones:
        host, _, port = door.address.rpartition(":")
        for _ in range(200):
            connection = open_ones.enter_context(socket.socket())
            connection.setblocking(False)
            await asyncio.get_running_loop().sock_connect(connection, (host, int(port)))
            with contextlib.suppress(BlockingIOError):
                connection.send(request * 2000)
        began = asyncio.get_running_loop().time()
        for _ in range(3):
            assert (await _get(door.address, "/healthz"))[0] == 200
        assert asyncio.get_running_loop().time() - began < 1.0


async def test_who_never_reads_an_answer_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "WRITE_SECONDS", 0.2)
    sent = asyncio.Event()

    async def large() -> tuple[bytes, str]:
        sent.set()
        return b"x" * 20_000_000, "text/plain"

    door = serving.Door(endpoints.app(Part().checker(), large), "127.0.0.1:0", note=tmp_path / finding.WORKER)
    async with door:
        host, _, port = door.address.rpartition(":")
        with socket.create_connection((host, int(port))) as reader:
            reader.setblocking(False)
            await asyncio.get_running_loop().sock_sendall(reader, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await sent.wait()
            await waiting.wait_until(lambda: _is_reset(reader), description="the connection is reset", seconds=10)


async def test_who_never_asks_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "REQUEST_SECONDS", 0.2)
    async with _door(Part(), tmp_path) as door:
        host, _, port = door.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /heal")
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


async def test_it_is_found_by_its_note_for_as_long_as_it_answers(tmp_path: Path) -> None:
    part = Part()
    async with _door(part, tmp_path) as door:
        assert finding.addresses(tmp_path) == {finding.WORKER: door.address}
        answer = await asyncio.to_thread(finding.ask, door.address, 5.0)
        assert answer.report is not None
        assert answer.report["status"] == "healthy"
    assert finding.addresses(tmp_path) == {}
    answer = await asyncio.to_thread(finding.ask, door.address, 5.0)
    assert answer.report is None
    assert answer.trouble == f"nobody answers at {door.address}: Connection refused"


async def test_one_that_is_no_worker_of_ours_is_no_health_report(tmp_path: Path) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        answer = await asyncio.to_thread(finding.ask, f"127.0.0.1:{port}", 5.0)
    assert answer == finding.Answer(None, f"127.0.0.1:{port} answers, but with no health report")


async def test_a_taken_port_is_told_with_its_setting(tmp_path: Path) -> None:
    async with _door(Part(), tmp_path) as door:
        second = serving.Door(endpoints.app(Part().checker(), _metrics), door.address, note=tmp_path / "second")
        with pytest.raises(errors.BadSettings, match="Address already in use; see http_listen"):
            await second.__aenter__()
        assert not (tmp_path / "second").exists()
        await waiting.wait_until(lambda: finding.addresses(tmp_path), description="the first goes on")


@pytest.mark.parametrize("listen", ["unix:/tmp/x", "nowhere.invalid:0"])
async def test_an_address_that_is_none_is_told(listen: str, tmp_path: Path) -> None:
    with pytest.raises(errors.BadSettings, match="cannot listen for HTTP"):
        await serving.Door(endpoints.app(Part().checker(), _metrics), listen, note=tmp_path / "note").__aenter__()
