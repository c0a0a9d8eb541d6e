"""Input files go to the pool by their SHA-256: what it has is not sent, what broke off goes on from there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import grpc

from hivemind_worker import errors
from hivemind_worker.client import connection, inputs
from hivemind_worker.wire import calls

Progress = Callable[[str, int, int], None]
"""Told the field or file, the bytes that are over, and the bytes in all."""

_ASK_AT_ONCE = 10_000  # sums of 66 bytes each: well within one message
_ROUNDS = 5
"""Times that a pool may say "incomplete" to a whole upload before it is given up: each costs the whole file."""


async def upload(pool: connection.Connection, sources: Mapping[str, inputs.Source], progress: Progress) -> None:
    """Bring to the pool what it does not have of ``sources``, given by SHA-256.

    Raises :class:`errors.Rejected` where the pool will not take a file, :class:`errors.UserError` where a local file
    changed on the way.
    """
    sums = list(sources)
    for start in range(0, len(sums), _ASK_AT_ONCE):
        for found in await _find(pool, sums[start : start + _ASK_AT_ONCE]):
            source = sources[found.sha256]
            if not found.complete:
                await _send(pool, found.sha256, source, found.stored_bytes, progress)
            elif found.stored_bytes != source.size:  # what the pool has is damaged: it looks when it is sent anew
                await _send(pool, found.sha256, source, 0, progress)


async def _find(pool: connection.Connection, sums: list[str]) -> list[calls.pb.ArtifactState]:
    request = calls.pb.FindArtifactsRequest(sha256=sums)
    answer = await pool.ask(pool.pool.FindArtifacts, request, "looking for input files")
    if [found.sha256 for found in answer.artifacts] != sums:
        raise errors.Rejected("looking for input files: the pool answered for other files than were asked for")
    return list(answer.artifacts)


async def _send(
    pool: connection.Connection, sha256: str, source: inputs.Source, offset: int, progress: Progress
) -> None:
    doing = f"uploading {source.where}"
    tries = pool.tries()
    whole = 0
    while whole < _ROUNDS:
        pieces = _Pieces(sha256, source, offset, progress)
        broken = False
        try:
            await pool.pool.UploadInput(pieces.all())
        except grpc.aio.AioRpcError as error:
            broken = True
            pieces.check()
            await tries.again(error, doing)
        pieces.check()
        state = (await _find(pool, [sha256]))[0]
        if state.complete:
            return
        if state.stored_bytes > offset:
            tries.worked()
        elif not broken:
            whole += 1
        offset = min(state.stored_bytes, source.size)
    raise errors.Rejected(f"{doing}: the pool did not take it whole in {_ROUNDS} tries; did the file change meanwhile?")


class _Pieces:
    """The messages of one upload. An error of ours ends the stream early, and is raised by `check` afterwards.

    Raised within, the library would turn it into a cancelled call.
    """

    def __init__(self, sha256: str, source: inputs.Source, offset: int, progress: Progress) -> None:
        self._sha256 = sha256
        self._source = source
        self._offset = offset
        self._progress = progress
        self._error: errors.UserError | None = None

    async def all(self) -> AsyncIterator[calls.pb.UploadInputRequest]:
        """Yield the file from the offset on; at least one message, for the pool must hear of an empty one."""
        size, sha256 = self._source.size, self._sha256
        while sha256 or self._offset < size:
            try:
                data = await asyncio.to_thread(self._read)
            except errors.UserError as error:
                self._error = error
                return
            yield calls.pb.UploadInputRequest(sha256=sha256, size=size, offset=self._offset, data=data)
            sha256 = ""
            self._offset += len(data)
            self._progress(self._source.where, self._offset, size)

    def check(self) -> None:
        """Raise what went wrong on our side."""
        if self._error is not None:
            raise self._error

    def _read(self) -> bytes:
        try:
            data = self._source.read(self._offset)
        except OSError as error:
            raise errors.UserError(f"{self._source.where}: the file cannot be read: {error.strerror}") from None
        if not data and self._offset < self._source.size:
            raise errors.UserError(f"{self._source.where}: the file became shorter while it was sent; submit again")
        return data
