"""Files to and from the pool in chunks of 1 MiB: resumed where they broke off, sums checked, never held whole."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from hivemind_worker import errors
from hivemind_worker.artifacts import store
from hivemind_worker.pool import free_space
from hivemind_worker.tasks import checks, outcome
from hivemind_worker.wire import calls, verdicts

T = TypeVar("T")

THREADS = 8
"""Reads and writes of files at once: more only make a disk slower."""


FOUND_AT_ONCE = 1_000
"""Artifacts that are looked for together."""


class Piece(Protocol):
    """A message of an upload, a node's or a submitter's."""

    sha256: str
    size: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """Which file comes: its sum and its size in bytes, as they were said."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Stored:
    """How an upload ended: all of it is here, or so many bytes are."""

    complete: bool
    stored_bytes: int


class Part:
    """The next part of a file. Read it once there is room for ``max_bytes``, once, and before the next is asked for."""

    __slots__ = ("_pieces", "file_bytes", "max_bytes", "offset", "read_bytes")

    def __init__(self, pieces: AsyncGenerator[bytes, None], offset: int, file_bytes: int) -> None:
        self._pieces = pieces
        self.offset = offset
        self.file_bytes = file_bytes
        self.max_bytes = min(calls.CHUNK_BYTES, file_bytes - offset)
        self.read_bytes = 0

    async def read(self) -> bytes:
        """Return it. Raises `store.NoSuchArtifact` where the file is gone or damaged."""
        data = await anext(self._pieces, b"")
        self.read_bytes = len(data)
        return data


class Files:
    """The pool's artifacts, as calls want them. ``limit_bytes`` is how large one file may be, ``space`` its disk's.

    Its threads are its own: nobody else waits for a disk that is slow with files.
    """

    def __init__(self, artifacts: store.Store, limit_bytes: int, space: free_space.FreeSpace) -> None:
        self._artifacts = artifacts
        self._limit = limit_bytes
        self._space = space
        self._threads = concurrent.futures.ThreadPoolExecutor(THREADS, thread_name_prefix="pool-files")

    def close(self) -> None:
        """Let go of the threads, once no call is under way."""
        self._threads.shutdown(wait=False)

    async def _run(self, work: Callable[..., T], *values: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *values)

    async def upload(self, head: Head, pieces: AsyncGenerator[Piece, None], *, spare_results: bool) -> Stored:
        """Take the file that ``head`` names, and return how it stands when the stream has ended.

        With ``spare_results`` it leaves the room that results need. A stream without data only asks, and takes no other
        upload's place. Bytes that are here already are passed over. While it waits for a piece it holds none.

        Raises :class:`errors.Rejected` for a file that is too large, `writing.WrongContent` for a gap or a wrong sum.
        """
        sha256 = _sum(head.sha256)
        if head.size < 0 or head.size > self._limit:
            raise errors.Rejected(
                f"a file of {head.size} bytes; this pool takes files up to {self._limit}",
                str(verdicts.Reason.TOO_LARGE),
            )
        stored = await self._stored(sha256, head.size)
        if stored is not None:
            return stored
        there = await self._run(self._artifacts.staged, sha256)
        try:
            await self._run(lambda: self._space.need(max(head.size - there, 0), spare_results=spare_results))
        except errors.Unavailable:
            await self._space.look()  # the next task must not be handed out before the next look
            raise
        try:
            return await self._receive(sha256, head.size, pieces)
        except OSError as error:
            self._space.write_failed(error)
            raise

    async def _receive(self, sha256: str, size: int, incoming: AsyncGenerator[Piece, None]) -> Stored:
        async with contextlib.aclosing(incoming) as pieces:
            begun = await anext(pieces, None) if size else None
            if begun is None and size:
                return Stored(complete=False, stored_bytes=await self._run(self._artifacts.staged, sha256))
            # Closing keeps what came, and does nothing after the end.
            with contextlib.closing(await self._run(self._artifacts.upload, sha256, size)) as upload:
                if begun is not None:
                    await self._run(upload.write, begun.offset, begun.data)
                    begun = None
                async for piece in pieces:
                    await self._run(upload.write, piece.offset, piece.data)
                    del piece
                if upload.offset < size:
                    return Stored(complete=False, stored_bytes=upload.offset)
                await self._run(self._artifacts.store_upload, upload)
                return Stored(complete=True, stored_bytes=size)

    async def _stored(self, sha256: str, size: int) -> Stored | None:
        """What is here already, if it is what its name says. A size that differs is a reason to look."""
        try:
            there = await self._run(self._artifacts.size, sha256)
        except store.NoSuchArtifact:
            return None
        if there != size and not await self._run(self._artifacts.verify, sha256):
            return None
        return Stored(complete=True, stored_bytes=there)

    async def find(self, sums: Sequence[str]) -> list[outcome.Artifact | int]:
        """Return for each SHA-256 the artifact, or how many bytes of it are here."""
        checked = [_sum(sha256) for sha256 in sums]
        return await self._run(lambda: [self._look(sha256) for sha256 in checked])

    async def missing(self, artifacts: Iterable[outcome.Artifact]) -> tuple[str, ...]:
        """Return the SHA-256 of those that are not here whole. A size below 0 is not compared.

        A file of another size than named is read: where it is damaged it is set aside, and can be uploaded again.

        Raises :class:`errors.Rejected` for what is no SHA-256.
        """
        missing = list[str]()
        left = iter(artifacts)
        while part := list(itertools.islice(left, FOUND_AT_ONCE)):
            found = await self.find([artifact.sha256 for artifact in part])
            for wanted, there in zip(part, found, strict=True):
                if isinstance(there, int):
                    missing.append(wanted.sha256)
                elif wanted.size >= 0 and there.size != wanted.size:
                    missing.append(wanted.sha256)
                    await self._run(self._artifacts.verify, wanted.sha256)
        return tuple(missing)

    async def keep(self, contents: Sequence[bytes]) -> list[outcome.Artifact]:
        """Store small contents that came whole."""
        try:
            return await self._run(lambda: [self._artifacts.put(data) for data in contents])
        except OSError as error:
            self._space.write_failed(error)
            raise

    async def parts(self, sha256: str, offset: int) -> AsyncGenerator[Part, None]:
        """Yield the parts of a file from ``offset`` on; at least one, be it empty. Nothing of them stays here.

        Close it (`contextlib.aclosing`) when not read to the end. Raises `store.NoSuchArtifact`,
        :class:`errors.Rejected` for an offset outside.
        """
        size = await self._run(self._artifacts.size, _sum(sha256))
        if not 0 <= offset <= size:
            raise errors.Rejected(f"the file has {size} bytes; there is no byte {offset}")
        async with contextlib.aclosing(
            self._artifacts.chunks(sha256, offset, calls.CHUNK_BYTES, self._threads)
        ) as pieces:
            while True:
                part = Part(pieces, offset, size)
                yield part
                offset += part.read_bytes
                if offset >= size or not part.read_bytes:
                    break
            async for _ in pieces:  # to the end, where its sum is compared
                pass

    def _look(self, sha256: str) -> outcome.Artifact | int:
        try:
            return outcome.Artifact(sha256, self._artifacts.size(sha256))
        except store.NoSuchArtifact:
            return self._artifacts.staged(sha256)


def _sum(sha256: str) -> str:
    try:
        return checks.sha256("sha256", sha256)
    except errors.InvalidTask as error:
        raise errors.Rejected(str(error)) from None


def begun(first: Piece, rest: AsyncIterator[Piece]) -> tuple[Head, AsyncGenerator[Piece, None]]:
    """Return what an upload says of its file, and its pieces. Let go of ``first`` then: it may be large."""
    return Head(first.sha256, first.size), _with_data([first], rest)


async def _with_data(first: list[Piece], rest: AsyncIterator[Piece]) -> AsyncGenerator[Piece, None]:
    """The messages that carry something. None stays here."""
    if first[0].data:
        yield first.pop()
    first.clear()
    async for piece in rest:
        if piece.data:
            yield piece
        del piece
