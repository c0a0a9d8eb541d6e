from __future__ import annotations

import socket

import pytest

from hivemind_worker.web import hosts


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:80",
        "127.0.0.1:1",
        "[::1]:8080",
        "192.0.2.7",
        "[2001:db8::1]",
        "pool.example:9",
        "localhost.",
    ],
)
def test_addresses_localhost_and_our_names_may_be_asked_for(host: str) -> None:
    assert hosts.allowed(host, ["Pool.Example"])


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:80",
        "pool.example.evil",
        "[evil]:80",
        "127.0.0.1:80.evil.example",
        "localhost:80@evil.example",
        "127.0.0.1:80/evil",
        "[::1].evil.example",
        "[::1]evil:80",
    ],
)
def test_other_names_may_not(host: str) -> None:
    assert not hosts.allowed(host, ["pool.example"])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": ["localhost:1"]}, 200),
        ({"host": [socket.gethostname()]}, 200),
        ({"host": ["127.0.0.1:1"], "origin": ["http://127.0.0.1:1"]}, 200),
        ({"host": ["127.0.0.1:1"], "origin": ["http://evil.example"]}, 403),
        ({"host": ["127.0.0.1:1"], "origin": ["http://127.0.0.1:2"]}, 403),
        ({"host": ["127.0.0.1:1"], "origin": ["null"]}, 403),
        ({"host": ["127.0.0.1:1", "evil.example"]}, 403),
        ({"host": ["evil.example"]}, 403),
        ({}, 403),
    ],
)
async def test_w02_a_page_of_another_site_gets_nothing(headers: dict[str, list[str]], status: int) -> None:
    said: list[int] = []

    async def app(scope: hosts.Scope, receive: hosts.Receive, send: hosts.Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> hosts.Scope:
        return {"type": "http.disconnect"}

    async def send(message: hosts.Scope) -> None:
        if message["type"] == "http.response.start":
            said.append(message["status"])

    raw = [(name.encode(), value.encode()) for name, values in headers.items() for value in values]
    await hosts.Guarded(app, "127.0.0.1:0")({"type": "http", "headers": raw}, receive, send)
    assert said == [status]
