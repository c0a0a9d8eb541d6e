"""An image of our own, in which our own programs run: no file of anybody else is in it. Imported, from no registry.

Used by `executors.trial` and by whatever tries the defences of an engine (`Images.ensure` finds it by its reference).
"""

from __future__ import annotations

import functools
import hashlib
import io
import tarfile
from collections.abc import Mapping
from typing import Any, Final

from hivemind_worker import errors
from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.runtime.docker import hardening

REFERENCE: Final = "OWN"
"""What a plan names to have it: no task can, since references of images are in lower case."""

NAME: Final = "hivemind-own"
TAG: Final = "1"
ROLE: Final = "own-image"

_NOTE: Final = (
    b"An image of HiveMind Worker, in which it tries what fences tasks. It is made again when it is missing.\n"
)


async def ensure(engine: engines.Engine, name: str = NAME) -> hardening.Image:
    """Return the image, imported where it is missing or holds anything else.

    Raises EngineLost, engine.Refused; NodeFault where the engine does not hold what it was given.
    """
    image = await _inspect(engine, name)
    if image is None or not is_ours(image):
        await import_image(engine, name, TAG, archive(), f"LABEL {hardening.ROLE_LABEL}={ROLE}")
        image = await _inspect(engine, name)
    if image is None or not is_ours(image):
        raise errors.NodeFault(
            f"the container engine did not keep the image {name}:{TAG} as it was given: look whether its disk is full, "
            "and whether something stands between it and the worker"
        )
    return hardening.Image(image["Id"], image["Id"], str(image.get("Architecture", "")), environment={})


async def import_image(engine: engines.Engine, name: str, tag: str, tar: bytes, change: str) -> None:
    """Make an image of an uncompressed tar and one line of a Dockerfile. Look at it to see whether it was made."""
    query = {"fromSrc": "-", "repo": name, "tag": tag, "changes": change}
    await engine._empty("import an image", "images/create", "POST", params=query, data=io.BytesIO(tar))  # noqa: SLF001 - nobody else imports any


def is_ours(image: Mapping[str, Any]) -> bool:
    """Whether what `docker inspect` says of an image is ours: one layer, of our archive, and no configuration. Pure."""
    config = image.get("Config") or {}
    labels = config.get("Labels") or {}
    layers = (image.get("RootFS") or {}).get("Layers")
    is_plain = not any(config.get(key) for key in ("Volumes", "Env", "Entrypoint", "User", "OnBuild", "Healthcheck"))
    return is_plain and labels.get(hardening.ROLE_LABEL) == ROLE and layers == [_layer()]


@functools.cache
def archive() -> bytes:
    """The image's only layer: a note of what it is."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        entry = tarfile.TarInfo("hivemind-own-image")
        entry.size, entry.mode = len(_NOTE), 0o444
        tar.addfile(entry, io.BytesIO(_NOTE))
    return content.getvalue()


def _layer() -> str:
    return f"sha256:{hashlib.sha256(archive()).hexdigest()}"


async def _inspect(engine: engines.Engine, name: str) -> Mapping[str, Any] | None:
    try:
        return await engine.image(f"{name}:{TAG}")
    except engines.NotThere:
        return None
