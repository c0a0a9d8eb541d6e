"""Which images tasks may run: what the owner listed, and what comes from registries that they may use. Pure.

An image that lies at the engine is nobody's to run only because it lies there: it may be the owner's own.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from hivemind_worker.runtime.docker import references
from hivemind_worker.settings import upkeep

PUBLIC: Final = "public"
"""Stands for every registry whose name the whole internet may have."""

_PRIVATE_ENDINGS: Final = (".local", ".localhost", ".internal", ".lan", ".home", ".corp", ".intranet", ".home.arpa")


@dataclass(frozen=True, slots=True)
class Rules:
    """What the owner allows.

    ``images``: patterns of images that may be run wherever they come from. ``registries``: those that may be pulled
    from without credentials, or `public`. ``logins``: those whose credentials tasks may use.
    """

    images: tuple[str, ...] = ()
    registries: tuple[str, ...] = (PUBLIC,)
    logins: tuple[str, ...] = ()

    def lists(self, reference: references.Reference, image_id: str, digests: Collection[str]) -> bool:
        """Whether the owner has listed an image by its name, its id or a digest.

        ``digests`` are those under which the engine has it, each `name@sha256:…` in full.
        """
        sums = {image_id, *(digest.rpartition("@")[2] for digest in digests)}
        return any(
            pattern in sums if pattern.startswith("sha256:") else _matches(pattern, reference, digests)
            for pattern in self.images
        )

    def may_login(self, registry: str) -> bool:
        """Whether tasks may use the owner's credentials for a registry."""
        return registry in map(_canonical_registry, self.logins)

    def pull_refusal(self, reference: references.Reference) -> str:
        """Return why tasks may not pull this, whose fault that is and what to do; empty where they may."""
        registry = reference.registry
        named = {_canonical_registry(each) for each in self.registries}
        if registry in named or self.may_login(registry) or self._names(reference):
            return ""
        if PUBLIC in named and is_public(registry):
            return ""
        return (
            f"image {reference} is not pulled: tasks on this node may not use the registry {registry}. Name an image "
            "of another one, choose a node by node_selector, or ask the node's owner to add it to image_registries"
        )

    def _names(self, reference: references.Reference) -> bool:
        return any(not each.startswith("sha256:") and _matches(each, reference, ()) for each in self.images)

    def describe(self) -> str:
        """Return in a line what is in force."""
        local = ", ".join(self.images) or "none"
        logins = ", ".join(self.logins) or "none"
        return f"of the owner's own: {local}; registries: {', '.join(self.registries) or 'none'}; logins used: {logins}"


def of(settings: upkeep.Images, default_image: str) -> Rules:
    """Return the rules of the settings. Images that these name for tasks count as listed."""
    named = (str(references.parse(name)) for name in (default_image, *settings.preload_images))
    return Rules((*map(pattern, settings.allowed_images), *named), settings.image_registries, settings.registry_logins)


def of_owner(settings: upkeep.Images, image: str) -> upkeep.Images:
    """Return the settings for a command whose task the owner of this machine runs: its image is theirs to run."""
    reference = references.parse(image)
    return settings.model_copy(
        update={
            "allowed_images": (*settings.allowed_images, str(reference)),
            "registry_logins": (*settings.registry_logins, reference.registry),
        }
    )


def refusal(reference: references.Reference, because: str) -> str:
    """Return what the submitter of a task is told whose image lies here and is not to be run."""
    return (
        f"image {reference} lies on this node, and tasks may not run it: it was not pulled for them, the node's owner "
        f"has not listed it (allowed_images), and {because}. Name an image of a registry, choose a node by "
        "node_selector, or ask the node's owner"
    )


def pattern(text: str) -> str:
    """Return a pattern of the settings in full, as references are compared.

    `*` stands for any characters but `/`, `**` for any; without a tag all tags are meant, and `*` alone is everything.
    """
    if text in {"*", "**"}:
        return "**"
    if text.startswith("sha256:"):
        return text
    first, slash, rest = text.partition("/")
    if not slash:
        return f"{references.DOCKER_IO}/library/{text}"
    if "." in first or ":" in first or first in {"localhost", "**"}:
        host = _canonical_registry(first)
        path = rest if host != references.DOCKER_IO or "/" in rest else f"library/{rest}"
        return f"{host}/{path}"
    return f"{references.DOCKER_IO}/{text}"


def is_public(registry: str) -> bool:
    """Whether a registry's name may be one of the internet: no address of a private network, no bare word."""
    host = registry.rpartition(":")[0] if re.search(r":[0-9]+$", registry) else registry
    try:
        return ipaddress.ip_address(host.strip("[]")).is_global
    except ValueError:
        # A number in another form is an address, too: 0x7f000001, 127.1.
        last = host.rstrip(".").rpartition(".")[2]
        return "." in host.strip(".") and not last[:1].isdigit() and not host.rstrip(".").endswith(_PRIVATE_ENDINGS)


def _canonical_registry(text: str) -> str:
    lower = text.lower()
    return references.DOCKER_IO if lower in {references.DOCKER_IO, "index.docker.io"} else lower


def _matches(pattern_: str, reference: references.Reference, digests: Collection[str]) -> bool:
    names = {str(reference), *(digest for digest in digests if digest.startswith(f"{reference.name}@"))}
    if "@" not in pattern_ and ":" not in pattern_.rpartition("/")[2]:
        names.add(reference.name)
    return any(_expression(pattern_).fullmatch(name) for name in names)


@functools.cache
def _expression(pattern_: str) -> re.Pattern[str]:
    parts = (".*" if part == "**" else "[^/]*" if part == "*" else re.escape(part)
             for part in re.split(r"(\*\*|\*)", pattern_))  # fmt: skip
    return re.compile("".join(parts))
