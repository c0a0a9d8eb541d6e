"""Content-addressed local files: each named by its SHA-256, whole or not there at all.

    root/objects/ab/abcdef…      finished files, read-only
    root/staging/new-….part      written here first; emptied when the store is opened
    root/staging/new-….placed    what became of a half-written file that another process may want
    root/staging/abcdef….upload  uploads that may be resumed, kept over a restart

A file reaches `objects` by write → fsync → rename → fsync of the folder, so a name that is there means the content is.
Calls block on the disk: on an event loop use the `async` ones, or `asyncio.to_thread`. Nothing is ever held whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import uuid
from collections.abc import AsyncGenerator, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hivemind_worker.artifacts import writing
from hivemind_worker.task import errors, outcome

CHUNK = 1024 * 1024
"""Bytes read at once; the fastest message size over loopback gRPC as well (figures: 64 KiB 331, 1 MiB 692 MB/s)."""

_NAME = re.compile(r"[0-9a-f]{64}", re.ASCII)
_READ_ONLY = 0o400


class NoSuchArtifact(errors.HiveMindError):
    """The store holds no artifact of that name."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A file in the store: an artifact by its sum, or an unfinished upload by its name. Written at: Unix seconds."""

    name: str
    size: int
    written_at: float


class Store:
    """Artifacts under one folder. One process writes to a folder; threads of it may share the store."""

    def __init__(self, root: Path) -> None:
        self._objects = root / "objects"
        self._staging = root / "staging"
        self._uploads: dict[str, writing.Upload] = {}

    def prepare(self, wanted: Collection[str] = ()) -> None:
        """Make the folders, for their owner only, and clear what an earlier process left half-written. Blocks.

        ``wanted`` names the half-written files (`staged_name`) that somebody will go on with.
        """
        for folder in (self._objects, self._staging):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in wanted:
            path = self._staging / Path(name).name
            placed = path.with_suffix(".placed")
            if not path.exists() and placed.exists():
                # It had become a whole one, and that process ended before it could say so.
                shutil.copyfile(self.path(placed.read_text(encoding="ascii")), path)
        for left in (*self._staging.glob("*.part"), *self._staging.glob("*.placed")):
            if left.with_suffix(".part").name not in wanted:
                left.unlink(missing_ok=True)

    def exists(self, sha256: str) -> bool:
        """Whether the whole artifact is here."""
        return self.path(sha256).is_file()

    def size(self, sha256: str) -> int:
        """Its size in bytes. Raises NoSuchArtifact."""
        try:
            return self.path(sha256).stat().st_size
        except FileNotFoundError:
            raise NoSuchArtifact(f"artifact {sha256} is not in the store") from None

    def path(self, sha256: str) -> Path:
        """Where the artifact is or would be. Raises ValueError for what is no lower-case hexadecimal SHA-256."""
        if _NAME.fullmatch(sha256) is None:
            raise ValueError(f"{sha256[:80]!r} is no SHA-256 in lower-case hexadecimal")
        return self._objects / sha256[:2] / sha256

    def artifacts(self) -> Iterator[outcome.Artifact]:
        """Every artifact here, in no order. Blocks."""
        for found in self._objects.glob("??/*"):
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                yield outcome.Artifact(found.name, found.stat().st_size)

    def kept(self) -> Iterator[Kept]:
        """Every artifact and every unfinished upload here, in no order. Blocks."""
        for found in (*self._objects.glob("??/*"), *self._staging.glob("*.upload")):
            with contextlib.suppress(FileNotFoundError):  # removed, or finished, meanwhile
                about = found.stat()
                yield Kept(found.name, about.st_size, about.st_mtime)

    def discard(self, kept: Kept) -> bool:
        """Remove what ``kept`` told of, unless it has been written again since. Blocks."""
        path = self._staging / Path(kept.name).name if kept.name.endswith(".upload") else self.path(kept.name)
        try:
            if path.stat().st_mtime != kept.written_at:
                return False
            path.unlink()
        except FileNotFoundError:
            return False
        return True

    def remove(self, sha256: str) -> bool:
        """Remove it; false if it was not there. Who may still need it is the caller's to know."""
        try:
            self.path(sha256).unlink()
        except FileNotFoundError:
            return False
        return True

    def read(self, sha256: str, offset: int = 0, chunk: int = CHUNK) -> Iterator[bytes]:
        """Its bytes from `offset` on, in pieces of at most `chunk` bytes. Blocks. Raises NoSuchArtifact."""
        try:
            file = self.path(sha256).open("rb", buffering=0)
        except FileNotFoundError:
            raise NoSuchArtifact(f"artifact {sha256} is not in the store") from None
        with file:
            file.seek(offset)
            while piece := file.read(chunk):
                yield piece

    async def chunks(self, sha256: str, offset: int = 0, chunk: int = CHUNK) -> AsyncGenerator[bytes, None]:
        """As `read`, on an event loop. Close it (`contextlib.aclosing`) when not read to the end."""
        pieces = self.read(sha256, offset, chunk)
        reading: asyncio.Future[bytes | None] | None = None
        try:
            while True:
                reading = asyncio.ensure_future(asyncio.to_thread(next, pieces, None))
                if (piece := await asyncio.shield(reading)) is None:
                    return
                yield piece
        finally:
            # A thread that reads cannot be interrupted, and its file cannot be closed under it.
            if reading is not None and not reading.done():
                await asyncio.wait({reading})
            pieces.close()  # type: ignore[attr-defined]  # it is a generator: this closes its file

    def writer(self, limit: int | None = None) -> writing.Writer:
        """Begin a new file of at most `limit` bytes, its name not yet known. Then `commit` it, or `abort()` it."""
        # A number that no earlier process had: one of its files may be gone on with beside this one.
        return writing.Writer(self._staging / f"new-{uuid.uuid4().hex}.part", limit)

    def reopen(self, staged_name: str, size: int, limit: int | None) -> writing.Writer:
        """Go on with a file that an earlier process had begun with ``writer``. Blocks. Raises as `writing.Writer`."""
        return writing.Writer(self._staging / Path(staged_name).name, limit, after=size)

    def let_go(self, staged_names: Collection[str]) -> None:
        """Nobody goes on with these half-written files. Blocks for as long as an unlink takes."""
        for name in staged_names:
            path = self._staging / Path(name).name
            path.unlink(missing_ok=True)
            path.with_suffix(".placed").unlink(missing_ok=True)

    def commit(self, writers: Sequence[writing.Writer]) -> list[outcome.Artifact]:
        """Make finished files durable and known by their names. Blocks; none is fine, many at once are cheaper.

        Raises OSError: then none of the rest is committed, and the caller aborts them.
        """
        artifacts = writing.finish(writers)
        for writer, artifact in zip(writers, artifacts, strict=True):
            if writer.promised:
                writer.path.with_suffix(".placed").write_text(artifact.sha256, encoding="ascii")
            self._place(writer.path, artifact.sha256)
        for shard in {artifact.sha256[:2] for artifact in artifacts}:
            writing.sync_folder(self._objects / shard)
        return artifacts

    def put(self, data: bytes) -> outcome.Artifact:
        """Store bytes that are at hand already. Blocks."""
        writer = self.writer()
        try:
            writer.write(data)
            return self.commit([writer])[0]
        finally:
            writer.abort()

    def upload(self, sha256: str, size: int) -> writing.Upload:
        """Begin or go on with an upload of the artifact; `offset` of what is returned says where to go on.

        Blocks (what is there is read again). An older upload of the same artifact that is still open loses its place:
        its next write raises `writing.TakenOver`. Call `store_upload` at the end, or `close()` to keep what came.
        """
        self.path(sha256)
        before = self._uploads.pop(sha256, None)
        if before is not None:
            before.take_over()
        upload = writing.Upload(self._staging / f"{sha256}.upload", outcome.Artifact(sha256, size))
        self._uploads[sha256] = upload
        return upload

    def store_upload(self, upload: writing.Upload) -> outcome.Artifact:
        """End an upload. Blocks.

        Raises `writing.WrongContent` when size or sum differ: what came is thrown away.
        """
        path = upload.verify()
        self._place(path, upload.artifact.sha256)
        writing.sync_folder(self.path(upload.artifact.sha256).parent)
        self._uploads.pop(upload.artifact.sha256, None)
        return upload.artifact

    def staged(self, sha256: str) -> int:
        """How many bytes of an unfinished upload are here; 0 if none."""
        self.path(sha256)
        try:
            return (self._staging / f"{sha256}.upload").stat().st_size
        except FileNotFoundError:
            return 0

    def _place(self, staged: Path, sha256: str) -> None:
        target = self.path(sha256)
        with contextlib.suppress(FileExistsError):
            target.parent.mkdir(mode=0o700)
            writing.sync_folder(self._objects)
        staged.chmod(_READ_ONLY)
        staged.replace(target)  # over the same content, if somebody else was first
