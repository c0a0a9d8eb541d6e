"""The worker's side of the talk with `fetcher`: requests, and answers that are checked. Who offers such a talk."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from hivemind_worker import errors
from hivemind_worker.concurrency import supervision
from hivemind_worker.runtime.environments import locks, staging
from hivemind_worker.runtime.environments import sources as sourcing
from hivemind_worker.runtime.environments import target as targets

FOLDER: Final = "/opt/hivemind"
"""Where an environment lies inside a capsule."""

ENVIRONMENT: Final = f"{FOLDER}/environment"

AT_ONCE: Final = 2
"""Environments made at once: each may take 2 GiB, and a disk is busy with one."""

PROGRAMS: Final = Path(__file__).with_name("programs")
FETCHER: Final = "fetcher.py"

LOCAL: Final = "scratch/local"
"""Where stand-ins and what was built lie, beneath a fetcher's folder."""

_RECIPE = 2  # raised when environments made before must not be used any more
_LINE = 64 * 1024 * 1024
_NOTE = 500
_WORDS = 4_000
_SHOWN = 20
_NAMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PYPI = "https://pypi.org/simple"


class Pipe(Protocol):
    """Both directions of a process's stream."""

    async def read(self) -> bytes:
        """Return the next bytes, empty at the end."""

    async def write(self, data: bytes) -> None:
        """Write `data`."""

    async def last_words(self) -> str:
        """Return what it complained about, once it has ended by itself."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """Exact versions of all that is needed, and the wheels of those that the Python does not bring."""

    pins: tuple[str, ...]
    wheels: tuple[locks.Wheel, ...]

    @property
    def contents(self) -> tuple[str, ...]:
        """All that decides what the environment will hold, as lines."""
        return (*self.pins, *(f"{wheel.file} {wheel.sha256 or wheel.url}" for wheel in self.wheels))


@dataclass(frozen=True, slots=True)
class Places:
    """Folders as the fetcher sees them: the staged one, what was fetched before, the owner's wheels (empty: none)."""

    folder: str
    cache: str
    wheels: str
    uv: str


class Workshop(Protocol):
    """Starts fetchers: in a sandbox with the network where there can be one, else as a process of ours."""

    def open(
        self, jobs: supervision.Jobs, say: Callable[[str], None]
    ) -> contextlib.AbstractAsyncContextManager[Session]:
        """Start one; it and what it left unfinished is gone at the end of the block. Raises BadSettings, OSError."""


@functools.cache
def recipe() -> str:
    """A name for how environments are made; those of another recipe are others."""
    texts = b"".join(path.read_bytes() for path in sorted(PROGRAMS.glob("*.py")))
    return f"{_RECIPE}-{hashlib.sha256(texts).hexdigest()[:8]}"


def listed(names: Sequence[str]) -> str:
    """Some names in a line."""
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def requested_first(pins: Sequence[str], requirements: Sequence[str]) -> tuple[str, ...]:
    """The packages of an environment, those requested by name before those that came with them."""
    requested = {_name(requirement) for requirement in requirements}
    return tuple(sorted(pins, key=lambda pin: _name(pin) not in requested))


def _name(requirement: str) -> str:
    """The project's name as PEP 503 compares it; empty where there is none."""
    named = _NAMED.match(requirement.strip())
    return locks.normalized(named[0]) if named else ""


def too_large(size: int, limit: int) -> errors.DependencyFailed:
    """It grew beyond what it may have; bytes."""
    return errors.DependencyFailed(
        f"the environment is larger ({size / 1e6:.0f} MB) than this node's owner allows: "
        f"{limit / 1e6:.0f} MB (package_environment_limit_bytes)"
    )


def too_late(seconds: float) -> errors.DependencyFailed:
    """It took longer than it may."""
    return errors.DependencyFailed(f"the environment was not made within {seconds:.0f} s (package_environment_timeout)")


def stale(failed: errors.DependencyFailed) -> str:
    """What is said where names cannot be resolved anew and an environment of before is there."""
    return f"the names could not be resolved anew, and the environment made before is used: {str(failed)[:_WORDS]}"


class SourceNeeded(errors.DependencyFailed):
    """Some packages have no wheel that suits; ``names`` are their projects."""

    def __init__(self, reason: str, projects: tuple[str, ...]) -> None:
        super().__init__(reason)
        self.names = projects


class Session:
    """The talk with one fetcher, and the folder in which it makes one environment."""

    def __init__(
        self,
        pipe: Pipe,
        sources: sourcing.Sources,
        places: Places,
        staged: staging.Staging,
        say: Callable[[str], None],
    ) -> None:
        self.staged = staged
        self._pipe = pipe
        self._sources = sources
        self._places = places
        self._say = say
        self._rest = b""

    async def begin(self) -> None:
        """Tell it where packages come from. The one line with secrets: it goes through a pipe to our own program."""
        sources = self._sources
        order = {
            **asdict(self._places),
            "index_url": sources.index_url or _PYPI,
            "proxy": sources.proxy,
            "certificates": sources.certificates.decode("ascii"),
            "limit_bytes": sources.limit_bytes,
        }
        await self._pipe.write(json.dumps(order).encode() + b"\n")

    async def resolve(self, requirements: Sequence[str], python: targets.Target) -> Resolved:
        """Find exact versions, preferring what the Python brings. Raises DependencyFailed in the resolver's words."""
        answer = await self._ask(
            "resolve",
            "lock",
            requirements=list(requirements),
            flags=list(python.uv_flags()),
            preferences=locks.preferences(python.packages),
        )
        text = answer["lock"]
        if not isinstance(text, str):
            raise errors.CapsuleFault("the program that fetches packages gives no lock")
        return Resolved(locks.pins(text), locks.wheels(text, python))

    async def install(self, resolved: Resolved, python: targets.Target, *, inherit: bool) -> int:
        """Fetch, check and unpack it; its bytes. `inherit`: packages of the Python itself are seen as well.

        Raises DependencyFailed.
        """
        target = {
            "folder": python.folder,
            "executable": python.executable,
            "version": python.version,
            "magic": python.magic,
        }
        wheels = [asdict(wheel) for wheel in resolved.wheels]
        answer = await self._ask("install", "done", wheels=wheels, target=target, inherit=inherit, compiled=ENVIRONMENT)
        size = answer["done"]
        if not isinstance(size, int):
            raise errors.CapsuleFault("the program that fetches packages gives no size")
        if size > self._sources.limit_bytes:
            raise too_large(size, self._sources.limit_bytes)
        return size

    async def stand_in(self, projects: Sequence[str]) -> None:
        """Let the resolver choose among the source distributions of these projects. Raises DependencyFailed."""
        await self._ask("stand_in", "stood_in", projects=list(projects))

    def is_local(self, wheel: locks.Wheel) -> bool:
        """Whether it is a stand-in, or was built here: in the folder of this environment alone."""
        return wheel.url.startswith("file:") and f"{self._places.folder}/{LOCAL}/" in wheel.url

    async def source(self, wheel: locks.Wheel) -> tuple[Path, str]:
        """Fetch the source behind a stand-in; where it lies, and its pyproject.toml. Raises DependencyFailed."""
        answer = await self._ask("source", "project", project=wheel.name, version=wheel.version)
        return self.staged.folder / "scratch" / "source.tar.gz", str(answer["project"])

    async def take_built(self, wheel: locks.Wheel, file: str, content: bytes) -> None:
        """Put what was built in the place of its stand-in, once it is what it should be. Raises DependencyFailed."""
        place = self.staged.folder / "scratch" / "built.whl"
        await asyncio.to_thread(place.write_bytes, content)
        await self._ask("take", "taken", project=wheel.name, version=wheel.version, standing=wheel.file, file=file)

    async def _ask(self, request: str, expected: str, **fields: object) -> Mapping[str, Any]:
        await self._pipe.write(json.dumps({"do": request, **fields}).encode() + b"\n")
        while data := await self._pipe.read():
            *lines, self._rest = (self._rest + data).split(b"\n")
            if len(self._rest) > _LINE:
                raise errors.CapsuleFault("the program that fetches packages says lines without end")
            for answer in (_object(line) for line in lines if line.strip()):
                if "note" in answer:
                    self._say(self._plain(answer["note"], _NOTE))
                elif "large" in answer:
                    size = answer["large"] if isinstance(answer["large"], int) else self._sources.limit_bytes
                    raise too_large(size, self._sources.limit_bytes)
                elif "failed" in answer and (projects := _sources(answer)):
                    raise SourceNeeded(self._plain(answer["failed"], _WORDS), projects)
                elif "failed" in answer:
                    raise errors.DependencyFailed(self._plain(answer["failed"], _WORDS))
                elif expected in answer:
                    return answer
        words = self._plain(await self._pipe.last_words(), _NOTE)
        raise errors.CapsuleFault(f"the program that fetches packages ended before it was done: {words}")

    def _plain(self, value: object, limit: int) -> str:
        text = "".join(each if each.isprintable() or each == "\n" else " " for each in str(value))
        for secret in self._sources.secrets:
            text = text.replace(secret, "****")
        return text[-limit:].strip()


def _sources(answer: Mapping[str, Any]) -> tuple[str, ...]:
    """The projects that a failed resolution lacks wheels of."""
    projects = answer.get("sources")
    if not isinstance(projects, list):
        return ()
    return tuple(project for project in projects[:_SHOWN] if isinstance(project, str) and _NAMED.fullmatch(project))


def _object(line: bytes) -> Mapping[str, Any]:
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise errors.CapsuleFault("the program that fetches packages speaks no JSON")
    return answer
