"""The one door to SQLite: a file that is ours alone, its settings, its writing and its reading connections."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from hivemind_worker import errors
from hivemind_worker.filesystem import private_dir, private_file

Connection = sqlite3.Connection
Cursor = sqlite3.Cursor
Row = sqlite3.Row
Error = sqlite3.Error
Trouble = sqlite3.OperationalError
"""The file, its disk or its locks have failed: nobody's request is to blame."""


class Damaged(errors.OwnerError):
    """The store's file is damaged: it holds what SQLite cannot have written."""


# Their locks do not hold between machines, or their writes are not ordered: SQLite's own documentation warns.
_NETWORK = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "9p", "ceph", "lustre", "gfs", "gfs2", "ocfs2"),
        *("coda", "glusterfs", "beegfs", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.rclone", "fuse.s3fs"),
        "fuse.gcsfuse",
    }
)

_IN_MEMORY = frozenset({":memory:"})
"""What SQLite takes for a database without a file, and we would take for the name of one."""

# https://sqlite.org/fileformat2.html#the_database_header
_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 100
_APPLICATION_ID = slice(68, 72)

LOG_PAGES = 4_096
"""Pages in the log, 16 MiB, before it is brought into the file."""

_SETTINGS = (
    "PRAGMA journal_mode = WAL",
    # FULL: a commit that was answered survives the machine's own crash, not only the process's.
    "PRAGMA synchronous = FULL",
    # What is erased is overwritten: a page that is free would show it to whoever has the file and the key.
    "PRAGMA secure_delete = ON",
    "PRAGMA foreign_keys = ON",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA cache_size = -32768",
    "PRAGMA wal_autocheckpoint = 0",  # see `checkpointing`
    "PRAGMA journal_size_limit = 67108864",
)


def prepare(path: Path) -> Path:
    """Make the folder; return the path without symbolic links, as SQLite names the files beside it.

    Raises :class:`errors.BadSettings` where a database cannot live there.
    """
    if path.name in _IN_MEMORY:
        raise errors.BadSettings(f"{path.name} names no file: a pool's store is kept on a disk; name a file there")
    try:
        path = path.resolve()
        if path.exists() and not path.is_file():
            kind = "a folder" if path.is_dir() else "no regular file"
            raise errors.BadSettings(f"{path} is {kind}: name a file as the pool's store, such as pool.sqlite")
        private_dir.make_parent(path)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise errors.BadSettings(f"the folder {path.parent} cannot be made: {reason}") from None
    kind = file_system(path.parent)
    if kind in _NETWORK:
        raise errors.BadSettings(
            f"{path} is on a network file system ({kind}), where SQLite loses data: put the store on a local disk"
        )
    return path


def restoring(path: Path) -> Path:
    """Return where a restore prepares the store ``path``; a file there says that one is under way or was broken off."""
    return path.with_name(f"{path.name}.restoring")


def check_restored(path: Path) -> None:
    """Raise :class:`errors.BadSettings` where a restore into the store was broken off.

    Call it with the lock file locked, before anything is made at ``path``: a restore sets the store aside first, so
    whether there is one says how far it came.
    """
    mark = restoring(path)
    if not mark.exists():
        return
    aside = sorted(path.parent.glob(f"{path.name}.replaced-*"), key=lambda found: found.stat().st_ctime)
    if path.exists():
        instead = f"remove {mark} to go on without it: the store was not touched"
    elif aside:
        instead = (
            "go on without it: give what it set aside its old name back (of the newest "
            f"{path.name}.replaced-…, such as {aside[-1].name}, with what has -wal at its end, and of the output, if "
            f"that was set aside, too), then remove {mark}"
        )
    else:
        instead = f"remove {mark} to begin with an empty pool"
    raise errors.BadSettings(f"a restore of {path} was broken off: run `hivemind pool restore` again, or {instead}")


def check_one_name(path: Path, table: Path = Path("/proc/self/mountinfo")) -> None:
    """Raise :class:`errors.BadSettings` where the file has a second name.

    Opened by another name after a crash, it would lack the log that lies beside the first: SQLite calls that a way to
    destroy a database.
    """
    links = path.stat().st_nlink
    if links > 1:
        raise errors.BadSettings(
            f"{path} has {links} names (hard links): a store that is opened by another name lacks the log that lies "
            "beside the first, and after a crash it is destroyed; leave it one name"
        )
    if any(point == path for point, _ in _mounts(table)):
        raise errors.BadSettings(
            f"{path} is mounted as a single file, apart from the log beside it: mount the folder that it is in"
        )


def file_system(folder: Path, table: Path = Path("/proc/self/mountinfo")) -> str:
    """Return the type of the file system that ``folder`` is on; empty where the system does not say."""
    result, longest = "", -1
    real = folder.resolve()
    for point, kind in _mounts(table):
        # Of mounts on one point the last hides the others.
        if real.is_relative_to(point) and len(point.parts) >= longest:
            result, longest = kind, len(point.parts)
    return result


def _mounts(table: Path) -> list[tuple[Path, str]]:
    """Every mount point with the type of what is mounted there."""
    try:
        lines = table.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
    mounts = []
    for line in lines:
        before, _, after = line.partition(" - ")
        mounts.append((Path(before.split()[4].encode().decode("unicode_escape")), after.split()[0]))
    return mounts


def lock_file(path: Path) -> Path:
    """Return the file whose lock stands for the store ``path``. It has content once a store was made there."""
    return path.with_name(path.name + ".lock")


def key_file(path: Path) -> Path:
    """Return the file with the key that seals the secrets in the store ``path``."""
    return path.parent / f"{path.name}.key"  # also of what is no file, which is refused later


def record_created(path: Path, epoch: str) -> None:
    """Record that there is a store at ``path``: from now on a file that is none there is damage, never a new pool's."""
    file = lock_file(path)
    with contextlib.suppress(OSError):  # a full disk: the next pool to open it records it
        if not file.stat().st_size:
            private_file.write(file, f"{epoch}\n")


def forget_removed(path: Path) -> None:
    """Take a store that is not there for removed on purpose. Call it with the lock file locked."""
    if not path.exists() and lock_file(path).stat().st_size:
        os.truncate(lock_file(path), 0)


def application_id(path: Path) -> int | None:
    """Return the number that a database's first page says it belongs to; None where it is no database.

    Call it before this process opens the database: to close a second handle lets go of SQLite's locks.
    """
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
        return None
    return int.from_bytes(header[_APPLICATION_ID], "big")


def lost(path: Path) -> str:
    """Return what is wrong where there was a store at ``path`` and now lies a file that is none; else empty."""
    if not lock_file(path).stat().st_size or application_id(path) is not None:
        return ""
    if path.stat().st_size:
        return "file is not a database"
    # A database that was made and not yet written out has all of its pages in the log beside it.
    log = path.with_name(path.name + "-wal")
    return "" if log.exists() and log.stat().st_size else "the file is empty"


def writing(path: Path) -> Connection:
    """Open the one connection that writes, for one thread at a time. Raises :class:`errors.BadSettings`."""
    connection: Connection | None = None
    _make_private(path)
    try:
        connection = sqlite3.connect(
            path, isolation_level=None, timeout=10, cached_statements=256, check_same_thread=False
        )
        connection.row_factory = Row
        for setting in _SETTINGS:
            connection.execute(setting)
    except Error as error:
        if connection is not None:
            connection.close()
        remedy, cause = "", _why_no_file(path) if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_CANTOPEN else None
        if cause is not None:
            remedy = f" ({cause.strerror})"
        if is_damage(error):
            remedy = (
                ": where it is another file, give the pool a store of its own (--store); where it was the pool's, put "
                "a backup in its place with `hivemind pool restore DIR --replace`"
            )
        raise errors.BadSettings(f"{path} cannot be used as the pool's store: {error}{remedy}") from cause
    return connection


def _make_private(path: Path) -> None:
    """Have the file and those beside it private before SQLite opens them: it gives new ones the mode of the first."""
    try:
        with contextlib.suppress(FileNotFoundError):
            private_file.make(path)
        for extra in ("-wal", "-shm", "-journal"):
            private_file.check(path.with_name(path.name + extra))
    except OSError as error:
        raise errors.BadSettings(f"{error.filename} cannot be used as the pool's store: {error.strerror}") from None


def _why_no_file(path: Path) -> OSError | None:
    """Return why no file can be made beside the store, which SQLite does not tell; ``None`` where one can."""
    probe = path.with_name(path.name + ".probe")
    try:
        private_file.write(probe, b"")
        probe.unlink()
    except OSError as error:
        return error
    return None


def reading(path: Path) -> Connection:
    """Open a connection that can only read, for the thread that calls."""
    address = f"file:{urllib.parse.quote(str(path))}?mode=ro"
    # Used by one thread, but closed by another when the store is.
    connection = sqlite3.connect(address, uri=True, isolation_level=None, timeout=10, check_same_thread=False)
    connection.row_factory = Row
    return connection


def checkpoint(connection: Connection, mode: Literal["PASSIVE", "TRUNCATE"] = "TRUNCATE") -> None:
    """Bring everything from the log into the file; a store that was closed in order is one file.

    ``mode``: ``PASSIVE`` waits for no reader, and leaves the log as long as it is.
    """
    with contextlib.suppress(Error):  # the log keeps what this could not move
        connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()


@contextlib.contextmanager
def checkpointing(connection: Connection) -> Iterator[None]:
    """Let commits within the block bring the log into the file once it has `LOG_PAGES`: for tens of milliseconds."""
    with contextlib.suppress(Error):  # the next commit does it
        connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}").fetchall()
    try:
        yield
    finally:
        with contextlib.suppress(Error):
            connection.execute("PRAGMA wal_autocheckpoint = 0").fetchall()


def is_damage(error: Error) -> bool:
    """Whether an error says that the file holds what SQLite cannot have written."""
    code = getattr(error, "sqlite_errorcode", 0)  # absent from what the module raises by itself
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def copy(source: Connection, target: Path) -> None:
    """Copy a database as it is at one moment into a new file; others may write to it meanwhile. Blocks.

    All pages in one step, so in one snapshot: in several steps it would begin again with each write of another process.
    """
    private_file.make(target)
    with contextlib.closing(sqlite3.connect(target, isolation_level=None)) as connection:
        source.backup(connection, pages=-1)
        close_as_one_file(connection)


def close_as_one_file(connection: Connection) -> None:
    """Bring everything into the one file, which the next to open it turns into one with a log again."""
    connection.execute("PRAGMA journal_mode = DELETE").fetchall()


def damage(connection: Connection) -> str:
    """Return what is wrong with the database, in SQLite's words; empty where every page is sound. Reads all of it.

    Empty also where it was interrupted, or the file cannot be read just now.
    """
    try:
        rows = connection.execute("PRAGMA quick_check(5)").fetchall()
    except Error as error:
        return str(error) if is_damage(error) else ""
    problems = [str(row[0]) for row in rows if row[0] != "ok"]
    return "; ".join(problems).replace("\n", " ")[:500]
