"""Images that an engine takes and no capsule starts in, or an odd one: each a few bytes, made without a registry."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import tarfile
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.runtime.docker import own_image


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What an image holds: a shell, ``files``, ``links``, ``folders``, ``pipes``; ``change`` is a Dockerfile line."""

    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    links: Mapping[str, str] = dataclasses.field(default_factory=dict)
    folders: Sequence[str] = ()
    pipes: Sequence[str] = ()
    change: str = "LABEL odd=1"


BROKEN: Mapping[str, Recipe] = {
    "volume-proc": Recipe(change="VOLUME /proc"),
    "volume-dev": Recipe(change="VOLUME /dev"),
    "volume-root": Recipe(change="VOLUME /"),
    "volume-shm": Recipe(change="VOLUME /dev/shm"),
    "volume-proc-otherwise": Recipe(change="VOLUME //proc/../proc/"),
    "tmp-is-a-link": Recipe(links={"tmp": "/proc/self"}),
    "tmp-is-a-file": Recipe(files={"tmp": b"x"}),
    "workspace-is-a-link": Recipe(links={"workspace": "/proc"}),
    "workspace-is-a-file": Recipe(files={"workspace": b"x"}),
    "hivemind-is-a-link": Recipe(links={".hivemind": "/proc/1"}),
    "hivemind-is-a-file": Recipe(files={".hivemind": b"x"}),
    "run-is-a-link": Recipe(links={"run": "/.hivemind"}),
    "passwd-is-a-folder": Recipe(folders=("etc", "etc/passwd")),
    "passwd-is-a-pipe": Recipe(folders=("etc",), pipes=("etc/passwd",)),
    "group-leads-to-a-pipe": Recipe(folders=("etc",), links={"etc/group": "../p"}, pipes=("p",)),
    "passwd-is-too-large": Recipe(folders=("etc",), files={"etc/passwd": bytes(5 << 20)}),
    "a-loop-of-links": Recipe(links={"tmp": "/workspace", "workspace": "/tmp"}),
}
"""Seen on Docker 20.10: none of these starts."""

ODD: Mapping[str, Recipe] = {
    "volume-sys": Recipe(change="VOLUME /sys"),
    "passwd-leads-nowhere": Recipe(folders=("etc",), links={"etc/passwd": "/no/such", "etc/group": "/bin/sh"}),
    "proc-is-a-file": Recipe(files={"proc": b"x"}),
    "dev-is-a-link": Recipe(links={"dev": "/etc"}, folders=("etc",)),
    "user-nobody-knows": Recipe(change="USER nonsense:what"),
    "workdir-is-a-file": Recipe(change="WORKDIR /bin/sh"),
    "entrypoint-nothing": Recipe(change='ENTRYPOINT ["/no/such"]'),
    "many-volumes": Recipe(change="VOLUME " + json.dumps([f"/v{number}" for number in range(127)])),
    "large-environment": Recipe(change=f"ENV LARGE={'x' * 60_000}"),
}
"""Odd, and a task runs in them all the same."""


def archive(recipe: Recipe) -> bytes:
    """Return the image's only layer."""
    shell = Path("/bin/busybox").read_bytes()
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name in recipe.folders:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name, data in {"bin/sh": shell, **recipe.files}.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o755
            tar.addfile(entry, io.BytesIO(data))
        for name in recipe.pipes:
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.FIFOTYPE
            tar.addfile(entry)
        for name, target in recipe.links.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    return content.getvalue()


@contextlib.asynccontextmanager
async def made(url: str, recipes: Mapping[str, Recipe]) -> AsyncIterator[Mapping[str, str]]:
    """The references of these images, by the name of the recipe; they are removed at the end."""
    engine, tag = engines.Engine(url), uuid.uuid4().hex[:8]
    await engine.connect()
    names = {name: f"hivemind-test/odd-{name}" for name in recipes}
    try:
        for name, recipe in recipes.items():
            await own_image.import_image(engine, names[name], tag, archive(recipe), recipe.change)
        yield {name: f"{repository}:{tag}" for name, repository in names.items()}
    finally:
        for repository in names.values():
            await engine.remove_image(f"{repository}:{tag}")
        await engine.close()
