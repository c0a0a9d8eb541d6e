"""Which encoding a file has: UTF-8 proved by reading it all, byte order marks, else the likeliest by its letters."""

from __future__ import annotations

import bz2
import codecs
import functools
import gzip
import importlib
import itertools
import lzma
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import encoding_languages
import given

CHUNK = given.MIB
SAMPLE = 64 * 1024
SURE = 0.8
"""Confidence below which a guess is called one."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ISO_2022_JP = (b"\x1b$B", b"\x1b$@", b"\x1b$(D", b"\x1b(I")
"""What begins Japanese in ISO-2022-JP, whose bytes are all ASCII."""

_PACKED = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"PK\x03\x04", "zip"),
)


@dataclass(frozen=True)
class Survey:
    """What one pass over all bytes shows.

    ``confidence`` is 1 for what is proved; ``one_line_end``: all lines end alike; ``hash_lines``: lines that begin
    with ``#`` follow one that does not.
    """

    encoding: str
    confidence: float
    language: str
    compression: str
    one_line_end: bool
    hash_lines: bool


def compression(path: str) -> str:
    """Return ``gzip``, ``zstd``, ``bzip2``, ``xz`` or ``zip`` by the first bytes; empty for a plain file."""
    with Path(path).open("rb") as file:
        head = file.read(6)
    return next((name for mark, name in _PACKED if head.startswith(mark)), "")


def is_gzip(path: str) -> bool:
    """By its first bytes, whatever its name."""
    return compression(path) == "gzip"


def opened(path: str) -> IO[bytes]:
    """The file's bytes, unpacked where it is packed."""
    packing = compression(path)
    if packing in {"zstd", "zip"}:
        return _zstd(path) if packing == "zstd" else _only_member(path)
    openers: dict[str, Any] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}
    return cast("IO[bytes]", openers[packing](path)) if packing else Path(path).open("rb")


def pieces(path: str) -> Iterator[bytes]:
    """The bytes in pieces. Raises Refusal for a broken packed file."""
    packing = compression(path)
    with opened(path) as file:
        while True:
            try:
                piece = file.read(CHUNK)
            except Exception as error:
                if not packing or (isinstance(error, OSError) and error.errno is not None):
                    raise
                raise given.Refusal(f"{given.shown(path)} is a broken {packing} file: it does not unpack") from None
            if not piece:
                return
            yield piece


def find(path: str, declared: str = "") -> str:
    """Name the encoding of a file: what the task said, or what the file shows."""
    return survey(path, declared).encoding


def survey(path: str, declared: str = "") -> Survey:
    """Read the file once and tell how it is encoded and packed. Raises Refusal for what is no text."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    head, before = b"", b""
    marked, valid = "", True
    crlf = lf = cr = 0
    hash_lines = False
    first = True
    for piece in pieces(path):
        if first:
            head, first = piece[: max(SAMPLE, 4)], False
            marked = next((name for mark, name in _MARKS if head.startswith(mark)), "")
        feeds, returns, both = piece.count(b"\n"), piece.count(b"\r"), piece.count(b"\r\n")
        both += before == b"\r" and piece.startswith(b"\n")
        crlf, lf, cr = crlf + both, lf + feeds, cr + returns
        hash_lines = hash_lines or _follows(piece, before)
        before = piece[-1:]
        if valid and not declared and not marked.startswith(("utf-16", "utf-32")):
            valid = _decodes(decoder, piece)
    valid = valid and _decodes(decoder, b"", final=True)
    found = _named(path, declared, marked, head, valid=valid)
    one_line_end = (crlf == lf == cr) or (crlf == 0 and (lf == 0 or cr == 0))
    return Survey(found.encoding, found.confidence, found.language, compression(path), one_line_end, hash_lines)


def decoded(path: str, encoding: str) -> Iterator[str]:
    """The text in pieces; bytes that are none in this encoding become U+FFFD."""
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    for piece in pieces(path):
        yield decoder.decode(piece)
    yield decoder.decode(b"", final=True)


def _named(path: str, declared: str, marked: str, head: bytes, *, valid: bool) -> encoding_languages.Guess:
    if declared:
        name = declared.replace("_", "-").lower()
        byte_order_mark = name in {"utf-8", "utf8"} and marked == "utf-8-sig"
        return encoding_languages.Guess("utf-8-sig" if byte_order_mark else declared, "", 1.0)
    if marked:
        return encoding_languages.Guess(marked, "", 1.0)
    if b"\0" in head:
        if wide := _wide(head):
            return encoding_languages.Guess(wide, "", 0.95)
        raise given.Refusal(f"{given.shown(path)} is no text: it holds NUL bytes")
    if valid and any(mark in head for mark in _ISO_2022_JP):
        return encoding_languages.Guess("iso2022_jp_ext", "ja", 0.95)
    return encoding_languages.Guess("utf-8", "", 1.0) if valid else _likeliest(path)


def _likeliest(path: str) -> encoding_languages.Guess:
    """Of pieces of the file that hold more than ASCII: a page of English at the start tells nothing."""
    telling = b""
    for piece in pieces(path):
        lines = [line for line in re.split(rb"[\r\n]+", piece) if not line.isascii()]
        telling += b"\n".join(lines) + b"\n"
        if len(telling) >= SAMPLE:
            break
    telling = telling[:SAMPLE]
    telling = telling[: telling.rfind(b"\n") + 1] or telling
    guess = encoding_languages.judge(telling, _languages)
    if guess is not None:
        return guess
    return encoding_languages.Guess("cp1252", "", 0.3)


def _languages(text: str) -> dict[str, float]:
    """How likely each language is, by the words of a text."""
    return {str(language): float(chance) for language, chance in _identifier().rank(text)}


@functools.cache
def _identifier() -> Any:
    langid = importlib.import_module("py3langid.langid")  # a second, and only where letters alone do not tell
    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)


def _decodes(decoder: Any, piece: bytes, *, final: bool = False) -> bool:
    try:
        decoder.decode(piece, final)
    except UnicodeDecodeError:
        return False
    return True


def _wide(head: bytes) -> str:
    """UTF-16 without a byte order mark: every second byte of ASCII text is NUL."""
    even, odd = head[0::2].count(0), head[1::2].count(0)
    half = max(1, len(head) // 2)
    if odd > 0.4 * half and even < 0.1 * half:
        return "utf-16-le"
    return "utf-16-be" if even > 0.4 * half and odd < 0.1 * half else ""


def _follows(piece: bytes, before: bytes) -> bool:
    """Whether a line that begins with # comes after one that does not."""
    if b"\n#" not in piece and not (before == b"\n" and piece.startswith(b"#")):
        return False
    lines = piece.split(b"\n")
    return any(line.startswith(b"#") and not last.startswith(b"#") for last, line in itertools.pairwise(lines))


def _zstd(path: str) -> IO[bytes]:
    try:
        import zstandard  # noqa: PLC0415 - texts and networks read no such file, and do not bring it
    except ImportError:
        raise given.Refusal(f"{given.shown(path)} is packed by zstd, which is not read here: unpack it first") from None
    return cast(
        "IO[bytes]",
        zstandard.ZstdDecompressor().stream_reader(Path(path).open("rb"), closefd=True, read_across_frames=True),
    )


def _only_member(path: str) -> IO[bytes]:
    archive = zipfile.ZipFile(path)
    names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX")]
    if len(names) != 1:
        raise given.Refusal(f"{given.shown(path)} is a zip of {len(names)} files: pack or send one file alone")
    return archive.open(names[0])
