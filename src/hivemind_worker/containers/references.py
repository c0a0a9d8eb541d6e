"""Image references taken apart: which registry, which repository, which tag or digest. Pure."""

from __future__ import annotations

from typing import Final

HUB: Final = "https://index.docker.io/v1/"
"""What Docker Hub is called where logins are kept."""


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
