"""An unpacked environment as a tar, piece by piece: memory stays flat whatever its size.

Its files are ours: root's, readable for everyone, writable for nobody else, neither setuid nor a device among them.
"""

from __future__ import annotations

import asyncio
import os
import stat
import tarfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path, PurePosixPath
from typing import Final

_PIECE: Final = 1024 * 1024
_GATHERED: Final = 256 * 1024


async def pieces(folder: Path, place: PurePosixPath) -> AsyncIterator[bytes]:
    """The tar of `folder` that is unpacked at the root, with all of it under `place`. Raises OSError."""
    packed = _pieces(folder, place)
    while piece := await asyncio.to_thread(next, packed, b""):
        yield piece


def _pieces(folder: Path, place: PurePosixPath) -> Iterator[bytes]:
    gathered = bytearray()
    for piece in _entries(folder, place):
        gathered += piece
        if len(gathered) >= _GATHERED:
            yield bytes(gathered)
            gathered.clear()
    yield bytes(gathered + bytes(2 * tarfile.BLOCKSIZE))


def _entries(folder: Path, place: PurePosixPath) -> Iterator[bytes]:
    top = str(place).lstrip("/")
    for at, folders, files in os.walk(folder):
        inside = os.path.relpath(at, folder)
        here = top if inside == "." else f"{top}/{inside}"
        yield _entry(here, tarfile.DIRTYPE, Path(at).lstat(), 0o755).tobuf(tarfile.PAX_FORMAT)
        for name in sorted((*folders, *files)):
            path = Path(at, name)
            known = path.lstat()
            if stat.S_ISLNK(known.st_mode):
                entry = _entry(f"{here}/{name}", tarfile.SYMTYPE, known, 0o777)
                entry.linkname = str(path.readlink())
                yield entry.tobuf(tarfile.PAX_FORMAT)
            elif stat.S_ISREG(known.st_mode):
                yield from _file(path, f"{here}/{name}", known)


def _file(path: Path, name: str, known: os.stat_result) -> Iterator[bytes]:
    entry = _entry(name, tarfile.REGTYPE, known, 0o755 if known.st_mode & 0o100 else 0o644)
    entry.size = left = known.st_size
    yield entry.tobuf(tarfile.PAX_FORMAT)
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        while left:
            piece = file.read(min(left, _PIECE))
            if not piece:
                raise OSError(f"{path} became shorter while it was read")
            left -= len(piece)
            yield piece
    yield bytes(-known.st_size % tarfile.BLOCKSIZE)


def _entry(name: str, kind: bytes, known: os.stat_result, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime = kind, mode, int(known.st_mtime)
    return entry
