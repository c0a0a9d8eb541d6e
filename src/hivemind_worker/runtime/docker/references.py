"""Image references in one canonical form, however they are spelled; none names an image by its id. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from hivemind_worker import errors
from hivemind_worker.tasks import names

HUB: Final = "https://index.docker.io/v1/"
"""What Docker Hub is called where logins are kept."""

DOCKER_IO: Final = "docker.io"
_OFFICIAL: Final = "library/"
_ID: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Reference:
    """An image as its registry names it: ``tag`` is empty where a ``digest`` (`sha256:…`) says which."""

    registry: str
    repository: str
    tag: str
    digest: str = ""

    @property
    def name(self) -> str:
        """Registry and repository, without tag or digest."""
        return f"{self.registry}/{self.repository}"

    def __str__(self) -> str:
        """Return all of it, nothing left to anybody's defaults; an engine finds no id by it."""
        return self.pinned(self.digest) if self.digest else f"{self.name}:{self.tag}"

    def pinned(self, digest: str) -> str:
        """Return the reference of one content of this repository, which no tag can move."""
        return f"{self.name}@{digest}"


def parse(reference: str) -> Reference:
    """Return a reference in full. Raises InvalidTask for what is none, or names an image by its id."""
    text = names.image(reference)
    rest, _, digest = text.partition("@")
    first, slash, path = rest.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        host, rest = _host(first), path
    else:
        host = DOCKER_IO
    repository, _, tag = rest.partition(":")
    if _ID.fullmatch(repository) or (repository == "sha256" and tag):
        raise errors.InvalidTask("docker_image", f"{text[:80]!r} names an image by its id: name it by its repository")
    if host == DOCKER_IO and "/" not in repository:
        repository = _OFFICIAL + repository
    return Reference(host, repository, "" if digest else tag or "latest", digest)


def _host(text: str) -> str:
    """Hosts are the same in capitals; a capital alone makes a word a host, which a small one would not be."""
    lower = text.lower()
    if lower in {DOCKER_IO, "index.docker.io"}:
        return DOCKER_IO
    return lower if "." in lower or ":" in lower or lower == "localhost" else text


def split(reference: str) -> tuple[str, str]:
    """A reference as the pull call wants it: name, and tag or digest (latest when there is none: never all tags)."""
    if "@" in reference:
        name, _, digest = reference.partition("@")
        return name.rpartition(":")[0] if ":" in name.rpartition("/")[2] else name, digest
    name, _, tag = reference.rpartition(":")
    return (name, tag) if name and "/" not in tag else (reference, "latest")


def registry(reference: str) -> str:
    """Return the registry that an image comes from, as the configuration names it."""
    first, slash, _ = reference.partition("/")
    if (
        slash
        and ("." in first or ":" in first or first == "localhost")
        and first not in {"docker.io", "index.docker.io"}
    ):
        return first
    return HUB
