"""What a task asks its proxy for: CONNECT, or one plain HTTP request with its whole address. No I/O.

Each connection carries one request. A plain one goes on rewritten: its Host is that of the address that was checked,
and nothing that follows it goes anywhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import h11

from hivemind_worker.settings import egress
from hivemind_worker.settings.egress import Address

_AUTHORITY: Final = re.compile(r"(\[[^\]\[]*\]|[^:\[\]]+)(?::([0-9]{1,5}))?")
_ABSOLUTE: Final = re.compile(r"(?i:http)://([^/?#\\]*)([/?][^#]*)?")
# Of this hop alone (RFC 9110, 7.6.1), and what would let another host's answer come from the address that was checked.
_DROPPED: Final = frozenset((b"connection", b"host", b"keep-alive", b"proxy-authenticate", b"proxy-authorization",
                             b"proxy-connection", b"te", b"upgrade", b"http2-settings"))  # fmt: skip


class BadRequest(Exception):
    """What came is no request to a proxy; the text says what is."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked for: ``host`` as an address or a name, and whether a tunnel to it (CONNECT)."""

    host: Address | str
    port: int
    tunnel: bool

    @property
    def authority(self) -> str:
        """Host and port, for people."""
        is_v6 = not isinstance(self.host, str) and self.host.version == 6
        return f"[{self.host}]:{self.port}" if is_v6 else f"{self.host}:{self.port}"


def target(method: bytes, where: bytes) -> tuple[Target, str]:
    """Read what a request line asks for; also the path for the other end, empty for CONNECT. Raises BadRequest."""
    text = where.decode("ascii", "replace")
    if method == b"CONNECT":
        return _target(text, None, tunnel=True), ""
    absolute = _ABSOLUTE.fullmatch(text)
    if absolute is None:
        raise BadRequest("this is a proxy: ask for http://NAME/…, or for HTTPS with CONNECT NAME:443")
    path = absolute[2] or "/"
    return _target(absolute[1], 80, tunnel=False), path if path.startswith("/") else f"/{path}"


def _target(authority: str, default: int | None, *, tunnel: bool) -> Target:
    parts = _AUTHORITY.fullmatch(authority)
    port = int(parts[2] or default or 0) if parts else 0
    if parts is None or not 1 <= port <= 65535 or "@" in authority:
        raise BadRequest("write NAME:PORT, without user or password")
    try:
        return Target(egress.host(parts[1]), port, tunnel)
    except ValueError as error:
        raise BadRequest(str(error)) from None


class Request:
    """Takes a task's bytes, tells what is asked for, and gives what goes on."""

    def __init__(self) -> None:
        """Begin at a connection's start."""
        self._task = h11.Connection(h11.SERVER)
        self._onward = h11.Connection(h11.CLIENT)
        self._path = ""
        self._head: h11.Request | None = None
        self._over = False

    @property
    def over(self) -> bool:
        """Whether the whole of a plain request has come; what follows is not part of it."""
        return self._over

    def feed(self, data: bytes) -> Target | None:
        """Take bytes until the head is there; then what is asked for. Empty: the end. Raises BadRequest."""
        try:
            self._task.receive_data(data)
            event = self._task.next_event()
        except h11.RemoteProtocolError as error:
            raise BadRequest(f"no HTTP request: {error}") from None
        if isinstance(event, h11.Request):
            self._head = event
            found, self._path = target(event.method, event.target)
            return found
        if event is h11.NEED_DATA and data:
            return None
        raise BadRequest("the connection ended before its request did")

    def tunnelled(self) -> bytes:
        """What the task has sent already after its CONNECT."""
        return self._task.trailing_data[0]

    def begin(self, asked: Target) -> bytes:
        """The head of a plain request for the other end, and what of its body has come. Raises BadRequest."""
        assert self._head is not None
        authority = asked.authority.removesuffix(":80")
        options = {
            word.strip().lower()
            for name, value in self._head.headers
            if name == b"connection"
            for word in value.split(b",")
        }
        if any(name == b"transfer-encoding" for name, _ in self._head.headers):
            options.add(
                b"content-length"
            )  # the two contradict each other, and each server believes another (RFC 9112, 6.1)
        headers = [(name, value) for name, value in self._head.headers if name not in _DROPPED | options]
        head = h11.Request(
            method=self._head.method,
            target=self._path,
            headers=[(b"host", authority.encode()), *headers, (b"connection", b"close")],
        )
        return self._send(head) + self.go_on(b"")

    def go_on(self, data: bytes) -> bytes:
        """More of a plain request's body for the other end. Raises BadRequest."""
        parts = []
        try:
            if data:
                self._task.receive_data(data)
            while not self._over:
                event = self._task.next_event()
                if isinstance(event, h11.Data):
                    parts.append(self._send(event))
                elif isinstance(event, h11.EndOfMessage):
                    self._over = True
                    parts.append(self._send(event))
                else:
                    break
        except h11.RemoteProtocolError as error:
            raise BadRequest(f"no HTTP request: {error}") from None
        return b"".join(parts)

    def _send(self, event: h11.Request | h11.Data | h11.EndOfMessage) -> bytes:
        try:
            return self._onward.send(event) or b""
        except h11.LocalProtocolError as error:
            raise BadRequest(f"this request cannot be passed on: {error}") from None


def refusal(status: int, text: str) -> bytes:
    """An answer that says why not, as text for whoever reads it; the connection ends with it."""
    body = f"hivemind: {text}\n".encode("utf-8", "replace")
    reason = {400: "Bad Request", 403: "Forbidden", 429: "Too Many Requests", 502: "Bad Gateway"}[status]
    head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + body
