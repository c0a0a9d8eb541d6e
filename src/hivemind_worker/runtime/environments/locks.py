"""What uv resolved (a pylock.toml, PEP 751) → the wheels to fetch, each with its address and sha256. Pure."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from hivemind_worker import errors
from hivemind_worker.runtime.environments import target as targets

MAX_PACKAGES: Final = 5_000

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,98}[a-z0-9])?", re.ASCII)
_VERSION = re.compile(r"[a-z0-9.!+]{1,100}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
# PEP 427: name-version[-build]-python-abi-platform.whl
_FILE = re.compile(
    r"(?P<name>[A-Za-z0-9_.]{1,100})-(?P<version>[A-Za-z0-9_.!+]{1,100})(?:-\d[A-Za-z0-9_.]{0,40})?"
    r"-(?P<python>[a-z0-9_.]{1,100})-(?P<abi>[a-z0-9_.]{1,100})-(?P<platform>[a-z0-9_.]{1,400})\.whl",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Wheel:
    """One wheel: normalized name, version, file name, address, and the index's sha256 (empty: the index gives none)."""

    name: str
    version: str
    file: str
    url: str
    sha256: str

    @property
    def pin(self) -> str:
        """As a requirement."""
        return f"{self.name}=={self.version}"


def wheels(text: str, python: targets.Target) -> tuple[Wheel, ...]:
    """Choose of each package the wheel that suits the Python best; a package that it brings in that version needs none.

    Raises DependencyFailed where a package has none, CapsuleFault where the text is no lock.
    """
    brought = set(python.packages)
    ranks = {tag: rank for rank, tag in enumerate(python.tags())}
    chosen = []
    for package in _packages(text):
        name, version = str(package.get("name")), str(package.get("version"))
        if _NAME.fullmatch(name) is None or _VERSION.fullmatch(version) is None:
            raise errors.CapsuleFault(f"the resolver names a package {name[:60]!r} {version[:60]!r}")
        if (name, version) not in brought:
            chosen.append(_best(name, version, package.get("wheels"), ranks))
    return tuple(chosen)


def preferences(packages: tuple[tuple[str, str], ...]) -> str:
    """A lock that makes uv prefer these versions, so that nothing is brought that is there already."""
    rows = "".join(f'\n[[packages]]\nname = "{name}"\nversion = "{version}"\n' for name, version in packages)
    return f'lock-version = "1.0"\ncreated-by = "hivemind"\n{rows or "packages = []"}\n'


def _packages(text: str) -> list[Mapping[str, Any]]:
    try:
        packages = tomllib.loads(text).get("packages", [])
    except (tomllib.TOMLDecodeError, RecursionError):
        packages = None
    if not isinstance(packages, list) or len(packages) > MAX_PACKAGES:
        raise errors.CapsuleFault("the resolver gives no list of packages")
    if not all(isinstance(package, dict) for package in packages):
        raise errors.CapsuleFault("the resolver gives no list of packages")
    return packages


def _best(name: str, version: str, offered: object, ranks: Mapping[str, int]) -> Wheel:
    candidates: list[tuple[int, str, Wheel]] = []
    for row in offered if isinstance(offered, list) else ():
        url, hashes = row.get("url"), row.get("hashes")
        if not isinstance(url, str) or urlsplit(url).scheme not in {"http", "https", "file"}:
            continue
        file = unquote(PurePosixPath(urlsplit(url).path).name)
        matched = _FILE.fullmatch(file)
        if matched is None or normalized(matched["name"]) != name:
            continue
        rank = min((ranks[tag] for tag in _tags(matched) if tag in ranks), default=None)
        if rank is None:
            continue
        sha256 = str(hashes.get("sha256", "")) if isinstance(hashes, dict) else ""
        wheel = Wheel(name, version, file, url, sha256 if _SHA256.fullmatch(sha256) else "")
        candidates.append((rank, file, wheel))
    if not candidates:
        raise errors.DependencyFailed(f"no wheel of {name} {version} suits the Python of this image")
    return min(candidates, key=lambda candidate: candidate[:2])[2]


def suits(file: str, wheel: Wheel, python: targets.Target) -> bool:
    """Whether a file name is one of a wheel of this very project and version, for this Python."""
    matched = _FILE.fullmatch(file)
    if matched is None or normalized(matched["name"]) != wheel.name:
        return False
    same = re.sub(r"[-_+]", ".", matched["version"]).lower() == re.sub(r"[-_+]", ".", wheel.version).lower()
    return same and not set(_tags(matched)).isdisjoint(python.tags())


def normalized(name: str) -> str:
    """A project's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _tags(file: re.Match[str]) -> list[str]:
    return [
        f"{python}-{abi}-{platform}"
        for python in file["python"].split(".")[:20]
        for abi in file["abi"].split(".")[:20]
        for platform in file["platform"].split(".")[:20]
    ]


def pins(text: str) -> tuple[str, ...]:
    """All packages of a lock as exact requirements, those that the Python brings included. Raises CapsuleFault."""
    return tuple(
        sorted(f"{str(package.get('name'))[:100]}=={str(package.get('version'))[:100]}" for package in _packages(text))
    )
