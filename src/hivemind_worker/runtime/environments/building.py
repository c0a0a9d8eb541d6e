"""A package without a wheel → a wheel of its own making, in a capsule of its own: trusted in nothing but itself.

Its code runs where a task's would: no network, no secret, the task's user, limits of memory, disk and time. Only the
wheel comes out; its name, version and tags must be those it was asked for. It goes into the one environment that asked,
and into no cache.
"""

from __future__ import annotations

import asyncio
import json
import re
import tomllib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from hivemind_worker import errors
from hivemind_worker.runtime.environments import locks, making
from hivemind_worker.runtime.environments import target as targets
from hivemind_worker.tasks import names
from hivemind_worker.units import GIB

MAX_ROUNDS: Final = 40
"""Resolutions of one environment; each may name a further package without a wheel, or be followed by builds."""

MEMORY: Final = 2 * GIB
DISK: Final = 1 * GIB
PROCESSES: Final = 256
"""Of a capsule in which one package is built."""

MAX_WHEEL: Final = 512 * 1024 * 1024

_DEFAULT: Final = ("setuptools>=40.8.0", "wheel")  # PEP 518, where a project names none
_BACKEND: Final = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*(?::[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)?", re.ASCII)

PROGRAM: Final = """
import importlib, json, os, sys, tarfile
answers, source = os.fdopen(os.dup(1), "wb"), sys.stdin.buffer
os.dup2(2, 1)
order = json.loads(source.readline())
packed = source.read(order["size"])
os.environ.update(HOME="/workspace", TMPDIR="/tmp", PATH=os.path.dirname(sys.executable) + ":" + os.defpath)
os.chdir("/workspace")
with open("source.tar.gz", "wb") as file:
    file.write(packed)
with tarfile.open("source.tar.gz") as tar:
    tar.extractall("source", **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
(top,) = os.listdir("source")
os.chdir(os.path.join("source", top))
sys.path[:0] = [os.path.abspath(path) for path in order["path"]]
name, _, attribute = order["backend"].partition(":")
backend = importlib.import_module(name)
for part in attribute.split(".") if attribute else ():
    backend = getattr(backend, part)
os.mkdir("/workspace/built")
needs = list(getattr(backend, "get_requires_for_build_wheel", lambda settings=None: [])())
if needs and not order["again"]:
    answers.write(json.dumps({"requires": needs}).encode() + b"\\n")
else:
    file = backend.build_wheel("/workspace/built")
    with open(os.path.join("/workspace/built", file), "rb") as wheel:
        content = wheel.read()
    answers.write(json.dumps({"file": file, "size": len(content)}).encode() + b"\\n" + content)
answers.close()
"""
"""The front end of a build (PEP 517), run as ``python3 -I -c`` by the environment with what the build requires."""

Builder = Callable[[Sequence[str], bytes], Awaitable[bytes]]
"""Runs PROGRAM in a new capsule with an environment of these requirements: what it reads → all that it writes.

Raises DependencyFailed with the last words of a build that failed.
"""


async def resolve(
    session: making.Session,
    requirements: Sequence[str],
    python: targets.Target,
    build: Builder | None,
    say: Callable[[str], None],
) -> making.Resolved:
    """Resolve; where the owner allows it (`build` is given) what has no wheel is built. Raises DependencyFailed."""
    replaced: set[str] = set()
    built: set[str] = set()
    for _ in range(MAX_ROUNDS):
        try:
            resolved = await session.resolve(requirements, python)
        except making.SourceNeeded as needed:
            fresh = [name for name in needed.names if name not in replaced]
            if build is None or not fresh:
                raise
            await session.stand_in(fresh)
            replaced.update(fresh)
            continue
        missing = [wheel for wheel in resolved.wheels if wheel.name in replaced and wheel.pin not in built]
        missing = [wheel for wheel in missing if session.is_local(wheel)]
        if build is None or not missing:
            return resolved
        for wheel in missing:
            say(f"building {wheel.pin} from its source")
            await _build(session, wheel, python, build)
            built.add(wheel.pin)
    raise errors.DependencyFailed(f"the requirements were not resolved in {MAX_ROUNDS} rounds of builds")


async def _build(session: making.Session, wheel: locks.Wheel, python: targets.Target, build: Builder) -> None:
    file, text = await session.source(wheel)
    requires, order = _order(text, wheel.pin)
    packed = await asyncio.to_thread(file.read_bytes)
    answer: dict[str, Any] = {}
    content = b""
    for again in (False, True):
        request = json.dumps({**order, "size": len(packed), "again": again}).encode() + b"\n" + packed
        head, _, content = (await build(requires, request)).partition(b"\n")
        answer = _answer(head, wheel.pin)
        if "requires" not in answer or again:
            break
        requires = _requirements((*requires, *_words(answer["requires"], wheel.pin)), wheel.pin)
    name = str(answer.get("file"))
    if len(content) != answer.get("size") or not content or len(content) > MAX_WHEEL:
        raise errors.DependencyFailed(f"the build of {wheel.pin} gave no wheel")
    if not locks.suits(name, wheel, python):
        raise errors.DependencyFailed(f"the build of {wheel.pin} gave {name[:100]!r}, which is another wheel")
    await session.take_built(wheel, name, content)


def _order(text: str, pin: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    """What a build requires, and what its capsule is told, from a pyproject.toml."""
    try:
        system = tomllib.loads(text).get("build-system", {})
    except (tomllib.TOMLDecodeError, RecursionError):
        raise errors.DependencyFailed(f"the pyproject.toml of {pin} cannot be read") from None
    if not isinstance(system, dict):
        raise errors.DependencyFailed(f"the pyproject.toml of {pin} has no proper build-system")
    requires = _requirements(_words(system.get("requires", list(_DEFAULT)), pin), pin)
    backend = system.get("build-backend", "setuptools.build_meta:__legacy__")
    path = _words(system.get("backend-path", []), pin)
    plain = isinstance(backend, str) and _BACKEND.fullmatch(backend) is not None
    if not plain or any(part.startswith("/") or ".." in part.split("/") for part in path):
        raise errors.DependencyFailed(f"the pyproject.toml of {pin} names a build backend that is none")
    return requires, {"backend": backend, "path": list(path)}


def _words(value: object, pin: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise errors.DependencyFailed(f"what the build of {pin} requires is no list of names")
    return tuple(value)


def _requirements(words: Sequence[str], pin: str) -> tuple[str, ...]:
    try:
        return names.requirements("requires", list(words))
    except errors.InvalidTask as invalid:
        raise errors.DependencyFailed(f"what the build of {pin} requires cannot be had: {invalid}") from None


def _answer(line: bytes, pin: str) -> dict[str, Any]:
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise errors.DependencyFailed(f"the build of {pin} ended without a wheel")
    return answer


async def read_all(read: Callable[[], Awaitable[bytes]]) -> bytes:
    """All that a build writes. Raises DependencyFailed where that has no end."""
    answer = bytearray()
    while data := await read():
        answer += data
        if len(answer) > MAX_WHEEL:
            raise errors.DependencyFailed("a build answers without end")
    return bytes(answer)


def failed(words: str) -> errors.DependencyFailed:
    """A build that gave nothing, with what an author's code complained about made fit for a log."""
    plain = "".join(each if each.isprintable() or each == "\n" else " " for each in words)[-1000:].strip()
    return errors.DependencyFailed(f"a build from source failed: {plain or 'it gives no reason'}")
