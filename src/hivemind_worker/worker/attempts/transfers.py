"""Files to and from the pool: chunks of 1 MiB from where the last try broke off, sums checked, memory flat."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

from hivemind_worker import errors
from hivemind_worker.artifacts import store, writing
from hivemind_worker.tasks import outcome
from hivemind_worker.wire import calls
from hivemind_worker.worker.pool_link import client


@dataclass(frozen=True, slots=True)
class Owner:
    """On whose behalf a file travels: the session, and the attempt that made it."""

    node_id: str
    session_id: str
    task_id: str
    attempt: int


class Uploads:
    """Result files from the store to the pool; attempts that made the same content do not send it at once."""

    def __init__(self, pool: client.NodePoolClient, files: store.Store) -> None:
        self._pool = pool
        self._files = files
        self._one_by_one = _OneByOne()

    async def send(self, artifact: outcome.Artifact, owner: Owner) -> None:
        """Send ``artifact`` to the pool, unless the pool has it.

        A file of more than one chunk is announced first, by a stream without data: the answer says how much of it the
        pool has, or refuses it in words. A refusal in the middle of a stream is not sure to be heard: the library
        makes INTERNAL of it (grpc issue 36066), which is tried again, with the announcement first.

        Raises :class:`errors.PeerError`; after ``Unavailable`` another try goes on where this one stopped.
        """
        async with self._one_by_one.alone(artifact.sha256):
            offset = 0
            if artifact.size > calls.CHUNK_BYTES:
                offset = (await self._pool.upload_artifact(_announcement(artifact, owner), 0)).stored_bytes
                if offset == artifact.size:
                    return
                if not 0 <= offset < artifact.size:
                    raise errors.Rejected(f"the pool claims to hold {offset} bytes of a file of {artifact.size}")
            pieces = _pieces(self._files, artifact, owner, offset)
            answer = await self._pool.upload_artifact(pieces, artifact.size - offset)
            if answer.stored_bytes != artifact.size:
                raise errors.Unavailable(
                    f"the pool took {answer.stored_bytes} of {artifact.size} bytes of a result: {answer.message}"
                )


async def _announcement(
    artifact: outcome.Artifact, owner: Owner
) -> AsyncGenerator[calls.pb.UploadArtifactRequest, None]:
    yield _first(artifact, owner)


async def _pieces(
    files: store.Store, artifact: outcome.Artifact, owner: Owner, offset: int
) -> AsyncGenerator[calls.pb.UploadArtifactRequest, None]:
    request = _first(artifact, owner)
    request.offset = offset
    async with contextlib.aclosing(files.chunks(artifact.sha256, offset, calls.CHUNK_BYTES)) as pieces:
        async for piece in pieces:
            request.data = piece
            yield request
            offset += len(piece)
            request = calls.pb.UploadArtifactRequest(offset=offset)
    if artifact.size == 0:
        yield request


def _first(artifact: outcome.Artifact, owner: Owner) -> calls.pb.UploadArtifactRequest:
    return calls.pb.UploadArtifactRequest(
        node_id=owner.node_id,
        session_id=owner.session_id,
        task_id=owner.task_id,
        attempt=owner.attempt,
        sha256=artifact.sha256,
        size=artifact.size,
    )


class Downloads:
    """Input files from the pool into the store; attempts that want the same file at once share one download."""

    def __init__(self, pool: client.NodePoolClient, files: store.Store) -> None:
        self._pool = pool
        self._files = files
        self._one_by_one = _OneByOne()

    async def fetch(self, artifact: outcome.Artifact, node_id: str, session_id: str, limit: int) -> outcome.Artifact:
        """Have ``artifact`` in the store, and return it with its true size.

        ``limit`` in bytes. Raises :class:`errors.InvalidTask` for a larger file, :class:`errors.Unavailable` where
        another try may help (it goes on where this one stopped), :class:`errors.Rejected` where none will.
        """
        async with self._one_by_one.alone(artifact.sha256):
            if not self._files.exists(artifact.sha256):
                await self._download(artifact, node_id, session_id, limit)
        return outcome.Artifact(artifact.sha256, self._files.size(artifact.sha256))

    def here(self, artifact: outcome.Artifact) -> outcome.Artifact:
        """Return it with its true size, if it is in the store."""
        if not self._files.exists(artifact.sha256):
            return artifact
        return outcome.Artifact(artifact.sha256, self._files.size(artifact.sha256))

    async def _download(self, artifact: outcome.Artifact, node_id: str, session_id: str, limit: int) -> None:
        offset = self._files.staged(artifact.sha256)
        request = calls.pb.DownloadArtifactRequest(
            node_id=node_id, session_id=session_id, sha256=artifact.sha256, offset=offset
        )
        left = max(artifact.size, limit if artifact.size < 0 else 0) - offset
        upload: writing.Upload | None = None
        try:
            async with contextlib.aclosing(self._pool.download_artifact(request, max(left, 0))) as pieces:
                async for piece in pieces:
                    if upload is None:
                        upload = await self._begin(artifact, piece.size, limit)
                    await self._files.on_thread(upload.write, piece.offset, piece.data)
            if upload is None:  # an answer without a single message: an empty file, or nothing to add
                upload = await self._begin(artifact, offset, limit)
            await self._files.on_thread(self._files.store_upload, upload)
        except writing.WrongContent as error:
            raise errors.Unavailable(f"an input file came damaged: {error}") from error
        except writing.TooLarge as error:
            raise errors.Rejected(f"the pool sent more than it had announced: {error}") from error
        finally:
            if upload is not None:
                upload.close()

    async def _begin(self, artifact: outcome.Artifact, size: int, limit: int) -> writing.Upload:
        if size > limit:
            raise errors.InvalidTask("input_files", f"{artifact.sha256} has {size} bytes; the task's disk has {limit}")
        if artifact.size >= 0 and size != artifact.size:
            raise errors.InvalidTask("input_files", f"{artifact.sha256} has {size} bytes, not {artifact.size}")
        return await self._files.on_thread(self._files.upload, artifact.sha256, size)


class _OneByOne:
    """Locks by content, for as long as anyone wants them."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @contextlib.asynccontextmanager
    async def alone(self, sha256: str) -> AsyncIterator[None]:
        lock, waiting = self._locks.get(sha256, (asyncio.Lock(), 0))
        self._locks[sha256] = (lock, waiting + 1)
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._locks.pop(sha256)
            if waiting > 1:
                self._locks[sha256] = (lock, waiting - 1)
