"""Connects to what a task may reach: names are resolved here, each address is checked, and that one connected to."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import unquote, urlsplit

from hivemind_worker.concurrency import clock
from hivemind_worker.runtime.egress import machine, policy, request
from hivemind_worker.settings import egress
from hivemind_worker.settings.egress import Address

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Resolve = Callable[[str], Sequence[str]]
"""A name to its addresses as text; blocks, and raises OSError."""

CONNECT_SECONDS: Final = 15.0
RESOLVE_SECONDS: Final = 15.0
LOOKUPS: Final = 32
"""Names looked up at once for all tasks, each in a thread, which nothing ends before the system's own time limit."""

ADDRESSES: Final = 4
"""Addresses of one name that are tried."""

STREAM_BYTES: Final = 64 * 1024
NEAR_SECONDS: Final = 30.0
"""How long it is believed which networks are near, and where pool and engine are."""

_HOST_PORT: Final = re.compile(r"(.+):(\d{1,5})")


class Unreachable(Exception):
    """It may be reached, and cannot be; or nobody shall learn which of the two."""


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """What one task may take: connections at once, bytes, bytes a second (0: any), idle seconds of a connection."""

    connections: int = 16
    total_bytes: int = 10 * 1024**3
    bytes_per_second: int = 0
    idle_seconds: float = 300.0


@dataclasses.dataclass(frozen=True, slots=True)
class Terms:
    """What the owner wants. ``guarded`` are addresses as settings have them (host:port) that no task may reach."""

    policy: policy.Policy = dataclasses.field(default_factory=policy.Policy)
    limits: Limits = dataclasses.field(default_factory=Limits)
    proxy: str = ""
    guarded: tuple[str, ...] = ()
    certificates: bytes = b""


def terms(settings: egress.Egress, guarded: Sequence[str], certificates: bytes = b"") -> Terms:
    """The terms that the settings name; ``certificates`` (PEM) are given to tasks."""
    return Terms(
        policy.Policy(
            tuple(egress.rule(entry) for entry in settings.allow),
            tuple(egress.exception(entry) for entry in settings.deny),
        ),
        Limits(
            settings.connections,
            int(settings.limit_bytes),
            int(settings.bytes_per_second),
            settings.idle_seconds,
        ),
        settings.proxy,
        tuple(entry for entry in guarded if entry),
        certificates,
    )


class Gateway:
    """One node's way out, for all of its tasks."""

    def __init__(self, agreed: Terms, resolve: Resolve | None = None) -> None:
        """``resolve`` instead of the system's own resolver."""
        self.terms = agreed
        self._resolve = resolve or _system
        self._lookups = 0
        self._near: tuple[float, policy.Surroundings] | None = None

    async def connect(self, target: request.Target) -> Streams:
        """Connect to what is asked for. Raises policy.Refused, Unreachable."""
        rules = self.terms.policy.rules(target.host, target.port)
        # A listed name is the owner's word that the proxy may be asked for it; it resolves names in its own place.
        if self.terms.proxy and isinstance(target.host, str) and any(rule.has_name(target.host) for rule in rules):
            return await self._through_proxy(target.authority)
        candidates = await self._addresses(target.host)
        near = await self._surroundings()
        allowed = [address for address in candidates if self.terms.policy.may_connect(address, target.port, near)]
        if not allowed:
            if isinstance(target.host, str):  # the same words as for no address at all: names within are not told
                raise Unreachable("the name has no address that a task may reach from here")
            raise policy.Refused("a task may not reach this address from here")
        failure: Exception = Unreachable("nothing answers there")
        for address in allowed[:ADDRESSES]:
            try:
                if self.terms.proxy:
                    shown = request.Target(address, target.port, tunnel=True).authority
                    return await self._through_proxy(shown)
                return await _dial(str(address), target.port)
            except Unreachable as error:
                failure = error
        raise failure

    async def _addresses(self, host: Address | str) -> list[Address]:
        if not isinstance(host, str):
            plain = policy.unwrapped(host)
            return [plain] if plain is not None else []
        addresses = []
        for text in await self._look_up(host):
            with contextlib.suppress(ValueError):  # one with a zone, for instance
                plain = policy.unwrapped(ipaddress.ip_address(text))
                if plain is not None and plain not in addresses:
                    addresses.append(plain)
        return addresses

    async def _look_up(self, name: str) -> Sequence[str]:
        """In a thread of its own: a name server that does not answer must hold up nothing else that uses threads."""
        if self._lookups >= LOOKUPS:
            raise Unreachable("too many names are being looked up; try again")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Sequence[str]] = loop.create_future()

        def set_answer(result: Sequence[str]) -> None:
            self._lookups -= 1
            if not answer.done():
                answer.set_result(result)

        def work() -> None:
            try:
                result = self._resolve(name)
            except (OSError, UnicodeError):
                result = ()
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(set_answer, result)

        self._lookups += 1
        threading.Thread(target=work, name="egress/look-up", daemon=True).start()
        try:
            async with asyncio.timeout(RESOLVE_SECONDS):
                return await answer
        except TimeoutError:
            return ()

    async def _surroundings(self) -> policy.Surroundings:
        now = clock.now()
        if self._near is None or now - self._near[0] > NEAR_SECONDS:
            guarded: set[tuple[Address, int]] = set()
            for entry in self.terms.guarded:
                guarded |= await self._guarded(entry)
            self._near = (
                now,
                policy.Surroundings(machine.is_own, await asyncio.to_thread(machine.links), frozenset(guarded)),
            )
        return self._near[1]

    async def _guarded(self, entry: str) -> set[tuple[Address, int]]:
        """Addresses and port of pool or engine. Raises Unreachable where they cannot be told: nothing gets out then."""
        if entry.startswith(("unix:", "unix-abstract:", "npipe:")):
            return set()
        plain = re.sub(r"^(?:tcp|https?|dns|ipv4|ipv6):(?://[^/]*/(?=.)|//)?", "", entry).rstrip("/")
        places: set[tuple[Address, int]] = set()
        for part in plain.split(","):
            split = _HOST_PORT.fullmatch(part)
            name, port = (split[1], int(split[2])) if split else (part, 0)
            try:
                host = egress.host(name)
            except ValueError:
                continue
            addresses = await self._addresses(host)
            if not addresses:
                raise Unreachable("the node cannot tell where its own services are, and lets nothing out meanwhile")
            places |= {(address, port) for address in addresses}
        return places

    async def _through_proxy(self, authority: str) -> Streams:
        """Ask the owner's proxy for a tunnel. Raises Unreachable."""
        url = urlsplit(self.terms.proxy)
        secure = url.scheme == "https"
        reader, writer = await _dial(url.hostname or "", url.port or (443 if secure else 80), secure=secure)
        credentials = ""
        if url.username is not None:
            pair = f"{unquote(url.username)}:{unquote(url.password or '')}"
            credentials = f"Proxy-Authorization: Basic {base64.b64encode(pair.encode()).decode()}\r\n"
        try:
            writer.write(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{credentials}\r\n".encode())
            async with asyncio.timeout(CONNECT_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.close()
            raise Unreachable("this site's proxy does not answer") from None
        if not re.match(rb"HTTP/1\.[01] 2\d\d[ \r]", head):
            writer.close()
            raise Unreachable("this site's proxy refuses it")
        return reader, writer


async def _dial(address: str, port: int, *, secure: bool = False) -> Streams:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            context = ssl.create_default_context() if secure else None
            return await asyncio.open_connection(address, port, limit=STREAM_BYTES, ssl=context)
    except TimeoutError:
        raise Unreachable("nothing answers there in time") from None
    except OSError as error:
        raise Unreachable(f"it cannot be connected to: {error.strerror or 'no connection'}") from None


def _system(name: str) -> Sequence[str]:
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]
