"""What tasks may reach of the network: the owner's list, and how much of it."""

from __future__ import annotations

import enum
import ipaddress
import re
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Final

import pydantic
from pydantic import ByteSize, Field

from hivemind_worker.settings.fields import Group, Seconds, Size, Url, several
from hivemind_worker.units import GIB, MIB

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PUBLIC: Final = "public"
"""The word for every public address, under whatever name."""

WEB_PORTS: Final = ((80, 80), (443, 443))
"""Of an entry that names no port."""

_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORTS: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
# Link-local, none at all, multicast and reserved; then the services that tell a cloud's guests their secrets, by cloud:
# AWS, Azure, Alibaba, Oracle twice, Google, Scaleway. All but the second lie where an owner may list a whole network.
_NEVER: Final = tuple(map(ipaddress.ip_network, (
    "169.254.0.0/16", "0.0.0.0/8", "224.0.0.0/3", "fe80::/10", "ff00::/8", "::/128",
    "fd00:ec2::254", "168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:c1::a9fe:a9fe", "fd20:ce::254",
    "fd00:42::42",
)))  # fmt: skip


class Path(enum.StrEnum):
    """How tasks with egress reach the network."""

    FILTERED = "filtered"
    BRIDGE = "bridge"


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry: a name (or with ``below`` every name under it), a network, or with neither every public address.

    ``ports`` are first and last of each range; ``text`` is the entry as it was written.
    """

    text: str
    name: str = ""
    below: bool = False
    network: Network | None = None
    ports: tuple[tuple[int, int], ...] = WEB_PORTS

    def has_port(self, port: int) -> bool:
        """Whether it allows this port."""
        return any(first <= port <= last for first, last in self.ports)

    def has_name(self, name: str) -> bool:
        """Whether it is about this name, in small letters without a final point."""
        return bool(self.name) and (name.endswith(f".{self.name}") if self.below else name == self.name)

    def has_address(self, address: Address) -> bool:
        """Whether it names this address, alone or in a network."""
        return self.network is not None and address in self.network

    @property
    def is_public(self) -> bool:
        """Whether it stands for all public addresses."""
        return not self.name and self.network is None


def never(address: Address) -> bool:
    """Whether no owner may list it: link-local and metadata services, multicast, no address at all."""
    return any(address in network for network in _NEVER if network.version == address.version)


def host(text: str) -> Address | str:
    """Read a host: an address in its usual form, IPv6 in brackets, or a name, which comes back in small letters.

    Raises ValueError for everything else; of other forms of addresses each library makes something of its own.
    """
    if text.startswith("[") and text.endswith("]"):
        if "%" in text:
            raise ValueError("an address with a zone is of one machine alone")
        return ipaddress.IPv6Address(text[1:-1])
    name = text.lower().removesuffix(".")
    if name.count(".") == 3 and not _has_letter(name):
        return ipaddress.IPv4Address(name)
    if len(name) > 253 or not _NAME.fullmatch(name) or _NUMBER.fullmatch(name.rpartition(".")[2]):
        raise ValueError("write a name, an address such as 192.0.2.1, or [2001:db8::1]")
    return name


def _has_letter(text: str) -> bool:
    return any(char.isalpha() for char in text)


def rule(text: str) -> Rule:
    """Read an entry of what is allowed: NAME, *.NAME, ADDRESS, NETWORK or `public`, with :PORT, :FIRST-LAST or :*.

    Without a port 80 and 443 are meant, but an address needs one. Raises ValueError saying what is wrong with it.
    """
    place, colon, ports_text = text.rpartition(":")
    if not colon or "]" in ports_text or "/" in ports_text:
        place, colon, ports_text = text, "", ""
    entry = exception(place)
    if entry.network is not None and not colon:
        raise ValueError(f"'{text}': an address needs its port, such as {text}:443: it may lie in your own network")
    if entry.network is not None and any(_inside(entry.network, network) for network in _NEVER):
        raise ValueError(f"'{text}': link-local, metadata and multicast addresses can never be allowed")
    return replace(entry, text=text, ports=_ports(ports_text) if colon else WEB_PORTS)


def exception(text: str) -> Rule:
    """Read an entry of what is refused whatever is allowed: the same without ports. Raises ValueError."""
    if text == PUBLIC:
        return Rule(text)
    below = text.startswith("*.")
    try:
        if "/" in text:
            return Rule(text, network=ipaddress.ip_network(text.replace("[", "").replace("]", "")))
        target = host(text.removeprefix("*."))
    except ValueError as error:
        raise ValueError(f"'{text}': {error}") from None
    if isinstance(target, str):
        return Rule(text, target, below)
    if below:
        raise ValueError(f"'{text}': an address has nothing below it")
    return Rule(text, network=ipaddress.ip_network(target))


def _inside(inner: Network, outer: Network) -> bool:
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]  # of one version


def _ports(text: str) -> tuple[tuple[int, int], ...]:
    if text == "*":
        return ((1, 65535),)
    parts = _PORTS.fullmatch(text)
    first, last = (int(parts[1]), int(parts[2] or parts[1])) if parts else (0, 0)
    if not 1 <= first <= last <= 65535:
        raise ValueError(f"'{text}' is no port: write 443, 8000-8100 or *")
    return ((first, last),)


def _allowed(text: str) -> str:
    rule(text)
    return text


def _refused(text: str) -> str:
    exception(text)
    return text


Rules = Annotated[tuple[Annotated[str, pydantic.AfterValidator(_allowed)], ...], pydantic.BeforeValidator(several)]
Exceptions = Annotated[tuple[Annotated[str, pydantic.AfterValidator(_refused)], ...], pydantic.BeforeValidator(several)]


class Egress(Group):
    """What tasks with `network: egress` may reach, where allow_egress lets them reach anything at all."""

    prefix: ClassVar[str] = "egress_"

    allow: Rules = ()
    """What tasks may reach, parted by commas: names (pypi.org), all names below one (*.pypi.org), addresses and
    networks with their port (192.0.2.7:5432), or `public` for every public address; :PORT, :FIRST-LAST or :* after one
    where ports 80 and 443 are not what is meant. Nothing listed, nothing reached: the node offers no egress. Your own
    machine and network are reached only where an address of theirs is listed; a name never leads there."""

    deny: Exceptions = ()
    """Names, addresses and networks that are refused whatever is allowed, parted by commas: such as this site's own
    public address, where the worker cannot see that it is."""

    proxy: Url = ""
    """The proxy (http://…) through which tasks get out, where this machine must use one. It is told the names that
    egress_allow lists; what `public` allows is resolved and checked here, and asked of it by address."""

    path: Path = Path.FILTERED
    """filtered: through the worker, by the list above. bridge: containers are put into docker_network, from which they
    reach whatever this machine's network reaches, your own network included; only for tasks that you would run
    yourself."""

    connections: int = Field(16, ge=1, le=32)
    """Connections that one task may have open at once."""

    limit_bytes: Size = ByteSize(10 * GIB)
    """How much one task may send and receive together; beyond it every connection ends."""

    bytes_per_second: Annotated[ByteSize, Field(ge=0)] = ByteSize(16 * MIB)
    """How fast one task may send and receive together; 0: as fast as it goes, which is 32 MiB/s for what it sends."""

    idle_seconds: Seconds = 300.0
    """A connection over which nothing has gone for so long is ended."""
