"""Content-addressed local files: each named by its SHA-256, whole or not there at all.

    root/objects/ab/abcdef…      finished files, read-only
    root/staging/new-….part      written here first; emptied when the store is opened
    root/staging/new-….placed    what became of a half-written file that another process may want
    root/staging/abcdef….upload  an upload that may be resumed, kept over a restart
    root/staging/abcdef….1f….upload  the same while an upload has it open: a file that nobody else opens
    root/damaged/abcdef….2e….damaged what stood under a name and was not its content; set aside, never served

A file reaches `objects` by write → fsync → rename → fsync of the folder, so a name that is there means the content was
right when it came. Disks forget: whoever reads a file to its end learns whether it still is, and one that is not is set
aside, so that the name is free to be uploaded again.
Calls block on the disk: on an event loop use the `async` ones, or `on_thread`. Nothing is ever held whole.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import hashlib
import itertools
import os
import re
import threading
import uuid
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from hivemind_worker import errors
from hivemind_worker.artifacts import writing
from hivemind_worker.filesystem import private_dir, private_file
from hivemind_worker.tasks import outcome
from hivemind_worker.telemetry import logs

CHUNK = 1024 * 1024
"""Bytes read at once; the fastest message size over loopback gRPC as well (figures: 64 KiB 331, 1 MiB 692 MB/s)."""

THREADS = 8
"""Reads and writes of files at once: more only make a disk slower. Four uploads, and the files of four attempts that
come in or go out."""

_NAME = re.compile(r"[0-9a-f]{64}", re.ASCII)

_STAGED = (".part", ".placed", ".copy")
"""What may stand in the staging folder under the name of one new file: itself, its sum once it is whole, its copy."""

T = TypeVar("T")

log = logs.StructuredLogger(__name__)


class NoSuchArtifact(errors.HiveMindError):
    """The store holds no artifact of that name."""


class DamagedArtifact(NoSuchArtifact):
    """What stood under that name was not its content; it has been set aside, and the name is free again."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A file in the store: an artifact by its sum, an unfinished upload or a damaged file by its name.

    ``written_at`` in Unix seconds.
    """

    name: str
    size: int
    written_at: float


class Store:
    """Artifacts under one folder. One process writes to a folder; threads of it may share the store."""

    def __init__(self, root: Path) -> None:
        self._objects = root / "objects"
        self._staging = root / "staging"
        self._damaged = root / "damaged"
        self.damaged_count = 0
        """How many files were found damaged and set aside since the process began."""
        self._uploads: dict[str, writing.Upload] = {}
        # Taken before an upload's own lock, never after it.
        self._uploading = threading.Lock()
        # Its threads are its own: a disk that stands still, with every one of them, holds up nobody else.
        self._threads = concurrent.futures.ThreadPoolExecutor(THREADS, thread_name_prefix="artifacts")

    async def on_thread(self, work: Callable[..., T], *values: object) -> T:
        """Do something that blocks on this store's disk, in one of its threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *values)

    def close(self) -> None:
        """Let go of the threads; what they do goes on. Afterwards `on_thread` and `chunks` raise RuntimeError."""
        self._threads.shutdown(wait=False)

    def prepare(self, wanted: Collection[str] = ()) -> None:
        """Make the folders, for their owner only, and clear what an earlier process left half-written. Blocks.

        ``wanted`` names the half-written files (`staged_name`) that somebody will go on with.
        """
        private_dir.make(self._objects.parent)
        for folder in (self._objects, self._staging, self._damaged):
            private_dir.make_sub(folder)
        for name in wanted:
            self._bring_back(self._staging / Path(name).name)  # nobody may need the whole one until it is gone on with
        for left in itertools.chain.from_iterable(self._staging.glob(f"*{suffix}") for suffix in _STAGED):
            if left.with_suffix(".part").name not in wanted:
                left.unlink(missing_ok=True)
        # Of the uploads that were open when that process ended the longest is gone on with.
        for left in sorted(self._staging.glob("*.*.upload"), key=lambda path: path.stat().st_size):
            left.replace(self._parked(left.name.partition(".")[0]))

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

    def names(self, shard: str) -> list[str]:
        """The sums of the artifacts that begin with these two digits, in order. Blocks. Raises OSError."""
        try:
            return sorted(path.name for path in (self._objects / shard).iterdir() if _NAME.fullmatch(path.name))
        except FileNotFoundError:
            return []

    def kept(self) -> Iterator[Kept]:
        """Every artifact, every upload that nobody has open, every damaged file, in no order. Blocks."""
        places = (self._objects.glob("??/*"), self._staging.glob("*.upload"), self.damaged())
        for found in itertools.chain.from_iterable(places):
            if found.name.count(".") == 2 and found.suffix == ".upload":  # one that is open
                continue
            with contextlib.suppress(FileNotFoundError):  # removed, or finished, meanwhile
                about = found.stat()
                yield Kept(found.name, about.st_size, about.st_mtime)

    def damaged(self) -> Iterator[Path]:
        """Every file that was set aside, in no order. Blocks."""
        yield from self._damaged.glob("*.damaged")

    def discard(self, kept: Kept) -> bool:
        """Remove what ``kept`` told of, unless it has been written again since. Blocks."""
        folders = {".upload": self._staging, ".damaged": self._damaged}
        folder = folders.get(Path(kept.name).suffix)
        path = self.path(kept.name) if folder is None else folder / Path(kept.name).name
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
        """Its bytes from `offset` on, in pieces of at most `chunk` bytes. Blocks.

        Raises NoSuchArtifact; at the end :class:`DamagedArtifact` where it is not what its name says, read from
        wherever: then it has been set aside.
        """
        try:
            file = self.path(sha256).open("rb", buffering=0)
        except FileNotFoundError:
            raise NoSuchArtifact(f"artifact {sha256} is not in the store") from None
        with file:
            running = hashlib.sha256()
            file.seek(offset)
            while piece := file.read(chunk):
                if not offset:
                    running.update(piece)
                box = [piece]
                del piece
                yield box.pop()  # not kept here while somebody uses it: many files are read at once
            if offset:
                running = _sum(file.fileno())
            if running.hexdigest() != sha256:
                self._set_aside(sha256, file.fileno())
                raise DamagedArtifact(f"the stored file {sha256} was damaged and is set aside: upload it again")

    async def chunks(
        self,
        sha256: str,
        offset: int = 0,
        chunk: int = CHUNK,
        executor: concurrent.futures.Executor | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """As `read`, on an event loop, in threads of ``executor`` (``None``: the store's own).

        Close it (`contextlib.aclosing`) when not read to the end.
        """
        loop = asyncio.get_running_loop()
        pieces = self.read(sha256, offset, chunk)
        reading: asyncio.Future[bytes | None] | None = None
        try:
            while True:
                reading = loop.run_in_executor(executor or self._threads, next, pieces, None)
                if (piece := await asyncio.shield(reading)) is None:
                    return
                box, reading, piece = [piece], None, None
                yield box.pop()  # as in `read`
        finally:
            # A thread that reads cannot be interrupted, and its file cannot be closed under it.
            if reading is not None and not reading.done():
                await asyncio.wait({reading})
                reading.exception()  # nobody waits for it any more
            pieces.close()  # type: ignore[attr-defined]  # it is a generator: this closes its file

    def verify(self, sha256: str, read: Callable[[int], None] = lambda _size: None) -> bool:
        """Read it from the disk and tell whether it is what its name says; where not, set it aside. Blocks.

        True also where it is not there (any more). ``read`` is called with the size of each piece that was read.
        """
        try:
            fd = os.open(self.path(sha256), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            # The disk is asked, not the memory that still has what was written.
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            if _sum(fd, read).hexdigest() == sha256:
                return True
            return not self._set_aside(sha256, fd)
        finally:
            os.close(fd)

    def _set_aside(self, sha256: str, fd: int) -> bool:
        """Free the name, unless it stands for another file by now."""
        path, file = self.path(sha256), os.fstat(fd)
        with contextlib.suppress(FileNotFoundError):
            now = path.stat()
            if (now.st_dev, now.st_ino) == (file.st_dev, file.st_ino):
                aside = self._damaged / f"{sha256}.{uuid.uuid4().hex[:8]}.damaged"
                path.replace(aside)
                self.damaged_count += 1
                details = {"sha256": sha256, "bytes": file.st_size, "path": str(aside)}
                log.log_system_event("artifact_damaged", details, level="error")
                return True
        return False

    def writer(self, limit: int | None = None) -> writing.Writer:
        """Begin a new file of at most `limit` bytes, its name not yet known. Then `commit` it, or `abort()` it."""
        # A number that no earlier process had: one of its files may be gone on with beside this one.
        return writing.Writer(self._staging / f"new-{uuid.uuid4().hex}.part", limit)

    def reopen(self, staged_name: str, size: int, limit: int | None) -> writing.Writer:
        """Go on with a file that was begun with ``writer`` and promised. Blocks. Raises as `writing.Writer`.

        Also where it had become a whole one since, and whoever wrote it could not say so: then with a copy of that.
        """
        path = self._staging / Path(staged_name).name
        self._bring_back(path)
        writer = writing.Writer(path, limit, after=size)
        writer.promised = True
        return writer

    def _bring_back(self, staged: Path) -> None:
        placed, copy = staged.with_suffix(".placed"), staged.with_suffix(".copy")
        if not staged.exists() and placed.exists():
            private_file.copy(self.path(placed.read_text(encoding="ascii")), copy)
            copy.replace(staged)

    def let_go(self, staged_names: Collection[str]) -> None:
        """Nobody goes on with these half-written files. Blocks for as long as an unlink takes."""
        for name in staged_names:
            path = self._staging / Path(name).name
            for suffix in _STAGED:
                path.with_suffix(suffix).unlink(missing_ok=True)

    def commit(self, writers: Sequence[writing.Writer]) -> list[outcome.Artifact]:
        """Make finished files durable and known by their names. Blocks; none is fine, many at once are cheaper.

        Raises OSError: then none of the rest is committed, and the caller aborts them.
        """
        artifacts = writing.finish(writers)
        for writer, artifact in zip(writers, artifacts, strict=True):
            if writer.promised:
                private_file.write(writer.path.with_suffix(".placed"), artifact.sha256)
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

        Blocks (what is there is read again). The file that it writes to is its own: no other upload opens it. An older
        upload of the same artifact that is still open loses its place: its next write raises `writing.TakenOver`. Call
        `store_upload` at the end, or `close()` to keep what came.
        """
        parked = self._parked(sha256)
        path = parked.with_name(f"{sha256}.{uuid.uuid4().hex}.upload")
        with self._uploading:
            before = self._uploads.pop(sha256, None)
            source = before.path if before is not None and before.take_over() else parked
            with contextlib.suppress(FileNotFoundError):
                source.replace(path)
            try:
                upload = writing.Upload(path, outcome.Artifact(sha256, size), self._released)
            except OSError:
                with contextlib.suppress(FileNotFoundError):
                    path.replace(parked)
                raise
            self._uploads[sha256] = upload
        try:
            upload.go_on()
        except BaseException:
            upload.close()
            raise
        return upload

    def store_upload(self, upload: writing.Upload) -> outcome.Artifact:
        """End an upload. Blocks.

        Raises `writing.WrongContent` when size or sum differ: what came is thrown away.
        """
        path = upload.verify()
        self._place(path, upload.artifact.sha256)
        writing.sync_folder(self.path(upload.artifact.sha256).parent)
        upload.close()
        return upload.artifact

    def staged(self, sha256: str) -> int:
        """How many bytes of an unfinished upload are here; 0 if none."""
        parked = self._parked(sha256)
        with self._uploading:
            if (upload := self._uploads.get(sha256)) is not None:
                return upload.offset
        try:
            return parked.stat().st_size
        except FileNotFoundError:
            return 0

    def _parked(self, sha256: str) -> Path:
        """Where an upload lies that nobody has open. Raises as `path`."""
        return self._staging / f"{self.path(sha256).name}.upload"

    def _released(self, upload: writing.Upload) -> None:
        """An upload is over: what came of it, and is not done with, is for the next one to go on with."""
        sha256 = upload.artifact.sha256
        with self._uploading:
            if self._uploads.get(sha256) is upload:
                del self._uploads[sha256]
            if upload.end():
                with contextlib.suppress(FileNotFoundError):
                    upload.path.replace(self._parked(sha256))

    def _place(self, staged: Path, sha256: str) -> None:
        target = self.path(sha256)
        if not target.parent.exists():
            private_dir.make_sub(target.parent)
            writing.sync_folder(self._objects)
        private_file.freeze(staged)
        staged.replace(target)  # over the same content, if somebody else was first


def _sum(fd: int, read: Callable[[int], None] = lambda _size: None) -> hashlib._Hash:
    """The sum of a whole file, wherever it has been read to."""
    running, place = hashlib.sha256(), 0
    while piece := os.pread(fd, CHUNK, place):
        running.update(piece)
        place += len(piece)
        read(len(piece))
    return running
