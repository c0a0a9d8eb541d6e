"""A wheel → files of an environment: checked as a whole, then written. Runs nothing of it. Standard library only.

Used by `fetcher` in its own process. Whoever made the wheel may lie in all of it: in the names and kinds of its
entries, their sizes, its RECORD, its entry points, what it says that it is.
"""

from __future__ import annotations

import base64
import configparser
import hashlib
import io
import os
import re
import stat
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO

MAX_ENTRIES = 200_000
MAX_TEXT = 16 * 1024 * 1024
MAX_DEPTH = 40
MAX_NAME = 255
PYTHON = "/opt/hivemind/environment/bin/python3"

_PIECE = 1024 * 1024
_BROKEN = (
    zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, struct.error, UnicodeError, ValueError
)  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}", re.ASCII)
_COMMAND = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}", re.ASCII)
_OBJECT = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)\s*:\s*([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)\s*(?:\[.*\])?")
_OURS = re.compile(r"(?:bin/python[0-9.t]*|pyvenv\.cfg|lib64)(?:/.*)?|bin|lib", re.ASCII | re.DOTALL)
_COMMAND_TEXT = """#!{python}
import sys
from {module} import {first}
if __name__ == "__main__":
    sys.exit({call}())
"""


class BadWheel(Exception):
    """The wheel is none, or one that means harm; says why."""


class TooLarge(Exception):
    """It holds more than it may; `args[0]` says how many bytes at least."""


class Budget:
    """What may still be written, in bytes and files, by all wheels of one environment."""

    def __init__(self, size: int, files: int) -> None:
        self.size, self.files = size, files
        self._left = size

    def file(self) -> None:
        """One file more. Raises BadWheel."""
        self.files -= 1
        if self.files < 0:
            raise BadWheel("the environment would have too many files")

    def take(self, count: int) -> None:
        """So many bytes more. Raises TooLarge."""
        self._left -= count
        if self._left < 0:
            raise TooLarge(self.size - self._left)


class Tree:
    """The folder of one environment, and which wheel has brought which of its files."""

    def __init__(self, root: Path, python: str, budget: Budget) -> None:
        """`python`: the name of the folder of its site-packages."""
        self.root, self.budget = root, budget
        self.site = f"lib/{python}/site-packages"
        self.headers = f"include/site/{python}"
        self.owners: dict[str, str] = {}
        self.clashes: list[str] = []
        self._folders: set[str] = set()

    def finish(self, executable: str, version: str, *, inherit: bool) -> None:
        """Make it an environment: links to the Python, and where that has its library. Last: no link lies in the way.

        `inherit`: the packages of the Python itself are seen as well.
        """
        for folder in ("bin", self.site):
            self._make(folder)
        minor = ".".join(version.split(".")[:2])
        for name, target in (("python3", executable), ("python", "python3"), (f"python{minor}", "python3")):
            (self.root / "bin" / name).symlink_to(target)
        (self.root / "lib64").symlink_to("lib")
        home = executable.rpartition("/")[0] or "/"
        shown = "true" if inherit else "false"
        text = f"home = {home}\ninclude-system-site-packages = {shown}\nversion = {version}\n"
        (self.root / "pyvenv.cfg").write_text(text, encoding="utf-8")

    def write(self, path: str, content: IO[bytes], owner: str, *, executable: bool = False) -> str:
        """Write one file; its sum and size as a RECORD has them, empty where another wheel has brought it already."""
        if _OURS.fullmatch(path):
            raise BadWheel(f"it would write over {path}, which is the environment's own")
        if path in self.owners:
            self.clashes.append(f"{path} of {owner} is left out: {self.owners[path]} has brought it")
            return ""
        self.budget.file()
        self._make(path.rpartition("/")[0])
        digest, size = hashlib.sha256(), 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            target = os.open(self.root / path, flags, 0o755 if executable else 0o644)
        except (FileExistsError, IsADirectoryError, NotADirectoryError):
            raise BadWheel(f"{path} is a file and a folder at once") from None
        with os.fdopen(target, "wb") as file:
            while piece := content.read(_PIECE):
                self.budget.take(len(piece))
                digest.update(piece)
                size += len(piece)
                file.write(piece)
        self.owners[path] = owner
        return f"sha256={base64.urlsafe_b64encode(digest.digest()).rstrip(b'=').decode()},{size}"

    def _make(self, folder: str) -> None:
        if folder in self._folders:
            return
        try:
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise BadWheel(f"{folder} is a file and a folder at once") from None
        self._folders.add(folder)


def unpack(file: IO[bytes], name: str, version: str, tree: Tree) -> None:
    """Check the wheel of this project, then write its files. Raises BadWheel, TooLarge, OSError."""
    try:
        if _entries(file) > MAX_ENTRIES:
            raise BadWheel(f"it has more than {MAX_ENTRIES} entries")
        with zipfile.ZipFile(file) as archive:
            entries = {_path(entry): entry for entry in archive.infolist() if not entry.is_dir()}
            if len(entries) != sum(not entry.is_dir() for entry in archive.infolist()):
                raise BadWheel("it has two entries of one name")
            folder = _about(archive, entries, name, version)
            _write(archive, entries, folder, f"{name}=={version}", tree)
    except _BROKEN as error:
        raise BadWheel(f"it cannot be unpacked: {error}") from None


def _entries(file: IO[bytes]) -> int:
    """How many entries a zip says that it has, before anything is made of them."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 65_557))
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or at + 22 > len(tail):
        raise BadWheel("it is no zip file")
    count, length = struct.unpack_from("<HL", tail, at + 10)
    # Beyond 65,534 entries the count stands elsewhere; an entry takes 46 bytes of the directory and its name.
    return MAX_ENTRIES + 1 if length > MAX_ENTRIES * 46 * 2 else int(count)


def _path(entry: zipfile.ZipInfo) -> str:
    """The name of an entry, a plain relative path of an ordinary file. Raises BadWheel."""
    name = entry.orig_filename
    parts = name.split("/")
    if entry.is_dir():
        parts.pop()
    if (
        any(part in {"", ".", ".."} or len(part.encode()) > MAX_NAME for part in parts)
        or len(parts) > MAX_DEPTH
        or re.search(r"[\x00-\x1f\x7f\\]", name)
        or re.match(r"[A-Za-z]:", name)
        or name != entry.filename
    ):
        raise BadWheel(f"the name of its entry {name[:100]!r} is no plain relative path")
    if stat.S_IFMT(entry.external_attr >> 16) not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise BadWheel(f"its entry {name[:100]!r} is no ordinary file")
    if entry.flag_bits & 0x1:
        raise BadWheel(f"its entry {name[:100]!r} is encrypted")
    if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise BadWheel(f"its entry {name[:100]!r} is packed in a way that wheels do not use")
    return name


def _about(archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], name: str, version: str) -> str:
    """The folder in which it says what it is, which must be what was asked for. Raises BadWheel."""
    folders = {path.split("/")[0] for path in entries if path.split("/")[0].endswith(".dist-info") and "/" in path}
    if len(folders) != 1:
        raise BadWheel(f"it has {len(folders)} folders that say what it is, not one")
    folder = folders.pop()
    project, _, release = folder[: -len(".dist-info")].partition("-")
    if _plain(project) != _plain(name) or _release(release) != _release(version):
        raise BadWheel(f"it was offered as {name} {version}, and its folder is {folder[:100]!r}")
    fields = _headers(_text(archive, entries, f"{folder}/METADATA"))
    if _plain(fields.get("name", "")) != _plain(name) or _release(fields.get("version", "")) != _release(version):
        found = f"{fields.get('name', '')[:60]!r} {fields.get('version', '')[:60]!r}"
        raise BadWheel(f"it was offered as {name} {version}, and says that it is {found}")
    if not _headers(_text(archive, entries, f"{folder}/WHEEL")).get("wheel-version", "").startswith("1."):
        raise BadWheel("it is of another version of the format")
    return folder


def _write(archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], folder: str, owner: str, tree: Tree) -> None:
    data = folder[: -len(".dist-info")] + ".data"
    rows = []
    for path, entry in entries.items():
        if path in {f"{folder}/{name}" for name in ("RECORD", "RECORD.jws", "RECORD.p7s", "INSTALLER")}:
            continue  # what it says of its own files: ours is written from what they are
        place = _place(path, data, owner, tree)
        script = place.startswith("bin/")
        with archive.open(entry) as content:
            wrapped = _Script(content) if script else content
            row = tree.write(place, wrapped, owner, executable=script or bool(entry.external_attr >> 16 & 0o111))  # type: ignore[arg-type]
        rows.append((place, row))
    if f"{folder}/entry_points.txt" in entries:
        for place, text in _commands(_text(archive, entries, f"{folder}/entry_points.txt")):
            rows.append((place, tree.write(place, _bytes(text), owner, executable=True)))
    place = f"{tree.site}/{folder}/INSTALLER"
    rows.append((place, tree.write(place, _bytes("hivemind\n"), owner)))
    up = "../" * (tree.site.count("/") + 1)
    record = f"{tree.site}/{folder}/RECORD"
    lines = [f"{_relative(place, tree.site, up)},{row}" for place, row in rows if row]
    tree.write(record, _bytes("\n".join([*lines, f"{folder}/RECORD,,", ""])), owner)


def _place(path: str, data: str, owner: str, tree: Tree) -> str:
    """Where a file of a wheel goes in the environment."""
    if not path.startswith(f"{data}/"):
        return f"{tree.site}/{path}"
    scheme, _, rest = path[len(data) + 1 :].partition("/")
    folders = {
        "purelib": f"{tree.site}/",
        "platlib": f"{tree.site}/",
        "scripts": "bin/",
        "data": "",
        "headers": f"{tree.headers}/{owner.partition('==')[0]}/",
    }
    if scheme not in folders or not rest:
        raise BadWheel(f"its entry {path[:100]!r} is for no place that an environment has")
    return f"{folders[scheme]}{rest}"


def _commands(text: str) -> list[tuple[str, str]]:
    """The programs that its entry points make: place and text."""
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise BadWheel(f"its entry points cannot be read: {str(error).splitlines()[0]}") from None
    made = []
    for section in ("console_scripts", "gui_scripts"):
        for command, value in parser.items(section) if parser.has_section(section) else ():
            called = _OBJECT.fullmatch(value.strip())
            if called is None or not _COMMAND.fullmatch(command):
                raise BadWheel(f"its entry point {command[:60]!r} = {value[:60]!r} is no program of it")
            first = called[2].partition(".")[0]
            text = _COMMAND_TEXT.format(python=PYTHON, module=called[1], first=first, call=called[2])
            made.append((f"bin/{command}", text))
    return made


class _Script:
    """A program of a wheel as it is read: its first line names the environment's Python."""

    def __init__(self, content: IO[bytes]) -> None:
        self._content, self._first = content, True

    def read(self, count: int) -> bytes:
        piece = self._content.read(count)
        if self._first:
            self._first = False
            if named := re.match(rb"#!pythonw?(?=[ \r\n])", piece):
                piece = b"#!" + PYTHON.encode() + piece[named.end() :]
        return piece


def _bytes(text: str) -> IO[bytes]:
    return io.BytesIO(text.encode())


def _text(archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], path: str) -> str:
    if path not in entries:
        raise BadWheel(f"it lacks {path[:100]}")
    with archive.open(entries[path]) as file:
        content = file.read(MAX_TEXT + 1)
    if len(content) > MAX_TEXT:
        raise BadWheel(f"{path[:100]} is larger than {MAX_TEXT} bytes")
    return content.decode("utf-8", "replace")


def _headers(text: str) -> dict[str, str]:
    """The fields before the first empty line, by their names in small letters; the first of each."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip():
            break
        name, colon, value = line.partition(":")
        if colon and not line[0].isspace():
            fields.setdefault(name.strip().lower(), value.strip())
    return fields


def _relative(place: str, site: str, up: str) -> str:
    path = place[len(site) + 1 :] if place.startswith(f"{site}/") else f"{up}{place}"
    return f'"{path}"' if "," in path else path


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _release(version: str) -> str:
    """A version in one spelling, as far as wheels spell one in several ways."""
    spelled = re.sub(r"[-_+]", ".", version.strip().lower().lstrip("v"))
    parts = [re.sub(r"^0+(?=\d)", "", part) for part in spelled.split(".")]
    while len(parts) > 1 and parts[-1] == "0":
        parts.pop()
    return ".".join(parts)
