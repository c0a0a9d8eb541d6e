"""What is near this machine: its own addresses, and the networks that it reaches without a router. Linux tells."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path
from typing import Final

from hivemind_worker.settings.egress import Address, Network

_GATEWAY, _REJECT = 0x2, 0x200  # RTF_* of linux/route.h
_SMALLEST: Final = {4: 8, 6: 32}
"""Prefixes shorter than that are no neighbourhood, but the whole internet through a tunnel without a router."""


def is_own(address: Address) -> bool:
    """Whether the address is this machine's own, on whatever interface: the kernel lets nobody bind to another's."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
    return True  # also where net.ipv4.ip_nonlocal_bind lets bind to any: then nothing public can be told apart


def links() -> tuple[Network, ...]:
    """The networks on this machine's own links, none where the system does not tell. Blocks for a moment."""
    try:
        tables = Path("/proc/net/route").read_text("ascii"), Path("/proc/net/ipv6_route").read_text("ascii")
    except OSError:
        try:
            tables = Path("/proc/net/route").read_text("ascii"), ""
        except OSError:
            return ()
    return (*links_v4(tables[0]), *links_v6(tables[1]))


def links_v4(table: str) -> tuple[Network, ...]:
    """Read `/proc/net/route`: numbers in the machine's byte order, which is little endian."""
    networks: list[Network] = []
    for row in table.splitlines()[1:]:
        columns = row.split()
        if len(columns) < 8 or int(columns[3], 16) & (_GATEWAY | _REJECT):
            continue
        start, mask = (int.from_bytes(bytes.fromhex(columns[at]), "little") for at in (1, 7))
        if (length := mask.bit_count()) >= _SMALLEST[4]:
            networks.append(ipaddress.IPv4Network((start, length), strict=False))
    return tuple(networks)


def links_v6(table: str) -> tuple[Network, ...]:
    """Read `/proc/net/ipv6_route`."""
    networks: list[Network] = []
    for row in table.splitlines():
        columns = row.split()
        if len(columns) < 10 or int(columns[8], 16) & (_GATEWAY | _REJECT) or columns[9] == "lo":
            continue
        if (length := int(columns[1], 16)) >= _SMALLEST[6]:
            networks.append(ipaddress.IPv6Network((int(columns[0], 16), length), strict=False))
    return tuple(networks)
