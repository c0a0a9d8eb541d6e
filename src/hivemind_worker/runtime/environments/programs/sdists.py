"""Source distributions as data: which an index has, stand-ins for what is not built yet, what a build would need.

Used by `fetcher`. Nothing of them runs here: a stand-in is a wheel without content by which uv may choose a version;
then the worker has that one built in a capsule, and the wheel takes the place of the stand-in.
"""

from __future__ import annotations

import html.parser
import io
import re
import tarfile
import zipfile
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

MAX_PAGE = 64 * 1024 * 1024
MAX_PROJECT = 1024 * 1024
MAX_PACKED = 512 * 1024 * 1024
MAX_STANDINS = 2_000

_VERSION = re.compile(r"[0-9][A-Za-z0-9.!+]{0,99}", re.ASCII)
_SHA256 = re.compile(r"sha256=([0-9a-f]{64})", re.ASCII)


class Links(html.parser.HTMLParser):
    """The addresses of a simple page."""

    def __init__(self, base: str) -> None:
        super().__init__()
        self._base = base
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember where a link leads, unless the file was withdrawn."""
        fields = dict(attrs)
        if tag == "a" and fields.get("href") and "data-yanked" not in fields:
            self.found.append(urljoin(self._base, str(fields["href"])))


def offered(page: IO[bytes], base: str, name: str) -> dict[str, tuple[str, str]]:
    """The source distributions of a project on its simple page: version → address and sha256 (empty: none is given)."""
    links = Links(base)
    links.feed(page.read(MAX_PAGE).decode("utf-8", "replace"))
    found = {}
    for link in links.found[:100_000]:
        url, fragment = urldefrag(link)
        file = unquote(urlsplit(url).path.rpartition("/")[2])
        project, _, version = file.removesuffix(".tar.gz").rpartition("-")
        if file.endswith(".tar.gz") and _plain(project) == _plain(name) and _VERSION.fullmatch(version):
            given = _SHA256.search(fragment)
            found[version.lower()] = (url, given[1] if given else "")
    return dict(list(found.items())[-MAX_STANDINS:])


def stand_in(folder: Path, name: str, version: str) -> str:
    """Write a wheel without content; its file name."""
    project = re.sub(r"[-_.]+", "_", name)
    file = f"{project}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(folder / file, "w") as wheel:
        about = f"{project}-{version}.dist-info"
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    return file


def project(file: Path) -> str:
    """The text of its pyproject.toml, empty where it has none. Raises ValueError where it is no source distribution."""
    try:
        with tarfile.open(file, "r|gz") as packed:
            for entry in packed:
                if packed.offset > MAX_PACKED:
                    raise ValueError("it unpacks to more than 512 MiB")
                if entry.isreg() and re.fullmatch(r"[^/]+/pyproject\.toml", entry.name):
                    content = packed.extractfile(entry) or io.BytesIO()
                    return content.read(MAX_PROJECT).decode("utf-8", "replace")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(str(error)) from None
    return ""


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
