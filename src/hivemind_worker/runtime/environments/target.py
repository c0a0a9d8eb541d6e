"""Which Python an environment is for: read from an image by a probe, never believed. Pure.

The probe runs inside a capsule without network or secrets, by whatever the image calls python3. Its answer decides
which wheels are chosen, for that image alone; each field has a grammar, and what does not match it is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hivemind_worker import errors

PROBE: Final = """
import importlib.metadata, importlib.util, json, os, platform, re, sys, sysconfig
own = sys.prefix == sys.base_prefix
packages = {}
for found in importlib.metadata.distributions() if own else ():
    try:
        name, version = found.metadata["Name"], found.version
    except Exception:
        continue
    if name and version:
        packages.setdefault(re.sub(r"[-_.]+", "-", name).lower(), version)
try:
    libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
except (ValueError, OSError):
    libc = ""
base = getattr(sys, "_base_executable", "") or sys.executable
print(json.dumps({
    "implementation": sys.implementation.name,
    "version": "%d.%d.%d" % sys.version_info[:3],
    "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    "machine": platform.machine(),
    "libc": libc or ("musl 1.2" if "musl" in str(sysconfig.get_config_var("SOABI")) else ""),
    "executable": os.path.realpath(base),
    "magic": importlib.util.MAGIC_NUMBER.hex(),
    "packages": packages,
}))
"""
"""Run as ``python3 -I -c``, Python 3.8 or newer; prints one line of JSON."""

MACHINES: Final = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
"""Names of the machines that there are capsules for, by what the kernel or an engine calls them."""

MAX_PACKAGES: Final = 5_000
MAX_ANSWER: Final = 1024 * 1024
"""Bytes of the probe's answer; 5,000 packages take half of it."""

_VERSION = re.compile(r"3\.(\d{1,2})\.\d{1,2}", re.ASCII)
_LIBC = re.compile(r"(glibc|musl) (\d)\.(\d{1,2})", re.ASCII)
_PATH = re.compile(r"(?:/[A-Za-z0-9._+-]{1,64}){1,16}", re.ASCII)
_MAGIC = re.compile(r"[0-9a-f]{8}", re.ASCII)
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,98}[a-z0-9])?", re.ASCII)
_PINNED = re.compile(
    r"(?:\d{1,9}!)?\d{1,18}(?:\.\d{1,18}){0,9}(?:(?:a|b|rc)\d{1,9})?(?:\.post\d{1,9})?(?:\.dev\d{1,18})?"
    r"(?:\+[a-z0-9]{1,40}(?:\.[a-z0-9]{1,40}){0,9})?",
    re.ASCII,
)
# The versions of glibc that uv can resolve for, 2.N; an image with another gets the next lower one.
_UV_GLIBC: Final = (17, 28, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40)
_OLDEST: Final = 8
_LEGACY: Final = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}


@dataclass(frozen=True, slots=True)
class Target:
    """A CPython: version 3.x.y, machine, C library with its version, path inside, packages it brings (name, version).

    ``magic`` names its compiled code, hexadecimal.
    """

    version: str
    machine: str
    libc: str
    libc_version: tuple[int, int]
    executable: str
    magic: str
    free_threaded: bool = False
    packages: tuple[tuple[str, str], ...] = ()

    @property
    def minor(self) -> int:
        """The y of Python 3.y."""
        return int(self.version.split(".")[1])

    @property
    def folder(self) -> str:
        """The name of the folder that holds its site-packages."""
        return f"python3.{self.minor}{'t' if self.free_threaded else ''}"

    def to_text(self) -> str:
        """All that decides whether a package runs on it, as one line."""
        libc = f"{self.libc} {self.libc_version[0]}.{self.libc_version[1]}"
        return f"cpython {self.version}{'t' if self.free_threaded else ''} {self.machine} {libc} {self.executable}"

    def uv_flags(self) -> tuple[str, ...]:
        """How uv is told to resolve for it, whatever runs uv."""
        if self.libc == "musl":
            platform = f"{self.machine}-unknown-linux-musl"
        else:
            major, minor = self.libc_version
            lower = [each for each in _UV_GLIBC if (2, each) <= (major, minor)]
            platform = f"{self.machine}-manylinux_2_{lower[-1] if lower else _UV_GLIBC[0]}"
        return ("--python-version", self.version, "--python-platform", platform)

    def tags(self) -> Iterator[str]:
        """Tags of the wheels that run on it, those preferred first."""
        own, flag = f"cp3{self.minor}", "t" if self.free_threaded else ""
        platforms = tuple(self._platforms())
        for abi in (f"{own}{flag}", *(() if flag else ("abi3",)), "none"):
            yield from (f"{own}-{abi}-{platform}" for platform in platforms)
        if not flag:
            for minor in range(self.minor - 1, 1, -1):
                yield from (f"cp3{minor}-abi3-{platform}" for platform in platforms)
        for python in self._generic():
            yield from (f"{python}-none-{platform}" for platform in platforms)
        yield f"{own}-none-any"
        yield from (f"{python}-none-any" for python in self._generic())

    def _generic(self) -> Iterator[str]:
        yield f"py3{self.minor}"
        yield "py3"
        yield from (f"py3{minor}" for minor in range(self.minor - 1, -1, -1))

    def _platforms(self) -> Iterator[str]:
        major, newest = self.libc_version
        family = "manylinux" if self.libc == "glibc" else "musllinux"
        for minor in range(newest, -1, -1):
            yield f"{family}_{major}_{minor}_{self.machine}"
            if self.libc == "glibc" and minor in _LEGACY:
                yield f"{_LEGACY[minor]}_{self.machine}"
        yield f"linux_{self.machine}"


def parse(answer: bytes, machine: str = "") -> Target:
    """Read what a probe printed: the last line that is an object. `machine`: the one it must be for.

    Raises DependencyFailed naming what is odd; it is the image's fault, or the task's that named this image.
    """
    fields = _fields(answer)
    if fields.get("implementation") != "cpython":
        raise _odd("its python3 is no CPython, and packages are chosen for that one only")
    version = _matched(_VERSION, fields, "version", "3.8 or newer")
    if int(version[1]) < _OLDEST:
        raise _odd("its python3 is older than 3.8")
    libc = _matched(_LIBC, fields, "libc", "glibc or musl")
    named = MACHINES.get(str(fields.get("machine"))[:20].lower(), "")
    if not named or (machine and named != MACHINES.get(machine.lower(), "")):
        raise _odd(f"its python3 is for {str(fields.get('machine'))[:20]!r}, the image for {machine!r}")
    executable = _matched(_PATH, fields, "executable", "an absolute path")[0]
    if any(part in {".", ".."} for part in executable.split("/")):
        raise _odd("the path of its python3 is not plain")
    return Target(
        version=version[0],
        machine=named,
        libc=libc[1],
        libc_version=(int(libc[2]), int(libc[3])),
        executable=executable,
        magic=_matched(_MAGIC, fields, "magic", "8 hexadecimal digits")[0],
        free_threaded=fields.get("free_threaded") is True,
        packages=_packages(fields.get("packages")),
    )


def _fields(answer: bytes) -> Mapping[str, Any]:
    for line in reversed(answer[:MAX_ANSWER].splitlines()):
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(fields, dict):
            return fields
    raise _odd("its python3 does not say what it is")


def _matched(grammar: re.Pattern[str], fields: Mapping[str, Any], field: str, expected: str) -> re.Match[str]:
    value = fields.get(field)
    matched = grammar.fullmatch(value) if isinstance(value, str) else None
    if matched is None:
        raise _odd(f"the {field} of its python3 is {str(value)[:60]!r}, not {expected}")
    return matched


def _packages(value: object) -> tuple[tuple[str, str], ...]:
    """The packages with proper names and versions; others are unknown to every index."""
    if not isinstance(value, dict) or len(value) > MAX_PACKAGES:
        raise _odd(f"the packages of its python3 are no list of at most {MAX_PACKAGES}")
    return tuple(
        sorted(
            (name, version)
            for name, version in value.items()
            if isinstance(version, str) and _NAME.fullmatch(name) and _PINNED.fullmatch(version)
        )
    )


def _odd(reason: str) -> errors.DependencyFailed:
    return errors.DependencyFailed(f"no environment can be made for this image: {reason}")
