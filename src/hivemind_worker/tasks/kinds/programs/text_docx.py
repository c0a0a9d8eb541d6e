"""The text of a Word document's body, as it reads with all tracked changes accepted."""

from __future__ import annotations

from collections.abc import Iterator

from docx.oxml.xmlchemy import BaseOxmlElement as Element

NOTE = "the body alone: no headers, footers, notes, text boxes and formulas"
CHANGES_NOTE = "its tracked changes count as accepted: what was inserted is text, what was deleted is not"

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_PARAGRAPH, _CELL, _TEXT = f"{_W}p", f"{_W}tc", f"{_W}t"
_INSERTED, _DELETED = {f"{_W}ins", f"{_W}moveTo"}, {f"{_W}del", f"{_W}moveFrom"}
_NO_TEXT = _DELETED | {
    *(f"{_W}{name}" for name in ("pPr", "rPr", "tblPr", "trPr", "tcPr", "sdtPr", "sectPr", "rt", "drawing", "pict")),
    f"{_W}object",
    "{http://schemas.openxmlformats.org/markup-compatibility/2006}AlternateContent",
    "{http://schemas.openxmlformats.org/officeDocument/2006/math}oMath",
    "{http://schemas.openxmlformats.org/officeDocument/2006/math}oMathPara",
}
"""Properties, deleted text, readings of characters (ruby), drawings with their text boxes, and formulas."""

_MARKS = {
    **dict.fromkeys((f"{_W}tab", f"{_W}ptab"), "\t"),
    **dict.fromkeys((f"{_W}br", f"{_W}cr"), "\n"),
    f"{_W}noBreakHyphen": "-",
    f"{_W}softHyphen": "\u00ad",
}


def paragraphs(body: Element) -> Iterator[str]:
    """The paragraphs in their order: of the text, of tables, of content controls.

    One whose end was deleted goes on in the next.
    """
    pending = ""
    for paragraph in _elements(body):
        pending += "".join(_text(paragraph))
        if not _is_joined(paragraph):
            yield pending
            pending = ""
    if pending:
        yield pending


def has_changes(body: Element) -> bool:
    """Whether it has tracked changes."""
    return next(body.iter(*_INSERTED, *_DELETED), None) is not None


def _elements(element: Element) -> Iterator[Element]:
    for child in element:
        if child.tag == _PARAGRAPH:
            yield child
        elif child.tag not in _NO_TEXT and not (child.tag == _CELL and _is_covered(child)):
            yield from _elements(child)


def _text(element: Element) -> Iterator[str]:
    for child in element:
        if child.tag == _TEXT:
            yield child.text or ""
        elif child.tag in _MARKS:
            yield _MARKS[child.tag]
        elif child.tag not in _NO_TEXT and not _is_hidden(child):
            yield from _text(child)


def _is_hidden(element: Element) -> bool:
    """Whether it is a run that is formatted as hidden text."""
    vanish = element.find(f"{_W}rPr/{_W}vanish")
    return vanish is not None and vanish.get(f"{_W}val", "1") not in {"0", "false", "off"}


def _is_covered(cell: Element) -> bool:
    """Whether the cell is the lower part of a merged one."""
    merge = cell.find(f"{_W}tcPr/{_W}vMerge")
    return merge is not None and merge.get(f"{_W}val") != "restart"


def _is_joined(paragraph: Element) -> bool:
    return paragraph.find(f"{_W}pPr/{_W}rPr/{_W}del") is not None
