"""What is said of tunnels, the task's connections to its proxy; both directions, and as bytes.

They bear no sequence number from the capsule: a new stream (RESUME) ends all tunnels, and nothing of them is repeated.
"""

from __future__ import annotations

import dataclasses
import struct
from typing import Final

WINDOW: Final = 256 * 1024
"""Bytes of one tunnel that may be under way in each direction: more waits where it comes from."""

MAX_OPEN: Final = 32
"""Tunnels of one capsule at once."""

MAX_NUMBER: Final = 2**32 - 1

_NUMBER = struct.Struct("<I")
_CREDIT = struct.Struct("<IQ")  # tunnel, total

# worker → capsule


@dataclasses.dataclass(frozen=True, slots=True)
class TunnelDownload:
    """Bytes for the task; empty: the other end has no more to say."""

    tunnel: int
    data: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class TunnelUploadCredit:
    """So many bytes of the upload, from the tunnel's beginning, have gone on."""

    tunnel: int
    total: int


@dataclasses.dataclass(frozen=True, slots=True)
class TunnelClose:
    """Deliver what was sent, then close the task's connection; answered by TunnelClosed."""

    tunnel: int


# capsule → worker


@dataclasses.dataclass(frozen=True, slots=True)
class TunnelOpened:
    """The task has connected to its proxy. Numbers ascend, and none comes twice."""

    tunnel: int


@dataclasses.dataclass(frozen=True, slots=True)
class TunnelUpload:
    """Bytes from the task; empty: it has no more to say."""

    tunnel: int
    data: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class TunnelDownloadCredit:
    """So many bytes of the download, from the tunnel's beginning, have reached the task."""

    tunnel: int
    total: int


@dataclasses.dataclass(frozen=True, slots=True)
class TunnelClosed:
    """The task's connection is gone; nothing follows."""

    tunnel: int


ToTunnel = TunnelDownload | TunnelUploadCredit | TunnelClose
FromTunnel = TunnelOpened | TunnelUpload | TunnelDownloadCredit | TunnelClosed


def encode(message: ToTunnel | FromTunnel) -> bytes:
    """The payload that carries `message`. Raises struct.error where a number is out of its range."""
    match message:
        case TunnelDownload() | TunnelUpload():
            return _NUMBER.pack(message.tunnel) + message.data
        case TunnelUploadCredit() | TunnelDownloadCredit():
            return _CREDIT.pack(message.tunnel, message.total)
        case _:
            return _NUMBER.pack(message.tunnel)


def decode(form: type[ToTunnel | FromTunnel], payload: bytes) -> ToTunnel | FromTunnel:
    """Read the payload of a `form`. Raises struct.error where it is too short or has another length."""
    if issubclass(form, TunnelDownload | TunnelUpload):
        return form(_NUMBER.unpack_from(payload)[0], payload[_NUMBER.size :])
    if issubclass(form, TunnelUploadCredit | TunnelDownloadCredit):
        return form(*_CREDIT.unpack(payload))
    return form(*_NUMBER.unpack(payload))
