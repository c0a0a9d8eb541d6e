"""Whether a task may connect to a name, an address, a port: the owner's list against what an address is. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from hivemind_worker.settings import egress
from hivemind_worker.settings.egress import Address, Network, Rule

# IANA's special-purpose registries, and 168.63.129.16, at which a cloud's own service answers its guests.
_NOT_PUBLIC_V4: Final = tuple(map(ipaddress.IPv4Network, (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
    "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32",
)))  # fmt: skip
_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
# Within it: special uses and Teredo, documentation, 6to4, AS112, documentation again.
_NOT_PUBLIC_V6: Final = tuple(map(ipaddress.IPv6Network, (
    "2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20",
)))  # fmt: skip
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_ISATAP: Final = (0x00005EFE, 0x02005EFE)
"""Third quarter of an IPv6 address whose last is an IPv4 address that a host of this link sends it to."""


class Refused(Exception):
    """This may not be reached; the text is for the task's author and names nothing that lies within."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is near this machine, at this moment.

    ``is_own`` tells this machine's addresses on every interface. ``links``: networks that it reaches without a router.
    ``guarded``: addresses of the pool and the engine, with the port that may never be reached there.
    """

    is_own: Callable[[Address], bool]
    links: tuple[Network, ...] = ()
    guarded: frozenset[tuple[Address, int]] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True)
class Policy:
    """The owner's list."""

    allow: tuple[Rule, ...] = ()
    deny: tuple[Rule, ...] = ()

    def rules(self, target: Address | str, port: int) -> tuple[Rule, ...]:
        """What of the list is about this target, before any name is resolved: none of it, no look-up. Raises Refused.

        An address may be allowed by itself, or as a public one; a name by itself, or as one of public addresses.
        """
        if any(rule.is_public or _is_about(rule, target) for rule in self.deny):
            raise Refused("this node's owner refuses it (egress_deny)")
        fitting = tuple(
            rule for rule in self.allow if rule.has_port(port) and (rule.is_public or _is_about(rule, target))
        )
        if not fitting:
            raise Refused("it is not on this node's list of what tasks may reach (egress_allow)")
        return fitting

    def may_connect(self, address: Address, port: int, near: Surroundings) -> bool:
        """Whether an address may be connected to, of a target that `rules` has let through.

        What lies in the owner's own network only where the list names that very address, whatever name led there.
        """
        plain = unwrapped(address)
        if plain is None or egress.never(plain) or (plain, port) in near.guarded:
            return False
        if any(rule.has_address(plain) for rule in self.deny):
            return False
        if any(rule.has_address(plain) and rule.has_port(port) for rule in self.allow):
            return True
        guarded = any(plain == other for other, _ in near.guarded)
        linked = any(plain.version == link.version and plain in link for link in near.links)
        return is_public(plain) and not guarded and not linked and not near.is_own(plain)


def _is_about(rule: Rule, target: Address | str) -> bool:
    return rule.has_name(target) if isinstance(target, str) else rule.has_address(unwrapped(target) or target)


def unwrapped(address: Address) -> Address | None:
    """The address that is meant: IPv4 instead of IPv4 within IPv6, as the kernel and NAT64 routers take it.

    None for forms that tunnel to an IPv4 address of somebody's choice: 6to4, Teredo, ISATAP, and the ones out of use.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.scope_id is not None or address.sixtofour is not None or address.teredo is not None:
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    number = int(address)
    if address in _NAT64:
        return ipaddress.IPv4Address(number & 0xFFFFFFFF)
    if number >> 32 == 0 and number > 1:  # "IPv4-compatible", but for :: and ::1
        return None
    return None if number >> 32 & 0xFFFFFFFF in _ISATAP else address


def is_public(address: Address) -> bool:
    """Whether anybody on the internet means the same by it: no loopback, private, shared, link-local, multicast …"""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_V4)
    return address in _GLOBAL_UNICAST and not any(address in network for network in _NOT_PUBLIC_V6)
