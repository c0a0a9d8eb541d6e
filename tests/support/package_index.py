"""A package index of a test's own, on this machine: hand-made wheels, every request counted, slow or silent at will."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import io
import ipaddress
import ssl
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import engine_api
import test_network


@dataclass
class Index:
    """What is offered: file name → bytes. `asked` are the paths in order. While `silent` is set nothing is answered."""

    port: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    about: dict[str, bytes] = field(default_factory=dict)
    forged: dict[str, bytes] = field(default_factory=dict)
    """What is sent in place of a file, whose sum stays that of the right one."""
    asked: list[str] = field(default_factory=list)
    credentials: str = ""
    silent: bool = False
    released: threading.Event = field(default_factory=threading.Event)

    def offer(self, name: str, version: str, *needs: str, source: str = "", size: int = 0, pth: str = "") -> None:
        """Offer a wheel whose module is called as it is, with `source`, `size` bytes of ballast, a .pth file's line."""
        module = name.replace("-", "_")
        needed = "".join(f"Requires-Dist: {each}\n" for each in needs)
        about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needed}"
        found = {
            f"{module}.py": (source or f"VERSION = {version!r}\n").encode(),
            f"{module}-{version}.dist-info/METADATA": about.encode(),
            f"{module}-{version}.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }  # fmt: skip
        if pth:
            found[f"{module}.pth"] = pth.encode()
        if size:
            found[f"{module}_ballast.bin"] = bytes(size)
        rows = [f"{path},sha256={_sum(content)},{len(content)}" for path, content in found.items()]
        record = f"{module}-{version}.dist-info/RECORD"
        found[record] = "\n".join([*rows, f"{record},,", ""]).encode()
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as wheel:
            for path, content in found.items():
                wheel.writestr(path, content)
        file = f"{module}-{version}-py3-none-any.whl"
        self.files[file] = packed.getvalue()
        self.about[f"{file}.metadata"] = found[f"{module}-{version}.dist-info/METADATA"]

    def offer_source(self, name: str, version: str, evil: str = "") -> None:
        """Offer a source distribution that brings its own build backend, so that building it needs no other package.

        `evil`: what the backend does besides, as it is imported.
        """
        module = name.replace("-", "_")
        top = f"{module}-{version}"
        project = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        built = Index()
        built.offer(name, version, source="BUILT = True\n")
        ((file, wheel),) = built.files.items()
        backend = (
            f"import base64, os\n{evil}\n"
            "def build_wheel(folder, config_settings=None, metadata_directory=None):\n"
            f"    with open(os.path.join(folder, {file!r}), 'wb') as made:\n"
            f"        made.write(base64.b64decode({base64.b64encode(wheel).decode()!r}))\n"
            f"    return {file!r}\n"
        )
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as tar:
            for path, text in (("pyproject.toml", project), ("backend.py", backend), ("PKG-INFO", about)):
                entry = tarfile.TarInfo(f"{top}/{path}")
                entry.size = len(text.encode())
                tar.addfile(entry, io.BytesIO(text.encode()))
        self.files[f"{top}.tar.gz"] = packed.getvalue()

    def downloads(self) -> list[str]:
        """The files that were fetched, in order."""
        return [path.rpartition("/")[2] for path in self.asked if path.endswith((".whl", ".tar.gz"))]


def seen_from_containers(engine: str) -> str:
    """The address of this machine for containers on the engine's own bridge."""
    if (host := test_network.host_of(engine)) != "127.0.0.1":
        return host
    (bridge,) = engine_api.get(engine, "/networks/bridge")["IPAM"]["Config"]
    return str(bridge.get("Gateway") or ipaddress.ip_network(bridge["Subnet"])[1])


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, as no folder of pytest's is: caches and wheels of sandboxes lie in such."""
    with tempfile.TemporaryDirectory(prefix="hivemind-test-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def _sum(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


@contextlib.contextmanager
def serving(certificate: Path | None = None) -> Iterator[Index]:
    """An empty index on all addresses of this machine; over TLS with a certificate and its key in one PEM file."""
    index = Index()

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            index.asked.append(self.path)
            if index.silent:
                index.released.wait(60)
            wanted = "Basic " + base64.b64encode(index.credentials.encode()).decode()
            if index.credentials and self.headers.get("Authorization") != wanted:
                self._send(401, b"who are you?")
                return
            # Whoever takes us for a proxy names the host as well; that is ours, whatever it is.
            *_, where, name = self.path.rstrip("/").split("/")
            if where == "files" and (content := index.files.get(name) or index.about.get(name)):
                self._send(200, index.forged.get(name, content), "application/octet-stream")
                return
            links = "".join(
                f'<a href="/files/{file}#sha256={hashlib.sha256(content).hexdigest()}"'
                f"{' data-core-metadata=true' if f'{file}.metadata' in index.about else ''}>{file}</a>\n"
                for file, content in index.files.items()
                if file.startswith((f"{name.replace('-', '_')}-", f"{name}-"))
            )
            self._send(200 if links else 404, links.encode())

        def _send(self, status: int, content: bytes, kind: str = "text/html") -> None:
            with contextlib.suppress(ConnectionError):
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Cache-Control", "max-age=0")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("0.0.0.0", 0), Answer)
    server.daemon_threads = False
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    index.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield index
    finally:
        index.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
