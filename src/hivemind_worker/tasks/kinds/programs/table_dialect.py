"""How the lines of a delimited text are cut into cells: delimiter, quote, escape. Judged by a sample of lines. Pure."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import cell_kinds

DELIMITERS = ",\t;|"
_RARE = "~^\x01\x1f\xa6"
"""Delimiters that are tried where none of the usual ones fits, and every line must agree."""

_SURE = 0.9
MAX_FIELD_BYTES = 4 * 1024 * 1024
"""Largest cell: a quote that is never closed would make one of the rest of the file."""

_SEP_LINE = re.compile(r'"?sep=(.|\\t)"?\s*', re.IGNORECASE)
_MASKS = "\ufdd0\ufdd1\ufdd2"
"""Code points that Unicode keeps for programs: no text holds them."""

_CONSISTENT = 0.5
"""Least share of lines of one same width for a delimiter to be one."""


@dataclass(frozen=True)
class Dialect:
    """How cells are written.

    ``delimiter`` is empty where each line is one cell, and a space where any run of blanks parts cells.
    ``escape`` is a backslash, or empty where a quote within quotes is doubled.
    """

    delimiter: str
    quote: str = '"'
    escape: str = ""
    space_after: bool = False


@dataclass(frozen=True)
class Row:
    """The cells of one record, and the physical lines on which it begins and ends, counted from 1."""

    line: int
    last_line: int
    cells: list[str]

    @property
    def blank(self) -> bool:
        """Whether no cell holds anything."""
        return not any(cell.strip() for cell in self.cells)


class Lines:
    """Physical lines with their numbers, comments left out where a record could begin."""

    def __init__(self, lines: Iterable[str], comment: str = "", first_line: int = 1) -> None:
        """Number ``lines`` from ``first_line``; leave out those that begin with ``comment``."""
        self._lines = iter(lines)
        self._comment = comment
        self.number = first_line - 1
        self.record_start = 0
        self.comments = 0
        self.text: list[str] = []

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        """Return the next line; within a record a comment is a part of a cell."""
        while True:
            line = next(self._lines)
            self.number += 1
            if not self.text:
                if self._comment and line.startswith(self._comment):
                    self.comments += 1
                    continue
                self.record_start = self.number
            self.text.append(line)
            return line


def rows(lines: Lines, dialect: Dialect) -> Iterator[Row]:
    """Yield the records of ``lines``, each of which has its line end. Blank lines come as rows without cells.

    The text of the record is in ``lines.text`` until the next one is asked for.
    Raises :class:`csv.Error` for a cell larger than MAX_FIELD_BYTES.
    """
    if not dialect.delimiter or dialect.delimiter == " ":
        for text in lines:
            stripped = text.strip("\r\n")
            cells = (
                _aligned_cells(stripped, dialect.quote) if dialect.delimiter else [_unquoted(stripped, dialect.quote)]
            )
            yield Row(lines.number, lines.number, cells if stripped.strip() else [])
            lines.text.clear()
        return
    for cells in _cut(lines, dialect, strict=False):
        yield Row(lines.record_start, lines.number, cells)
        lines.text.clear()


def _cut(lines: Iterable[str], dialect: Dialect, *, strict: bool) -> Iterator[list[str]]:
    csv.field_size_limit(MAX_FIELD_BYTES)
    escapes = bool(dialect.escape) and dialect.escape != dialect.quote
    reader = csv.reader(
        _masked(lines, dialect) if escapes else lines,
        delimiter=dialect.delimiter,
        quotechar=dialect.quote or None,
        quoting=csv.QUOTE_MINIMAL if dialect.quote else csv.QUOTE_NONE,
        doublequote=True,
        skipinitialspace=dialect.space_after,
        strict=strict,
    )
    if not escapes:
        yield from reader
        return
    plain = str.maketrans({_MASKS[0]: dialect.escape, _MASKS[1]: dialect.quote, _MASKS[2]: dialect.delimiter})
    for cells in reader:
        yield [cell.translate(plain) for cell in cells]


def _masked(lines: Iterable[str], dialect: Dialect) -> Iterator[str]:
    r"""The lines with one character of _MASKS for each escape and what it protects: itself, a quote, a delimiter.

    Anything else behind an escape stays as it is: ``C:\temp`` is a path, and ``\N`` a missing value.
    """
    escaped = {dialect.escape * 2: _MASKS[0], dialect.escape + dialect.delimiter: _MASKS[2]}
    if dialect.quote:
        escaped[dialect.escape + dialect.quote] = _MASKS[1]
    pattern = re.compile("|".join(map(re.escape, escaped)))
    for line in lines:
        yield pattern.sub(lambda match: escaped[match[0]], line)


def sample_rows(lines: list[str], dialect: Dialect, comment: str = "", first_line: int = 1) -> list[Row]:
    """Return the records of a sample that hold anything. Raises :class:`csv.Error` as :func:`rows` does."""
    return [row for row in rows(Lines(lines, comment, first_line), dialect) if row.cells]


def separator_line(line: str) -> str:
    """Return the delimiter that Excel's ``sep=;`` line names; empty where the line is none."""
    match = _SEP_LINE.fullmatch(line.strip("\r\n"))
    if match is None:
        return ""
    return "\t" if match[1] == "\\t" else match[1]


def detect(lines: list[str], *, delimiter: str = "", quote: str | None = None) -> Dialect:
    """Return the dialect that cuts most of ``lines`` into one same number of plain cells.

    ``delimiter`` and ``quote`` are what the task says; empty and None where it says nothing.
    """
    quotes = [quote] if quote is not None else _quotes(lines)
    candidates = []
    for mark in [delimiter] if delimiter else DELIMITERS:
        for quoting in quotes:
            candidates += _variants(lines, Dialect(mark, quoting))
    strict = {candidate: _is_strict(lines, candidate) for candidate in candidates}
    scored = [
        (_score(lines, candidate) * _belief(candidate, strict), -number, candidate)
        for number, candidate in enumerate(candidates)
    ]
    score, _, best = max(scored, key=lambda entry: entry[:2])
    if delimiter or score > 0:
        return best
    rare = [(_score(lines, Dialect(mark, quotes[0])), Dialect(mark, quotes[0])) for mark in _RARE if mark in lines[0]]
    if rare and max(rare, key=lambda entry: entry[0])[0] > _SURE:
        return max(rare, key=lambda entry: entry[0])[1]
    columns = Dialect(" ", quotes[0])
    if _is_aligned(lines, columns):
        return columns
    # Rows of many widths are no text of one column: they are refused later, with the line of each.
    torn = [mark for mark in DELIMITERS if f"{mark} " not in lines[0] and all(mark in line for line in lines)]
    return Dialect(torn[0] if len(lines) > 2 and torn else "", quotes[0])


def _belief(dialect: Dialect, strict: dict[Dialect, bool]) -> float:
    """A half where quotes stand where they should only if a backslash is an escape, or only if it is none."""
    other = replace(dialect, escape="" if dialect.escape else "\\")
    return 0.5 if strict.get(other, False) and not strict[dialect] else 1.0


def _is_strict(lines: list[str], dialect: Dialect) -> bool:
    """Whether each quote opens or closes a cell."""
    try:
        for _ in _cut(lines, dialect, strict=True):
            pass
    except csv.Error:
        return False
    return True


def _variants(lines: list[str], plain: Dialect) -> list[Dialect]:
    """The plain dialect first, then what the text shows signs of."""
    variants = [plain]
    if plain.quote:
        text = "".join(lines)
        if plain.delimiter != " " and f"{plain.delimiter} {plain.quote}" in text:
            variants.append(replace(plain, space_after=True))
        if f"\\{plain.quote}" in text or f"\\{plain.delimiter}" in text:
            variants += [replace(variant, escape="\\") for variant in list(variants)]
    return variants


def _quotes(lines: list[str]) -> list[str]:
    """Double quotes; single ones too where whole cells stand in them and nothing stands in double ones."""
    text = "".join(lines)
    single = len(re.findall(r"(?:^|[,;|\t])\s*'[^'\r\n]*'(?=\s*(?:[,;|\t\r\n]|$))", text, re.MULTILINE))
    return ["'", '"'] if '"' not in text and single >= max(2, len(lines) // 2) else ['"']


def _score(lines: list[str], dialect: Dialect) -> float:
    """How well the dialect fits: the share of lines of one width, times the share of plain cells; 0 for one column."""
    try:
        parsed = sample_rows(lines, dialect)
    except csv.Error:
        return 0.0
    if not parsed:
        return 0.0
    widths = Counter(len(row.cells) for row in parsed)
    width, count = max(widths.items(), key=lambda entry: (entry[1], entry[0]))
    if width < 2:
        if len(parsed) > 4 or len(widths) == 1:
            return 0.0
        width, count = max(((w, n) for w, n in widths.items() if w > 1), key=lambda entry: entry[::-1])
    share = count / len(parsed)
    if share < _CONSISTENT and not _settles(parsed, width):
        return 0.0
    cells = [cell for row in parsed if len(row.cells) == width for cell in row.cells]
    plain = sum(_plain(cell, dialect) for cell in cells) / len(cells)
    typed = sum(cell_kinds.is_typed(cell) or not cell.strip() for cell in cells) / len(cells)
    return share * (plain**2) * (0.7 + 0.3 * typed) + 0.001 * min(width, 20)


def _settles(parsed: list[Row], width: int) -> bool:
    """Whether the last lines all have this width: a short table below a long preamble."""
    tail = [len(row.cells) for row in parsed[-3:]]
    return len(parsed) <= 12 and len(tail) >= 2 and all(found == width for found in tail[-2:])


def _plain(cell: str, dialect: Dialect) -> float:
    """1 for a cell that holds no other delimiter and no stray quote; part of it for what is doubtful."""
    if cell_kinds.is_typed(cell) or not cell.strip():
        return 1.0
    if dialect.quote and dialect.quote in cell and (cell.startswith(dialect.quote) or cell.endswith(dialect.quote)):
        return 0.2
    if dialect.quote and cell.startswith(" " + dialect.quote):
        return 0.2
    return 0.5 if any(mark in cell for mark in ";\t|" if mark != dialect.delimiter) else 1.0


def _is_aligned(lines: list[str], dialect: Dialect) -> bool:
    """Whether blanks part the lines into columns, of which numbers give proof: words alone are a text."""
    parsed = [row.cells for row in sample_rows(lines, dialect)]
    if len(parsed) < 3 or len({len(cells) for cells in parsed}) != 1 or len(parsed[0]) < 2:
        return False
    columns = list(zip(*parsed[1:], strict=True))
    numeric = [all(cell_kinds.is_typed(cell) or cell_kinds.is_missing(cell) for cell in column) for column in columns]
    return sum(numeric) * 2 >= len(columns)


def _aligned_cells(line: str, quote: str) -> list[str]:
    if quote and quote in line:
        return next(csv.reader([" ".join(line.split())], delimiter=" ", quotechar=quote))
    return line.split()


def _unquoted(cell: str, quote: str) -> str:
    if quote and len(cell) >= 2 and cell.startswith(quote) and cell.endswith(quote):
        return cell[1:-1].replace(quote * 2, quote)
    return cell
