"""Volumes of ours that hold files of this machine: named by their content, filled once by archive, then only read.

A host path would not exist for a remote engine, nor for a worker in a container. A second, empty volume made at the
end says that the first is whole.
"""

from __future__ import annotations

import asyncio
import hashlib
import tarfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hivemind_worker.concurrency import clock
from hivemind_worker.containers import engine as engines
from hivemind_worker.containers import hardening

FILL_SECONDS: Final = 600.0
"""Longest that filling one may take: 10 GB at 17 MB/s, a tenth of what was measured."""

WHOLE: Final = "-whole"
"""Added to a volume's name: the name of the empty one that says that it is whole."""

_PIECE: Final = 1024 * 1024
_BLOCK: Final = 512
_SUMMED: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Stock:
    """What one volume shall hold: files by their name in it. ``role`` is its label."""

    role: str
    files: tuple[tuple[str, Path], ...]
    mode: int = 0o444

    def name(self) -> str:
        """The volume's name; another as soon as a file is another. Raises OSError. Blocks, 30 ms for 50 MB."""
        found = [(name, _content(path)) for name, path in self.files]
        return f"hivemind-{self.role}-{hashlib.sha256(repr((found, self.mode)).encode()).hexdigest()[:32]}"


class Stocked:
    """The stocked volumes of one engine."""

    def __init__(self, *, engine: engines.Engine, node_id: str, boot_id: str) -> None:
        self._engine = engine
        self._around = hardening.Surroundings(node_id, boot_id, "", "")
        self._lock = asyncio.Lock()

    async def ensure(self, stock: Stock, image: hardening.Image) -> str:
        """Return the name of the volume with these files, filled unless it is there; any image serves for that.

        Raises EngineLost, engine.Refused, OSError.
        """
        volume = await asyncio.to_thread(stock.name)
        async with self._lock:
            label = f"{hardening.ROLE_LABEL}={stock.role}"
            labels = dict([label.split("=")])  # no node's label: what all nodes share is nobody's leftover
            name = f"hivemind-filler-{volume.rpartition('-')[2]}"
            deadline = clock.now() + FILL_SECONDS
            while not await self._whole(label, volume):
                await self._engine.create_volume(volume, labels)
                body = hardening.filler(self._around, image.id, {volume: hardening.PROGRAM_FOLDER})
                try:
                    filler = await self._engine.create(name, body)  # its one name is a lock between all who would fill
                except engines.Refused as refused:
                    if refused.status != engines.CONFLICT:
                        raise
                    if clock.now() > deadline:
                        await self._engine.remove(name)  # whoever made it has died
                    await asyncio.sleep(0.2)
                    continue
                try:
                    packed = archive(stock.files, stock.mode)
                    await self._engine.put_stream(filler, hardening.PROGRAM_FOLDER, packed, FILL_SECONDS)
                    await self._engine.create_volume(f"{volume}{WHOLE}", labels)
                finally:
                    await self._engine.remove(name)
        return volume

    async def _whole(self, label: str, volume: str) -> bool:
        return {found["Name"] for found in await self._engine.volumes(label)} >= {volume, f"{volume}{WHOLE}"}


def _content(path: Path) -> str:
    """What tells a file from another: its sum, or size and time where it is too large for that."""
    known = path.stat()
    if known.st_size <= _SUMMED:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{known.st_size} {known.st_mtime_ns}"


async def archive(files: Sequence[tuple[str, Path]], mode: int) -> AsyncIterator[bytes]:
    """The files as a tar, piece by piece: memory stays flat whatever their size. Raises OSError."""
    for name, path in files:
        with await asyncio.to_thread(path.open, "rb") as file:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = path.stat().st_size, mode
            yield entry.tobuf(tarfile.PAX_FORMAT)
            left = entry.size
            while left:
                piece = await asyncio.to_thread(file.read, min(left, _PIECE))
                if not piece:
                    raise OSError(f"{path} became shorter while it was read")
                left -= len(piece)
                yield piece
            yield bytes(-entry.size % _BLOCK)
    yield bytes(2 * _BLOCK)
