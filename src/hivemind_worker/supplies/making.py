"""The worker's side of the talk with `maker`: what is asked, what is heard. Every line that comes in is hostile."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from hivemind_worker.supplies import sources as sourcing
from hivemind_worker.task import errors

FOLDER: Final = "/opt/hivemind"
"""Where an environment lies inside a capsule; the same while it is made and while it is used."""

ENVIRONMENT: Final = f"{FOLDER}/environment"
CACHE: Final = f"{FOLDER}/cache"
WHEELS: Final = f"{FOLDER}/wheels"
"""Folders of the capsule in which an environment is made."""

AT_ONCE: Final = 2
"""Environments made at once: each may take 2 GiB, and a disk is busy with one."""

MAKER: Final = Path(__file__).with_name("maker.py")

_RECIPE = 1  # raised when environments made before must not be used any more
_LINE = 256 * 1024
_PINS = 5_000
_NOTE = 500
_WORDS = 4_000
_SHOWN = 20
_NAMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


Wanted = Callable[["Resolved"], Awaitable[bool]]
"""Whether an environment with these versions is still to be made."""


class Pipe(Protocol):
    """Both directions of a capsule's stream."""

    async def read(self) -> bytes:
        """Return the next bytes, empty at the end."""

    async def write(self, data: bytes) -> None:
        """Write `data`."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """What was found: what the Python is, as text, and the exact versions."""

    python: str
    pins: tuple[str, ...]


@functools.cache
def recipe() -> str:
    """A name for how environments are made; those of another recipe are others."""
    return f"{_RECIPE}-{hashlib.sha256(MAKER.read_bytes()).hexdigest()[:8]}"


def request(
    found: sourcing.Sources, requirements: tuple[str, ...], uv: str, *, inherit: bool, wheels: str = ""
) -> bytes:
    """The first line for the maker. `inherit`: the packages of the Python itself are seen as well."""
    said = {
        "requirements": list(requirements),
        "uv": uv,
        "folder": FOLDER,
        # What a source build leaves there could be made to harm the next environment.
        "cache": "" if found.source_builds else CACHE,
        "wheels": wheels,
        "index_url": found.index_url,
        "proxy": found.proxy,
        "certificates": found.certificates.decode("ascii"),
        "source_builds": found.source_builds,
        "limit_bytes": found.limit_bytes,
        "inherit": inherit,
    }
    return json.dumps(said).encode() + b"\n"


def listed(names: Sequence[str]) -> str:
    """Some names in a line."""
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def asked_first(pins: Sequence[str], requirements: Sequence[str]) -> tuple[str, ...]:
    """The packages of an environment, those asked for by name before those that came with them."""
    asked = {_name(requirement) for requirement in requirements}
    return tuple(sorted(pins, key=lambda pin: _name(pin) not in asked))


def _name(requirement: str) -> str:
    """The project's name as PEP 503 compares it; empty where there is none."""
    named = _NAMED.match(requirement.strip())
    return re.sub(r"[-_.]+", "-", named[0]).lower() if named else ""


def too_large(size: int, most: int) -> errors.DependencyFailed:
    """It grew beyond what it may have; bytes."""
    return errors.DependencyFailed(
        f"the environment is larger ({size / 1e6:.0f} MB) than this node's owner allows: "
        f"{most / 1e6:.0f} MB (package_environment_limit_bytes)"
    )


def stale(failed: errors.DependencyFailed) -> str:
    """What is said where names cannot be resolved anew and an environment of before is there."""
    return f"the names could not be resolved anew, and the environment made before is used: {str(failed)[:_WORDS]}"


async def converse(
    pipe: Pipe,
    asked: bytes,
    wanted: Wanted,
    tell: Callable[[str], None],
    found: sourcing.Sources,
) -> bool:
    """Hold the talk to its end; whether an environment was made (else `wanted` was answered no).

    Raises DependencyFailed with the resolver's words, CapsuleFault when the maker breaks off.
    """
    hearing = _Hearing(found.secrets)
    await pipe.write(asked)
    while data := await pipe.read():
        for said in hearing.feed(data):
            if "note" in said:
                tell(hearing.plain(said["note"], _NOTE))
            elif "python" in said and isinstance(said["python"], dict):
                hearing.python = json.dumps(said["python"], sort_keys=True)[:_NOTE]
            elif "pins" in said:
                resolved = Resolved(hearing.python, hearing.pins(said["pins"]))
                if not await wanted(resolved):
                    await pipe.write(b"no\n")
                    return False
                await pipe.write(b"go\n")
            elif "large" in said:
                size = said["large"] if isinstance(said["large"], int) else found.limit_bytes
                raise too_large(size, found.limit_bytes)
            elif "failed" in said:
                raise errors.DependencyFailed(hearing.plain(said["failed"], _WORDS))
            elif "done" in said:
                return True
    raise errors.CapsuleFault("the capsule that makes the environment ended before it was done")


class _Hearing:
    def __init__(self, hidden: tuple[str, ...]) -> None:
        self.python = ""
        self._hidden = hidden
        self._rest = b""

    def feed(self, data: bytes) -> list[Mapping[str, Any]]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LINE or any(len(line) > _LINE for line in lines):
            raise errors.CapsuleFault("the capsule that makes the environment says lines without end")
        return [_object(line) for line in lines if line.strip()]

    def plain(self, said: object, most: int) -> str:
        text = "".join(each if each.isprintable() or each == "\n" else " " for each in str(said))
        for secret in self._hidden:
            text = text.replace(secret, "****")
        return text[-most:].strip()

    def pins(self, said: object) -> tuple[str, ...]:
        if not isinstance(said, list) or len(said) > _PINS or not all(isinstance(each, str) for each in said):
            raise errors.CapsuleFault("the capsule that makes the environment names no proper versions")
        return tuple(sorted(each[:_NOTE] for each in said))


def _object(line: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise errors.CapsuleFault("the capsule that makes the environment speaks no JSON")
    return found
