"""Input files on their way into a task: local files named, large contents put aside to be uploaded by their SHA-256."""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hivemind_worker import errors
from hivemind_worker.tasks import checks, spec

INLINE_FILE = 64 * 1024
"""A file up to this many bytes travels inside the task: below it, the extra calls of an upload cost more time."""

INLINE_TASK = 1024 * 1024
"""Most bytes of files inside one task: a quarter of a message, so that tasks still travel several at a time."""

MOST_FILES = 10_000
"""Input files of one task, as the pool takes them."""

CHUNK = 1024 * 1024
"""Bytes read, hashed and sent at once: what the wire takes, and the fastest size measured over loopback."""


@dataclass(frozen=True, slots=True)
class Source:
    """Content to be uploaded: a local file, or bytes that the caller holds anyway. ``where`` names its field."""

    where: str
    size: int
    content: Path | bytes

    def read(self, offset: int) -> bytes:
        """Return the chunk at ``offset``, empty at the end.

        Raises :class:`errors.UserError` where the local file has changed its length since it was hashed.
        """
        if isinstance(self.content, bytes):
            return self.content[offset : offset + CHUNK]
        with self.content.open("rb") as file:
            if os.fstat(file.fileno()).st_size != self.size:
                raise errors.UserError(f"{self.content} changed while it was being sent; submit again")
            file.seek(offset)
            return file.read(CHUNK)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A task that has passed every check, and what must be uploaded before it is sent, by SHA-256."""

    task: spec.TaskSpec
    uploads: Mapping[str, Source] = field(default_factory=dict)


def prepare(given: Mapping[str, object], base: Path) -> Prepared:
    """Check a task and gather its files; local paths in it are relative to ``base``. Reads and hashes: blocks.

    Besides what a task may say anyway, ``{"file": "local/path"}`` stands for the content of a local file, in
    ``input_files`` and as ``code``; in ``input_files`` also ``{"folder": "local/path"}`` for all regular files beneath
    a folder. In ``secrets`` it stands for a value, and ``{"env": "NAME"}`` for a variable of this process. Raises
    :class:`errors.InvalidTask`, naming the field.
    """
    if not isinstance(given, Mapping):
        raise errors.InvalidTask("task", f"must be an object with fields, not {type(given).__name__}")
    said = dict(given)
    if _names_file(said.get("code")):
        said["code"] = _code(said["code"], base)
    if isinstance(said.get("secrets"), Mapping):
        said["secrets"] = _secrets(checks.mapping("secrets", said["secrets"], most=100), base)
    uploads: dict[str, Source] = {}
    if isinstance(said.get("input_files"), Mapping):
        spread = _spread(checks.mapping("input_files", said["input_files"], most=MOST_FILES), base)
        said["input_files"] = _gather(checks.mapping("input_files", spread, most=MOST_FILES), base, uploads)
    return Prepared(spec.parse(said), uploads)


def may_read(given: object) -> bool:
    """Tell whether :func:`prepare` may read files for this task, or have much to hash."""
    return isinstance(given, Mapping) and bool(
        given.get("input_files") or _names_file(given.get("code")) or given.get("secrets")
    )


def _spread(files: Mapping[str, object], base: Path) -> dict[str, object]:
    """The files with each folder's own in its place, in their order by name; links are passed over."""
    spread: dict[str, object] = {}
    for path, content in files.items():
        named = {path: content}
        if isinstance(content, Mapping) and content.keys() == {"folder"}:
            named = _beneath(path, content["folder"], base)
        for each, said in named.items():
            if each in spread:
                raise errors.InvalidTask(f"input_files[{each[:60]!r}]", "comes twice: from a folder, and once more")
            spread[each] = said
    return spread


def _beneath(path: str, named: object, base: Path) -> dict[str, object]:
    where = f"input_files[{path[:60]!r}]"
    if not isinstance(named, str | Path) or not str(named) or "\0" in str(named):
        raise errors.InvalidTask(where, "'folder' must name a local folder")
    top = base / Path(named).expanduser()
    if not top.is_dir():
        raise errors.InvalidTask(where, f"{top} is no folder")
    found = (each for each in sorted(top.rglob("*")) if each.is_file() and not each.is_symlink())
    within = "" if path in {".", "./"} else f"{path.rstrip('/')}/"
    files: dict[str, object] = {
        f"{within}{each.relative_to(top).as_posix()}": {"file": str(each.absolute())}
        for each in itertools.islice(found, MOST_FILES + 1)
    }
    if not files:
        raise errors.InvalidTask(where, f"there is no file in {top}")
    return files


def _gather(files: Mapping[str, object], base: Path, uploads: dict[str, Source]) -> dict[str, object]:
    """The files as the pool takes them: inline while there is room, by address otherwise."""
    gathered: dict[str, object] = {}
    room = INLINE_TASK
    for path, content in files.items():
        where = f"input_files[{path[:60]!r}]"
        source = _source(where, content, base)
        if source is None:
            gathered[path] = content  # an address, or something that the checks refuse by name
        elif source.size <= min(INLINE_FILE, room):
            gathered[path] = _whole(source)
            room -= source.size
        else:
            sha256 = _hashed(source)
            uploads[sha256] = source
            gathered[path] = {"sha256": sha256, "size": source.size}
    return gathered


def _source(where: str, content: object, base: Path) -> Source | None:
    if _names_file(content):
        return _local(where, content, base)
    if isinstance(content, str):
        content = checks.text(where, content, most=2**40, nul=True).encode()
    if isinstance(content, Mapping) and content.keys() == {"base64"}:
        content = checks.base64(where, content["base64"])
    return Source(where, len(content), content) if isinstance(content, bytes) else None


def _names_file(content: object) -> bool:
    return isinstance(content, Mapping) and content.keys() == {"file"}


def _local(where: str, content: object, base: Path) -> Source:
    named = content["file"] if isinstance(content, Mapping) else None
    if not isinstance(named, str | Path) or not str(named) or "\0" in str(named):
        raise errors.InvalidTask(where, "'file' must name a local file")
    path = base / Path(named).expanduser()
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise errors.InvalidTask(where, f"{path} is no regular file")
        with path.open("rb"):
            return Source(where, found.st_size, path)
    except OSError as error:
        raise errors.InvalidTask(where, f"{path} cannot be read: {error.strerror}") from None


def _code(content: object, base: Path) -> str:
    source = _local("code", content, base)
    if source.size > spec.INLINE_BYTES:
        raise errors.InvalidTask("code", f"the file has {source.size} bytes; at most {spec.INLINE_BYTES}")
    try:
        return _whole(source).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise errors.InvalidTask("code", "the file is no UTF-8 text") from None


def _secrets(given: Mapping[str, object], base: Path) -> dict[str, object]:
    """The secrets with their values. No refusal shows one."""
    found: dict[str, object] = {}
    for name, content in given.items():
        where = f"secrets[{name[:60]!r}]"
        if _names_file(content):
            found[name] = _text(where, _local(where, content, base))
        elif isinstance(content, Mapping) and content.keys() == {"env"}:
            variable = content["env"]
            if not isinstance(variable, str) or variable not in os.environ:
                raise errors.InvalidTask(where, f"there is no variable {str(variable)[:60]!r} here")
            found[name] = os.environ[variable]
        else:
            found[name] = content
    return found


def _text(where: str, source: Source) -> str:
    if source.size > checks.ARGUMENT_BYTES:
        raise errors.InvalidTask(where, f"the file has {source.size} bytes; at most {checks.ARGUMENT_BYTES}")
    try:
        return _whole(source).decode()
    except UnicodeDecodeError:
        raise errors.InvalidTask(where, "the file is no UTF-8 text: encode it, such as by base64") from None


def _whole(source: Source) -> bytes:
    if isinstance(source.content, bytes):
        return source.content
    return source.content.read_bytes()


def _hashed(source: Source) -> str:
    if isinstance(source.content, bytes):
        return hashlib.sha256(source.content).hexdigest()
    with source.content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
