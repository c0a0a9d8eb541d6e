"""Texts from files: plain text in any encoding, HTML, PDF and Word documents; and their paragraphs, piece by piece."""

from __future__ import annotations

import codecs
import io
import re
import unicodedata
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import docx
import pypdf
from icu4py.breakers import WordBreaker
from selectolax.lexbor import LexborHTMLParser

import encodings_found
import given
import text_docx
import text_sentences

_ZIP = b"PK\x03\x04"
FORMATS = ("text", "html", "pdf", "docx")

_LONGEST = 64 * 1024
"""Most characters of a piece: a longer paragraph (a file without empty lines) is cut between sentences."""

_TAIL = 4 * 1024
"""Characters before a cut in which the end of a sentence is looked for."""

_MEMORY_PER_BYTE = {"html": 12, "docx": 12}
"""Bytes of memory that a parsed byte takes: measured on pages of running text, 6 to 10."""

_BLANK = re.compile(r"(?:\r\n?|\n)[ \t\u3000]*(?:\r\n?|\n)\s*")
_HTML = re.compile(rb"^\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL)
_CHARSET = re.compile(rb"""<meta[^>]+charset\s*=\s*["']?\s*([A-Za-z0-9_:.-]+)""", re.IGNORECASE)
_UNDISPLAYED = re.compile(r"(?:^|;)\s*display\s*:\s*none", re.IGNORECASE)
_NO_TEXT = ["script", "style", "template", "noscript", "head", "svg", "math", "iframe", "object", "select", "textarea"]
_NO_TEXT += ["audio", "video", "canvas", "rt", "rp"]  # what is there for browsers without them; readings of characters
_BLOCKS = (
    "address,article,aside,blockquote,button,caption,center,dd,details,dialog,dir,div,dl,dt,fieldset,legend,menu,hgroup,"
    "search,figcaption,figure,footer,form,h1,h2,"
    "h3,h4,h5,h6,header,hr,li,main,nav,ol,p,pre,section,summary,table,tr,ul"
)
_WIDER = {
    **dict.fromkeys(("iso8859-1", "ascii"), "cp1252"),
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "big5": "big5hkscs",
}
"""What browsers read where a page declares these: the encoding that has more characters at the unused places."""

_LABELS = {"x-sjis": "cp932", "x-gbk": "gb18030", "x-mac-cyrillic": "mac_cyrillic", "windows-874": "cp874"}
"""Names that Python does not know."""

_BLOCK_MARK, _LINE_MARK = "\x1e", "\x1f"
_HYPHENATED = re.compile(r"(?<=[^\W\d_])[-\u2010]\n(?=[^\W\d_])")


@dataclass
class Source:
    """A file as text: its format, its encoding ("" where the format has its own), and what there is to say of it."""

    path: str
    format: str
    encoding: str = ""
    content: str | None = None
    notes: list[str] = field(default_factory=list)

    def pieces(self) -> Iterator[str]:
        """The text, from its beginning, as often as this is called."""
        if self.content is not None:
            return iter((self.content,))
        return encodings_found.decoded(self.path, self.encoding)


def source(path: str, encoding: str = "", form: str = "") -> Source:
    """Open a text. Raises Refusal for what is none, naming what it is.

    ``encoding`` and ``form`` are what the task says; found out where they are empty.
    """
    with Path(path).open("rb") as file:
        head = file.read(4096)
    if not head.startswith(_ZIP):  # whose first bytes say more than those of its members
        with encodings_found.opened(path) as unpacked:
            head = unpacked.read(4096)
    form = form or _format(head, path)
    if form == "pdf":
        return _pdf(path)
    if form == "docx":
        return _docx(path)
    if form == "html":
        return _html(path, encoding, head)
    return Source(path, "text", encodings_found.find(path, encoding))


def paragraphs(pieces: Iterator[str], code: str) -> Iterator[tuple[str, bool]]:
    """The paragraphs, parted by empty lines: each whole, or in pieces of which the first alone is marked as such."""
    rest, first = "", True
    for piece in pieces:
        *whole, rest = _BLANK.split(rest + piece)
        for paragraph in whole:
            for part in _cut(paragraph, code):
                yield unicodedata.normalize("NFC", part), first
                first = False
            first = True
        while len(rest) > _LONGEST:
            at = _place_to_cut(rest, code)
            yield unicodedata.normalize("NFC", rest[:at]), first
            rest, first = rest[at:], False
    for part in _cut(rest, code):
        yield unicodedata.normalize("NFC", part), first
        first = False


def _cut(paragraph: str, code: str) -> Iterator[str]:
    while len(paragraph) > _LONGEST:
        at = _place_to_cut(paragraph, code)
        yield paragraph[:at]
        paragraph = paragraph[at:]
    if paragraph.strip():
        yield paragraph


def _place_to_cut(text: str, code: str) -> int:
    """After the last sentence that fits; where none ends nearby, after the last word."""
    head = text[:_LONGEST]
    last = list(text_sentences.sentences(head[-_TAIL:], code))
    if len(last) > 1:
        return _LONGEST - len(last[-1])
    return max(1, _LONGEST - len(list(WordBreaker(head[-_TAIL:], "en"))[-1]))


def _format(head: bytes, path: str) -> str:
    if b"%PDF-" in head[:1024]:
        return "pdf"
    if head.startswith(_ZIP):
        return _zipped(path)
    if head.startswith(b"\xd0\xcf\x11\xe0"):
        raise given.Refusal(f"{given.shown(path)} is an old Word or Excel file: save it as .docx or as text")
    if head.startswith(b"{\\rtf"):
        raise given.Refusal(f"{given.shown(path)} is RTF: save it as .docx or as text")
    named = path.lower().removesuffix(".gz").endswith((".html", ".htm", ".xhtml"))
    return "html" if named or _HTML.match(head.removeprefix(codecs.BOM_UTF8)) else "text"


def _zipped(path: str) -> str:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if "word/document.xml" in archive.namelist():
                return "docx"
    raise given.Refusal(f"{given.shown(path)} is a ZIP archive, and no Word document: unpack it, or save it as text")


def _pdf(path: str) -> Source:
    """The text that the pages hold as text; what they show as pictures is not read, and is told."""
    try:
        with encodings_found.opened(path) as file:
            reader = pypdf.PdfReader(io.BytesIO(file.read()))
        locked = reader.is_encrypted and not reader.decrypt("")
        pages = [] if locked else [page.extract_text() for page in reader.pages]
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - broken bytes make the parser raise anything
        raise _broken(path, "PDF", error) from None
    if locked:
        raise given.Refusal(f"{given.shown(path)} is encrypted: save it without a password")
    empty = sum(not page.strip() for page in pages)
    if empty == len(pages):
        raise given.Refusal(
            f"{given.shown(path)} has no text on its {len(pages)} pages: they are pictures, which need OCR first"
        )
    text, joined = _HYPHENATED.subn("", "\n".join(page.strip() for page in pages))
    notes = [f"{len(pages)} pages; a PDF has lines and no paragraphs"]
    if empty:
        notes.append(f"{empty} of {len(pages)} pages have no text: pictures of text are not read")
    if joined:
        notes.append(f"{joined:,} words divided at a line's end were joined")
    return Source(path, "pdf", "", text, notes)


def _docx(path: str) -> Source:
    """The paragraphs and tables of the body, in their order."""
    with zipfile.ZipFile(path) as archive:
        _fits(path, sum(entry.file_size for entry in archive.infolist() if entry.filename.endswith(".xml")), "docx")
    try:
        body = docx.Document(path).element.body
        parts = list(text_docx.paragraphs(body))
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - as of a PDF
        raise _broken(path, "Word document", error) from None
    notes = [text_docx.NOTE, *([text_docx.CHANGES_NOTE] if text_docx.has_changes(body) else [])]
    return Source(path, "docx", "", "\n\n".join(parts), notes)


def _html(path: str, encoding: str, head: bytes) -> Source:
    """What a page says in its body: blocks are paragraphs, scripts and the like are no text."""
    raw = b"".join(encodings_found.pieces(path))
    _fits(path, len(raw), "html")
    encoding = encoding or _html_encoding(path, raw, head)
    tree = LexborHTMLParser(raw.decode(encoding, "replace"))
    tree.strip_tags(_NO_TEXT, recursive=True)
    for node in reversed(
        tree.css("[hidden],[style]")
    ):  # the inner ones first: what is taken out is freed with all in it
        if "hidden" in node.attributes or _UNDISPLAYED.search(node.attributes.get("style") or ""):
            node.decompose()
    for node in tree.css(_BLOCKS):
        node.insert_before(_BLOCK_MARK)
        node.insert_after(_BLOCK_MARK)
    for inline, mark in (("br", _LINE_MARK), ("td,th", " ")):
        for node in tree.css(inline):
            node.insert_before(mark)
    text = tree.body.text(deep=True, separator="", strip=False) if tree.body else ""
    text = re.sub(r"[ \t\r\n\f]+", " ", text).replace(_BLOCK_MARK, "\n\n").replace(_LINE_MARK, "\n")
    return Source(path, "html", encoding, text, ["the text of the page's body, without scripts and styles"])


def _html_encoding(path: str, raw: bytes, head: bytes) -> str:
    """A byte order mark, else UTF-8 where it is that, else what the page declares, else the likeliest."""
    declared = _CHARSET.search(head)
    if declared and not raw.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError:
            name = declared[1].decode("ascii").lower()
            try:
                name = codecs.lookup(_LABELS.get(name, name)).name
            except LookupError:
                return encodings_found.find(path)
            return _WIDER.get(name, name)
        if b"\x1b$" in raw and declared[1].lower() == b"iso-2022-jp":  # of seven bits, and so UTF-8 too
            return "iso2022_jp"
    return encodings_found.find(path)


def _broken(path: str, what: str, error: Exception) -> given.Refusal:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return given.Refusal(f"{given.shown(path)} is a broken {what}: {reason}")


def _fits(path: str, size: int, form: str) -> None:
    if size * _MEMORY_PER_BYTE[form] > given.memory_for_data():
        raise given.Refusal(
            f"{given.shown(path)} is {given.size(size)} of {form.upper()}, which is parsed whole: "
            "give the task a larger memory_limit"
        )
