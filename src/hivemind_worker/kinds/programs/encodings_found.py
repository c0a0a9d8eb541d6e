"""Which encoding a file has: UTF-8 proved by reading it all, byte order marks, else the likeliest by its letters."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import charset_normalizer

import given

CHUNK = given.MIB
SAMPLE = 256 * 1024
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def is_gzip(path: str) -> bool:
    """By its first bytes, whatever its name."""
    with Path(path).open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def opened(path: str) -> IO[bytes]:
    """The file's bytes, unpacked where it is gzip."""
    return cast("IO[bytes]", gzip.open(path)) if is_gzip(path) else Path(path).open("rb")


def pieces(path: str) -> Iterator[bytes]:
    """The bytes in pieces. Raises Refusal for a broken gzip file."""
    with opened(path) as file:
        while True:
            try:
                piece = file.read(CHUNK)
            except (EOFError, zlib.error, gzip.BadGzipFile):
                raise given.Refusal(f"{given.shown(path)} is a broken gzip file: it does not unpack") from None
            if not piece:
                return
            yield piece


def find(path: str, said: str = "") -> str:
    """Name the encoding of a file: what the task said, or what the file shows."""
    if said:
        return said
    decoder = codecs.getincrementaldecoder("utf-8")()
    head = b""
    try:
        for piece in pieces(path):
            if not head:
                head = piece
                marked = next((name for mark, name in _MARKS if head.startswith(mark)), "")
                if marked:
                    return marked
            decoder.decode(piece)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return _likeliest(path)
    if b"\0" in head[:SAMPLE]:
        raise given.Refusal(f"{given.shown(path)} is no text: it holds NUL bytes")
    return "utf-8"


def _likeliest(path: str) -> str:
    """Of pieces of the file that hold more than ASCII: a page of English at the start tells nothing."""
    telling = b""
    for piece in pieces(path):
        lines = [line for line in piece.splitlines() if not line.isascii()]
        telling += b"\n".join(lines)
        if len(telling) >= SAMPLE:
            break
    telling = telling[:SAMPLE]
    best = charset_normalizer.from_bytes(telling).best()
    if (best is None or not best.coherence) and _is_koi8(telling):
        return "koi8-r"
    if best is not None:
        return str(best.encoding)
    if b"\0" in telling:
        raise given.Refusal(f"{given.shown(path)} is no text in any encoding known here; say options.encoding")
    return "cp1252"


def _is_koi8(telling: bytes) -> bool:
    """Russian in KOI8, which the library takes for Japanese: nearly all of it small Cyrillic letters."""
    foreign = [letter for letter in telling.decode("koi8-r") if not letter.isascii()]
    small = sum("а" <= letter <= "ё" for letter in foreign)
    return small > 0.85 * len(foreign)


def decoded(path: str, encoding: str) -> Iterator[str]:
    """The text in pieces; bytes that are none in this encoding become U+FFFD."""
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    for piece in pieces(path):
        yield decoder.decode(piece)
    yield decoder.decode(b"", final=True)
