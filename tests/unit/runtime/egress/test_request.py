from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivemind_worker.runtime.egress import request

LOOPBACK = ipaddress.ip_address("127.0.0.1")


def asked(data: bytes, size: int = 1000) -> tuple[request.Request, request.Target]:
    made = request.Request()
    for at in range(0, len(data), size):
        if (target := made.feed(data[at : at + size])) is not None:
            rest = data[at + size :]
            return made, (made.go_on(rest), target)[1] if rest and not target.tunnel else target
    raise AssertionError("no whole head")


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_connect_names_host_and_port_and_keeps_what_follows(size: int) -> None:
    made = request.Request()
    head, rest = b"CONNECT PyPI.org:443 HTTP/1.1\r\nHost: other.example\r\n\r\n", b"\x16\x03\x01"
    assert read(made, head + rest if size == 1000 else head, size) == request.Target("pypi.org", 443, tunnel=True)
    assert made.tunnelled() == (rest if size == 1000 else b"")


@pytest.mark.parametrize(
    ("line", "target", "head"),
    [
        (
            b"GET http://a.org/x?y=1",
            request.Target("a.org", 80, tunnel=False),
            b"GET /x?y=1 HTTP/1.1\r\nhost: a.org\r\n",
        ),
        (b"GET http://a.org", request.Target("a.org", 80, tunnel=False), b"GET / HTTP/1.1\r\nhost: a.org\r\n"),
        (b"GET http://a.org?q", request.Target("a.org", 80, tunnel=False), b"GET /?q HTTP/1.1\r\nhost: a.org\r\n"),
        (
            b"GET HTTP://A.org:8080/",
            request.Target("a.org", 8080, tunnel=False),
            b"GET / HTTP/1.1\r\nhost: a.org:8080\r\n",
        ),
        (
            b"GET http://127.0.0.1/",
            request.Target(LOOPBACK, 80, tunnel=False),
            b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n",
        ),
    ],
)
def test_a_plain_request_goes_on_with_the_host_that_was_checked(line: bytes, target: object, head: bytes) -> None:
    made, found = asked(line + b" HTTP/1.1\r\nHost: other.example\r\nProxy-Authorization: secret\r\nX-A: 1\r\n\r\n")
    assert found == target
    onward = made.begin(found)
    assert onward.lower().startswith(head.lower())
    for absent in (b"other.example", b"secret"):
        assert absent not in onward
    assert b"x-a: 1" in onward.lower()
    assert b"connection: close" in onward.lower()
    assert made.over


@pytest.mark.parametrize(
    "line",
    [b"CONNECT 2130706433:80", b"CONNECT 0x7f.1:80", b"CONNECT 127.1:80", b"CONNECT pypi.org", b"CONNECT pypi.org:0",
     b"CONNECT pypi.org:65536", b"CONNECT user@pypi.org:443", b"CONNECT http://pypi.org:443", b"CONNECT /x",
     b"CONNECT [fe80::1%25eth0]:80", b"CONNECT ::1:80", b"CONNECT pypi.org:443:444", b"CONNECT :443", b"CONNECT a.org:",
     b"GET /", b"GET http:///x", b"GET https://a.org/", b"GET ftp://a.org/", b"GET http://u:p@a.org/", b"OPTIONS *",
     b"GET http://a.org\\@b.org/", b"GET http://a.org:80:90/", b"GET http://a.org#@b.org/", b"GET http://127.1/",
     b"GET file:///etc/passwd", b"GET http://a.org%00.b.org/", b"GET http://a.org%2f@b.org/"],
)  # fmt: skip
def test_what_could_mean_two_things_is_refused(line: bytes) -> None:
    with pytest.raises(request.BadRequest):
        asked(line + b" HTTP/1.1\r\nHost: pypi.org\r\n\r\n")


def test_a_second_request_on_the_same_connection_goes_nowhere() -> None:
    first = b"POST http://a.org/ HTTP/1.1\r\nHost: a.org\r\nContent-Length: 3\r\n\r\nabc"
    made, target = asked(first + b"GET http://b.org/ HTTP/1.1\r\nHost: b.org\r\n\r\n", 10_000)
    onward = made.begin(target)
    assert onward.endswith(b"\r\n\r\nabc")
    assert made.over
    assert made.go_on(b"GET http://c.org/ HTTP/1.1\r\n\r\n") == b""


def test_two_lengths_of_one_body_become_one() -> None:
    head = b"POST http://a.org/ HTTP/1.1\r\nHost: a.org\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    made, target = asked(head + b"3\r\nabc\r\n0\r\n\r\n")
    onward = made.begin(target)
    assert b"content-length" not in onward.lower()
    assert onward.endswith(b"3\r\nabc\r\n0\r\n\r\n")


def read(made: request.Request, data: bytes, size: int) -> request.Target | None:
    for at in range(0, len(data), size):
        if (target := made.feed(data[at : at + size])) is not None:
            return target
    return None


@given(st.binary(max_size=200), st.integers(1, 50))
def test_any_bytes_are_a_request_or_refused(data: bytes, size: int) -> None:
    try:
        target = read(request.Request(), data, size)
    except request.BadRequest:
        return
    assert target is None or 1 <= target.port <= 65535


def test_a_head_without_end_is_refused() -> None:
    with pytest.raises(request.BadRequest):
        read(request.Request(), b"X" * 100_000, 1000)
