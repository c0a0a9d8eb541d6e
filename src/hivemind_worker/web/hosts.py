"""Who may ask over HTTP: by which Host, from which Origin. Keeps pages of other sites away from a port on this machine.

A browser sends a page's requests to wherever the page's own name leads, and that may be 127.0.0.1 (DNS rebinding); it
then still says that name as Host. Addresses and this machine's own names cannot be anyone else's.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_HOST = re.compile(r"(?:\[(?P<address>[^\]]*)\]|(?P<name>[^:\[\]]*))(?::[0-9]{0,5})?")
_REFUSED = b"403: this Host or Origin is not ours; names to be known by are set with http_hosts\n"


def allowed(host: str, names: Iterable[str]) -> bool:
    """Tell whether a Host header, with or without port, is an address, localhost or one of ``names``."""
    name = _without_port(host).lower().rstrip(".")
    if name == "localhost" or name in {each.lower() for each in names}:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _without_port(host: str) -> str:
    if (parted := _HOST.fullmatch(host)) is None:
        return host  # an address of IPv6 without brackets, or nothing that is a host
    return parted["address"] or parted["name"]


class Guarded:
    """An ASGI application behind that check. ``listen`` is where it listens, ``more`` are names it is known by too."""

    def __init__(self, app: App, listen: str, more: Iterable[str] = ()) -> None:
        self._app = app
        self._names = frozenset((socket.gethostname(), _without_port(listen), *more))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on what may be asked; answer the rest with 403."""
        if scope["type"] == "http" and not self._may(scope["headers"]):
            await send({
                "type": "http.response.start", "status": 403,
                "headers": [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")],
            })  # fmt: skip
            await send({"type": "http.response.body", "body": _REFUSED})
            return
        await self._app(scope, receive, send)

    def _may(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        said = [(name, value.decode("latin-1")) for name, value in headers if name in {b"host", b"origin"}]
        hosts = [value for name, value in said if name == b"host"]
        origins = [value.partition("://")[2] for name, value in said if name == b"origin"]
        return (
            len(hosts) == 1
            and all(allowed(each, self._names) for each in hosts)
            and all(origin == hosts[0] for origin in origins)
        )
