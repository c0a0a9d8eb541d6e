"""What settings are made of: the types of their values, each with its check, and the group they stand in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

import pydantic
from pydantic import ByteSize, Field

from hivemind_worker import image_names

# What file systems, container labels and URLs all take as it is.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
# host:port, with IPv6 in brackets; or what gRPC resolves itself.
_HOST_PORT = re.compile(r"(?:[^\s/:\[\]]+|\[[0-9A-Fa-f:.%]+\]):(\d{1,5})")
_RESOLVED = re.compile(r"(?:dns|ipv4|ipv6|unix|unix-abstract):\S+")
_URL = re.compile(r"https?://\S+")
_PATH_URL = re.compile(r"[a-z][a-z0-9+.-]+:(?=/)|(?:sqlite|file):", re.IGNORECASE)
_IMAGE_PATTERN = re.compile(
    r"sha256:[0-9a-f]{64}|(?!sha256:|.*//)[A-Za-z0-9*][A-Za-z0-9_.:/*-]{0,500}(?:@sha256:[0-9a-f]{64})?", re.ASCII
)
_REGISTRY = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](?::[0-9]{1,5})?", re.ASCII
)
_ENGINE = re.compile(r"(?:unix|tcp|http|https|npipe)://\S+")


def name(text: str) -> str:
    """Require a plain name, or nothing."""
    if text and not _NAME.fullmatch(text):
        raise ValueError(
            "a name has letters, digits and . _ - only, begins with a letter or digit, and is at most 64 long"
        )
    return text


def address(text: str) -> str:
    """Require host:port, or what gRPC resolves itself."""
    found = _HOST_PORT.fullmatch(text)
    if not (found and int(found[1]) <= 65535) and not _RESOLVED.fullmatch(text):
        raise ValueError("write host:port, such as localhost:50051 or [::1]:50051")
    return text


def no_url(given: Any) -> Any:
    """Require a path: a URL would silently become a folder named after its scheme."""
    if isinstance(given, str) and (scheme := _PATH_URL.match(given)):
        rest = given[scheme.end() :].lstrip("/")
        raise ValueError(f"this is a URL; write a path, such as /{rest or 'path/to/it'}")
    return given


def engine(text: str) -> str:
    """Require an engine's address, or nothing."""
    if text and not _ENGINE.fullmatch(text):
        raise ValueError("write unix:///path/to/socket or tcp://host:port")
    return text


def image(text: str) -> str:
    """Require an image reference."""
    if not image_names.is_reference(text):
        raise ValueError("write an image reference, such as python:3.11-slim")
    return text


def image_pattern(text: str) -> str:
    """Require a pattern of images, or the digest of one."""
    if _IMAGE_PATTERN.fullmatch(text) is None:
        raise ValueError("write an image, such as team/app:1, a pattern, such as team/*, or sha256: with its 64 digits")
    return text


def registry(text: str) -> str:
    """Require the host of a registry, with its port if it has one, or `public`."""
    if _REGISTRY.fullmatch(text) is None:
        raise ValueError("write the host of a registry, such as ghcr.io or registry.example:5000, or public")
    return text


def pairs(given: Any) -> Any:
    """NAME=VALUE pairs from one text with commas, or from a flag given several times; a mapping as it is."""
    if not isinstance(given, (str, list, tuple)):
        return given
    texts = given.split(",") if isinstance(given, str) else [str(each) for each in given]
    parted = [text.partition("=") for text in texts if text.strip()]
    if not all(sign and name.strip() for name, sign, _ in parted):
        raise ValueError("write NAME=VALUE, several parted by commas")
    return {name.strip(): value.strip() for name, _, value in parted}


def place(path: Path) -> Path:
    """Return an absolute path, with ~ for a home folder. Raises ValueError for the home of a user that there is not."""
    try:
        return path.expanduser().absolute()
    except RuntimeError:
        raise ValueError(f"{path}: there is no such user, or no home folder of theirs") from None


Seconds = Annotated[float, Field(gt=0, le=365 * 86400, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Size = Annotated[ByteSize, Field(gt=0)]
Place = Annotated[Path, pydantic.BeforeValidator(no_url), pydantic.AfterValidator(place)]
Name = Annotated[str, pydantic.AfterValidator(name)]
Address = Annotated[str, pydantic.AfterValidator(address)]
Labels = Annotated[dict[Name, Annotated[str, Field(max_length=256)]], pydantic.BeforeValidator(pairs)]
Image = Annotated[str, pydantic.AfterValidator(image)]
Percent = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]


def several(given: Any) -> Any:
    """Several texts from one with commas or spaces, or from a flag given several times; a list as it is."""
    if isinstance(given, str):
        return tuple(part for part in re.split(r"[,\s]+", given) if part)
    return given


Names = Annotated[tuple[Name, ...], pydantic.BeforeValidator(several)]
Images = Annotated[tuple[Image, ...], pydantic.BeforeValidator(several)]


ImagePatterns = Annotated[
    tuple[Annotated[str, pydantic.AfterValidator(image_pattern)], ...], pydantic.BeforeValidator(several)
]
Registries = Annotated[tuple[Annotated[str, pydantic.AfterValidator(registry)], ...], pydantic.BeforeValidator(several)]


def url(text: str) -> str:
    """Require an http or https address, or nothing."""
    if text and not _URL.fullmatch(text):
        raise ValueError("write http://… or https://…")
    return text


Url = Annotated[str, pydantic.AfterValidator(url)]


LIVE: Final[dict[str, pydantic.JsonValue]] = {"live": True}
"""Marks a setting that a running service takes over when it reads its settings anew (SIGHUP)."""


class Group(pydantic.BaseModel):
    """Settings that belong together. Frozen; unknown names are refused. `reference` reads the texts below fields."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True)
    prefix: ClassVar[str] = ""
