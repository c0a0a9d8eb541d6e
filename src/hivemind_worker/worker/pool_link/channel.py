"""The channel to the pool: TLS, or plaintext where nobody can listen. No secret leaves before the pool is known."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, field

import grpc

from hivemind_worker import errors
from hivemind_worker.wire import channels

_SCHEME = re.compile(r"(dns:(//[^/]*/)?|ipv4:|ipv6:)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Access:
    """Where the pool answers, and how it and we prove who we are.

    ``address`` is ``host:port``, or ``unix:/path``. ``authority`` holds the certificates (PEM) that the pool's own
    must be signed by; with it the line is TLS. ``token`` is sent as ``authorization: Bearer …`` with every call.
    ``insecure`` allows plaintext to another machine.
    """

    address: str
    authority: bytes | None = None
    token: str = field(default="", repr=False)
    insecure: bool = False


def open_channel(access: Access) -> grpc.aio.Channel:
    """Open a channel; nothing is sent before the first call. To be called on the event loop that will use it.

    Raises :class:`errors.BadSettings` for plaintext to another machine that nobody allowed, or with a token.
    """
    opened = channels.Line(access.address, access.authority, access.insecure)
    if access.token and access.authority is None and access.insecure and not channels.is_local(access.address):
        raise errors.BadSettings(f"a token is not sent in plaintext to {access.address}; set tls_ca_file")
    return channels.open_channel(opened)


def metadata(access: Access) -> tuple[tuple[str, str], ...]:
    """Return what every call carries. It leaves this process only after TLS has shown that the pool is the pool."""
    return (("authorization", f"Bearer {access.token}"),) if access.token else ()


def own_address(address: str) -> str:
    """Return our IP address on the way to the pool; empty where there is no way. Blocks on the resolver.

    The reference's RegisterNode names it; nothing connects to it.
    """
    if address.startswith("unix"):
        return ""
    try:
        found = socket.getaddrinfo(_host(address), 9, type=socket.SOCK_DGRAM)
        with socket.socket(found[0][0], socket.SOCK_DGRAM) as line:
            line.connect(found[0][4])  # a datagram socket: chooses the route, sends nothing
            return str(line.getsockname()[0])
    except OSError:
        return ""


def _host(address: str) -> str:
    bare = _SCHEME.sub("", address, count=1)
    host, _, port = bare.rpartition(":")
    if not host or not port.isdigit():
        host = bare
    return host.strip("[]").lower()
