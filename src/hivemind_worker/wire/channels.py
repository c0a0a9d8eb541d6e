"""The line to a pool, for whoever calls one: TLS where a CA is given, and without it this machine alone.

Makes channel objects and reads nothing: neither files nor names are looked up here.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from hivemind_worker import errors
from hivemind_worker.wire import calls

_LOCAL_SCHEMES = ("unix:", "unix-abstract:")
# dns:[//authority/]host, ipv4:host, ipv6:host: gRPC's own prefixes, before the host that counts.
_SCHEME = re.compile(r"(?:dns:(?://[^/]*/)?/?|ipv4:|ipv6:)")


@dataclass(frozen=True, slots=True)
class Line:
    """How to reach a pool.

    ``address`` as gRPC takes it (``host:port``, ``unix:/path``); ``ca_certificates`` in PEM make it TLS;
    ``insecure`` allows other machines without.
    """

    address: str
    ca_certificates: bytes | None = None
    insecure: bool = False


def open_channel(line: Line) -> grpc.aio.Channel:
    """Return a channel; it connects when it is first used, and is closed by whoever asked for it.

    Raises :class:`errors.BadSettings` where the line would go to another machine in the clear.
    """
    credentials, options = _terms(line)
    if credentials is not None:
        return grpc.aio.secure_channel(line.address, credentials, options=options)
    return grpc.aio.insecure_channel(line.address, options=options)


def open_blocking_channel(line: Line) -> grpc.Channel:
    """Return a channel whose calls block their thread; for the rest see `open_channel`."""
    credentials, options = _terms(line)
    if credentials is not None:
        return grpc.secure_channel(line.address, credentials, options=options)
    return grpc.insecure_channel(line.address, options=options)


def _terms(line: Line) -> tuple[grpc.ChannelCredentials | None, Sequence[tuple[str, int]]]:
    """What a channel is made with, without credentials where the line stays in the clear. Raises BadSettings."""
    if line.ca_certificates is not None:
        return grpc.ssl_channel_credentials(root_certificates=line.ca_certificates), calls.CLIENT_OPTIONS
    if not line.insecure and not is_local(line.address):
        raise errors.BadSettings(
            f"{line.address} is another machine and there is no TLS: set tls_ca_file, or --insecure to go without"
        )
    if is_local(line.address):
        # No proxy of the environment sees what stays on this machine.
        return None, (*calls.CLIENT_OPTIONS, ("grpc.enable_http_proxy", 0))
    return None, calls.CLIENT_OPTIONS


def is_local(address: str) -> bool:
    """Tell whether an address, to connect to or to listen at, is this machine's alone."""
    if address.startswith(_LOCAL_SCHEMES):
        return True
    # Of several addresses ("ipv4:a:1,b:2") each must be ours.
    return all(_is_loopback(each) for each in _SCHEME.sub("", address, count=1).split(","))


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]").lower()
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
