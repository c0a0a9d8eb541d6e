"""Which names, addresses and ports the owner's list lets a task reach; every class of address that is never meant."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivemind_worker.runtime.egress import policy
from hivemind_worker.settings import egress

PUBLIC_V4, PUBLIC_V6 = "93.184.215.14", "2606:2800:21f:cb07::1"
OWN = ipaddress.ip_address("93.184.215.99")
NEAR = policy.Surroundings(
    is_own=lambda address: address == OWN,
    links=(ipaddress.ip_network("198.41.0.0/24"), ipaddress.ip_network("2a00:1::/64")),
    guarded=frozenset({(ipaddress.ip_address("151.101.1.1"), 50051), (ipaddress.ip_address("127.0.0.1"), 50051)}),
)


def agreed(allow: str, deny: str = "") -> policy.Policy:
    return policy.Policy(
        tuple(egress.rule(entry) for entry in allow.split()), tuple(egress.exception(entry) for entry in deny.split())
    )


def may(allow: str, address: str, port: int = 443, deny: str = "") -> bool:
    return agreed(allow, deny).may_connect(ipaddress.ip_address(address), port, NEAR)


# The first and last of each class, with what hides an IPv4 address in an IPv6 one.
NOT_PUBLIC = """
0.0.0.0 0.255.255.255 10.0.0.0 10.255.255.255 100.64.0.0 100.100.100.200 100.127.255.255 127.0.0.1 127.255.255.255
169.254.0.0 169.254.169.254 169.254.255.255 168.63.129.16 172.16.0.0 172.31.255.255 192.0.0.0 192.0.0.192 192.0.2.1
192.88.99.1 192.168.0.0 192.168.255.255 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255
240.0.0.1 255.255.255.255 93.184.215.99 198.41.0.4 151.101.1.1
:: ::1 ::7f00:1 ::93.184.215.14 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:93.184.215.99
::ffff:0:127.0.0.1 64:ff9b::127.0.0.1 64:ff9b::10.1.1.1 64:ff9b::a9fe:a9fe 64:ff9b:1::1 100::1 2001::1 2001:0:1::7f00:1
2001:2::1 2001:10::1 2001:20::1 2001:db8::1 2002:7f00:1::1 2002:5db8:d70e::1 3fff::1 5f00::1 fc00::1 fd00:ec2::254
fdff::1 fe80::1 febf::1 fec0::1 ff02::1 2a00:1::5 2606:2800:21f:cb07:0:5efe:7f00:1 2606:2800:21f:cb07:200:5efe:a00:1
4000::1 1000::1
"""


@pytest.mark.parametrize("address", NOT_PUBLIC.split())
@pytest.mark.parametrize("allow", ["public", "public:*", "example.org"])
def test_what_lies_within_or_is_nobodys_is_never_reached_by_a_name_or_as_public(address: str, allow: str) -> None:
    assert not may(allow, address, 443)


@pytest.mark.parametrize(
    "address", [PUBLIC_V4, PUBLIC_V6, f"::ffff:{PUBLIC_V4}", f"64:ff9b::{PUBLIC_V4}", "1.1.1.1", "2a00:1:0:1::1"]
)
def test_public_addresses_are_reached(address: str) -> None:
    assert may("public", address)


@given(st.ip_addresses())
def test_nothing_is_public_here_that_is_not_for_the_standard_library(address: egress.Address) -> None:
    plain = policy.unwrapped(address)
    if plain is not None and policy.is_public(plain):
        assert plain.is_global
        assert not plain.is_multicast


@pytest.mark.parametrize(
    ("network", "address"),
    [
        ("100.64.0.0/10", "100.100.100.200"),
        ("192.0.0.0/24", "192.0.0.192"),
        ("fd00::/8", "fd00:c1::a9fe:a9fe"),
        ("fd00::/8", "fd20:ce::254"),
        ("fd00::/8", "fd00:42::42"),
        ("fd00::/8", "fd00:ec2::254"),
    ],
)
def test_a_listed_network_leads_to_no_metadata_service_within_it(network: str, address: str) -> None:
    listed = policy.Policy((egress.rule(f"{network}:80"),))
    place = ipaddress.ip_address(address)
    assert listed.rules(place, 80)
    assert not listed.may_connect(place, 80, NEAR)
    assert listed.may_connect(place + 1, 80, NEAR), "its neighbour is the owner's word"


@pytest.mark.parametrize("address", ["169.254.169.254", "0.0.0.0", "224.0.0.1", "fe80::1", "ff02::1", "168.63.129.16"])
def test_no_owner_can_list_what_is_never_reached(address: str) -> None:
    shown = f"[{address}]:80" if ":" in address else f"{address}:80"
    with pytest.raises(ValueError, match="never"):
        egress.rule(shown)
    assert not may("0.0.0.0/0:* ::/0:*", address, 80)


def test_the_owners_word_opens_one_private_address_and_port_alone() -> None:
    allow = "127.0.0.1:8080 10.1.2.0/24:5432 [fd00::7]:443 example.org:443"
    assert may(allow, "127.0.0.1", 8080)
    assert may(allow, "::ffff:127.0.0.1", 8080)
    assert may(allow, "10.1.2.3", 5432)
    assert may(allow, "fd00::7", 443)
    for address, port in [("127.0.0.1", 8081), ("127.0.0.2", 8080), ("10.1.3.1", 5432), ("fd00::8", 443)]:
        assert not may(allow, address, port), address


def test_where_the_pool_is_nothing_is_reached_but_another_port_that_is_listed() -> None:
    assert not may("127.0.0.1:*", "127.0.0.1", 50051)
    assert not may("151.101.1.1:1-65535", "151.101.1.1", 50051)
    assert may("127.0.0.1:*", "127.0.0.1", 50052)
    assert not may("public", "151.101.1.1", 443)


def test_what_is_denied_is_denied_whatever_is_allowed() -> None:
    assert not may("public", PUBLIC_V4, deny=PUBLIC_V4)
    assert not may(f"{PUBLIC_V4}:443", f"::ffff:{PUBLIC_V4}", deny="93.184.0.0/16")
    with pytest.raises(policy.Refused, match="egress_deny"):
        agreed("public", "*.example.org").rules("a.example.org", 443)


@pytest.mark.parametrize(
    ("allow", "target", "port", "fits"),
    [
        ("pypi.org", "pypi.org", 443, True),
        ("pypi.org", "pypi.org", 80, True),
        ("pypi.org", "pypi.org", 22, False),
        ("pypi.org:22", "pypi.org", 443, False),
        ("pypi.org", "a.pypi.org", 443, False),
        ("pypi.org", "notpypi.org", 443, False),
        ("pypi.org", "pypi.org.evil.net", 443, False),
        ("*.pypi.org", "a.b.pypi.org", 443, True),
        ("*.pypi.org", "pypi.org", 443, False),
        ("*.pypi.org", "evilpypi.org", 443, False),
        ("a.org:8000-8100", "a.org", 8100, True),
        ("a.org:8000-8100", "a.org", 8101, False),
        ("a.org:*", "a.org", 65535, True),
        ("PyPI.org", "pypi.org", 443, True),
        ("public", "anything.example", 443, True),
        ("public", "anything.example", 25, False),
        ("192.0.2.1:5432", "192.0.2.1", 5432, True),
        ("192.0.2.1:5432", "192.0.2.2", 5432, False),
        ("", "pypi.org", 443, False),
    ],
)
def test_names_and_ports(allow: str, target: str, port: int, fits: bool) -> None:
    if fits:
        assert agreed(allow).rules(egress.host(target), port)
        return
    with pytest.raises(policy.Refused, match="egress_allow"):
        agreed(allow).rules(egress.host(target), port)


@pytest.mark.parametrize(
    "text",
    ["2130706433", "0x7f.1", "127.1", "0177.0.0.1", "127.0.0.1.", "0x7f000001", "127.0.0.0x1", "1.2.3.4.5", "1.2.3.256",
     "[::ffff:127.0.0.1%eth0]", "[fe80::1%1]", "::1", "[::1", "user@host", "a b", "", ".", "a..b", "-a.org", "a" * 64,
     "ho\u017ft.example", "\u2460.1.1.1", "a.org\n", "*", "a/b", "a.1", "a.0x7f", "%6c"],
)  # fmt: skip
def test_a_host_has_one_form_alone(text: str) -> None:
    if text == "127.0.0.1.":
        assert egress.host(text) == ipaddress.ip_address("127.0.0.1")
        return
    with pytest.raises(ValueError, match=r"."):
        egress.host(text)


@pytest.mark.parametrize(
    "entry", ["10.0.0.1", "10.0.0.0/8", "10.0.0.1/8:80", "a.org:0", "a.org:99999", "a.org:9-8", "a.org:x",
              "*.1.2.3.4:8", "*", "http://a.org", "a.org/x:80", "", "public:0"]
)  # fmt: skip
def test_entries_that_say_nothing_certain_are_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        egress.rule(entry)
