from __future__ import annotations

import ipaddress
import socket

import psutil
import pytest

from hivemind_worker.runtime.egress import machine

ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
wg0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0
eth1\t00D8B85D\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""
ROUTES6 = """20010db8000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0
00000000000000000000000000000001 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000003 00000000 80200001       lo
"""  # noqa: E501 - as the kernel writes it


def test_the_networks_on_the_machines_own_links() -> None:
    assert [str(link) for link in machine.links_v4(ROUTES)] == ["192.168.0.0/24", "93.184.216.0/24"]
    assert [str(link) for link in machine.links_v6(ROUTES6)] == ["2001:db8::/64"]
    machine.links()


def test_every_address_of_every_interface_is_the_machines_own() -> None:
    families = (socket.AF_INET, socket.AF_INET6)
    owned = {row.address for rows in psutil.net_if_addrs().values() for row in rows if row.family in families}
    assert owned
    for text in owned:
        if "%" not in text:
            assert machine.is_own(ipaddress.ip_address(text)), text


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f:cb07::1", "192.0.2.1"])
def test_anothers_is_not(address: str) -> None:
    assert not machine.is_own(ipaddress.ip_address(address))
