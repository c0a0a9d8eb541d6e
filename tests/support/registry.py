"""A real registry on this machine, images made by hand in it, and a proxy before it that breaks what a test wants."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import hashlib
import io
import json
import os
import platform
import re
import subprocess
import tarfile
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import aiohttp.web
import pytest
import system_packages
import test_network
import waiting

MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
MANIFESTS = "application/vnd.docker.distribution.manifest.list.v2+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
CONFIG = "application/vnd.docker.container.image.v1+json"

SETTINGS = """\
version: 0.1
log: {{level: info, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {folder}}}}}
http: {{addr: "{address}:0"}}
"""


def need() -> None:
    """Have the registry's program, or skip, loudly."""
    if system_packages.install({"docker-registry": "docker-registry"}, "tests of pulls"):
        pytest.skip("needs docker-registry (Debian's package of that name): the tests of pulls do NOT run")


@contextlib.contextmanager
def serving(folder: Path, engine: str) -> Iterator[str]:
    """A registry that keeps its images in the folder, for this engine; its host:port."""
    address = test_network.host_of(engine)
    settings, log = folder / "config.yml", folder / "log"
    settings.write_text(SETTINGS.format(folder=folder / "data", address=address))
    with log.open("wb") as out:
        process = subprocess.Popen(
            [system_packages.program("docker-registry") or "docker-registry", "serve", settings],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={"PATH": os.environ["PATH"]},
        )  # fmt: skip
    try:

        def listens() -> str | None:
            assert process.poll() is None, log.read_text()
            said = re.search(rf"listening on ({re.escape(address)}:\d+)", log.read_text())
            return said[1] if said else None

        found = waiting.wait_for(listens, description="the registry listens", seconds=20)
        assert found is not None
        yield found
    finally:
        process.terminate()
        process.wait()


@dataclass(frozen=True)
class Image:
    """What was put there."""

    name: str
    digest: str
    layers: tuple[str, ...]


def put(host: str, name: str, *, machine: str = MACHINE, layers: int = 2, size: int = 100_000) -> Image:
    """Make a small image that can run a shell, with layers of random bytes, and put it into the registry.

    With a machine of which nobody has one, that is said by a list of manifests: as registries of large projects do.
    """
    blobs = [_layer({"bin/busybox": Path("/bin/busybox").read_bytes()}, {"bin/sh": "busybox", "bin/cat": "busybox"})]
    blobs += [_layer({f"data/{at}": os.urandom(size)}, {}) for at in range(layers - 1)]
    diffs = [f"sha256:{hashlib.sha256(gzip.decompress(blob)).hexdigest()}" for blob in blobs]
    config = json.dumps({
        "architecture": machine, "os": "linux", "config": {"Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": diffs}, "history": [{"created_by": "test"} for _ in blobs],
    }).encode()  # fmt: skip
    digests = [_upload(host, name, blob) for blob in blobs]
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "size": len(config), "digest": _upload(host, name, config)},
        "layers": [
            {"mediaType": LAYER, "size": len(blob), "digest": digest}
            for blob, digest in zip(blobs, digests, strict=True)
        ],
    }
    return Image(f"{host}/{name}:1", _put_manifest(host, name, "1", manifest), tuple(digests))


def put_list(host: str, name: str, one: Image, machine: str) -> str:
    """Put a list that offers this image for one sort of machine only; its name."""
    size = len(_get(f"http://{host}/v2/{name}/manifests/1"))
    entry = {
        "mediaType": MANIFEST,
        "size": size,
        "digest": one.digest,
        "platform": {"architecture": machine, "os": "linux"},
    }
    _put_manifest(host, name, "list", {"schemaVersion": 2, "mediaType": MANIFESTS, "manifests": [entry]})
    return f"{host}/{name}:list"


def _layer(files: dict[str, bytes], links: dict[str, str]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
        for path, target in links.items():
            entry = tarfile.TarInfo(path)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    return gzip.compress(made.getvalue(), 1)


def _upload(host: str, name: str, blob: bytes) -> str:
    digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
    with _ask("POST", f"http://{host}/v2/{name}/blobs/uploads/") as answer:
        place = answer.headers["Location"]
    url = place if place.startswith("http") else f"http://{host}{place}"
    with _ask("PUT", f"{url}&digest={digest}", blob, "application/octet-stream"):
        return digest


def _put_manifest(host: str, name: str, tag: str, said: dict[str, object]) -> str:
    body = json.dumps(said).encode()
    with _ask("PUT", f"http://{host}/v2/{name}/manifests/{tag}", body, str(said["mediaType"])):
        return f"sha256:{hashlib.sha256(body).hexdigest()}"


def _get(url: str) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": MANIFEST})) as answer:
        return bytes(answer.read())


def _ask(method: str, url: str, body: bytes | None = None, kind: str = "") -> Any:
    headers = {"Content-Type": kind} if kind else {}
    return urllib.request.urlopen(urllib.request.Request(url, data=body, headers=headers, method=method))


@dataclass
class Faults:
    """What goes wrong between engine and registry, for paths that hold a word. `asked` counts, `times` bounds.

    `status`: that answer instead. `broken_after`: the line breaks after so many bytes. `held_after`: nothing more comes
    after so many bytes until `released`. `credentials`: who does not bring them is turned away.
    """

    host: str = ""
    word: str = ""
    times: int = 1_000_000
    status: int = 0
    broken_after: int = -1
    held_after: int = -1
    credentials: str = ""
    asked: list[str] = field(default_factory=list)
    met: int = 0
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def hits(self, path: str) -> bool:
        """Whether this request is one of those; counts it."""
        hit = bool(self.word) and self.word in path and self.met < self.times
        self.met += hit
        return hit

    def blobs(self) -> list[str]:
        """The digests of what was fetched, in order."""
        return [path.rpartition("/")[2] for path in self.asked if "/blobs/" in path]


@contextlib.asynccontextmanager
async def before(registry: str) -> AsyncIterator[Faults]:
    """A port before the registry; images are named by its host:port."""
    faults = Faults()
    session = aiohttp.ClientSession(auto_decompress=False)

    async def answer(request: aiohttp.web.Request) -> aiohttp.web.StreamResponse:
        faults.asked.append(request.path)
        wanted = "Basic " + base64.b64encode(faults.credentials.encode()).decode()
        if faults.credentials and request.headers.get("Authorization") != wanted:
            asks = {"WWW-Authenticate": 'Basic realm="test"', "Docker-Distribution-Api-Version": "registry/2.0"}
            return aiohttp.web.Response(status=401, headers=asks)
        hit = faults.hits(request.path)
        if hit and faults.status:
            return aiohttp.web.Response(status=faults.status)
        # Pairs, not a mapping: an engine names each form that it accepts in a header of its own.
        headers = [(name, value) for name, value in request.headers.items() if name not in {"Host", "Authorization"}]
        async with session.request(request.method, f"http://{registry}{request.path_qs}", headers=headers) as there:
            kept = (
                "Content-Type",
                "Content-Length",
                "Content-Range",
                "Docker-Content-Digest",
                "Docker-Distribution-Api-Version",
            )
            back = aiohttp.web.StreamResponse(
                status=there.status, headers={name: there.headers[name] for name in kept if name in there.headers}
            )
            await back.prepare(request)
            sent = 0
            async for piece in there.content.iter_chunked(16_384):
                if hit and 0 <= faults.broken_after <= sent:
                    assert request.transport is not None
                    request.transport.abort()
                    return back
                if hit and 0 <= faults.held_after <= sent and not faults.released.is_set():
                    await faults.released.wait()
                try:
                    await back.write(piece)
                except ConnectionError:  # the engine has hung up
                    return back
                sent += len(piece)
            return back

    app = aiohttp.web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = aiohttp.web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    site = aiohttp.web.TCPSite(runner, registry.partition(":")[0], 0)
    await site.start()
    faults.host = "{}:{}".format(*runner.addresses[0][:2])
    try:
        yield faults
    finally:
        faults.released.set()
        await runner.cleanup()
        await session.close()
