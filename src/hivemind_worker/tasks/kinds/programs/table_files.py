"""Files as they come in: which format each has, its encoding and layout; made ready for duckdb."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import encodings_found
import given
import table_layout
import table_rows
import table_sheets

_SAMPLE_CHARACTERS = 256 * 1024
_MIN_LINES = 20
_MAX_SAMPLE = 16 * given.MIB
_OF_ROWS = ("skip", "header", "header_row", "comment", "bad_rows")
_UTF8 = frozenset({"utf-8", "utf8", "ascii", "us-ascii", "utf-8-sig"})
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_READ_BY_DUCKDB = {"": "none", "gzip": "gzip", "zstd": "zstd"}


@dataclass
class TableFile:
    """One file. ``plain`` is what duckdb reads: the file from ``layout.data_line`` on, or a copy in plain CSV."""

    name: str
    path: str
    size: int
    encoding: str
    confidence: float
    compression: str
    layout: table_layout.Layout
    plain: Path
    rewritten: bool = False
    outcome: table_rows.Outcome = field(default_factory=table_rows.Outcome)
    rows: int = 0
    text_columns: frozenset[str] = frozenset()
    format: str = "delimited text"
    uncut: tuple[str, ...] = ()
    """All columns of a file of which this is a part: parts of several files are read in one same order."""

    def described(self) -> dict[str, Any]:
        """Return what was assumed of this file and what was left out, for the result."""
        dialect = self.layout.dialect
        return {
            "name": self.name,
            "bytes": self.size,
            "rows": self.rows,
            "columns": list(self.layout.columns),
            "format": self.format,
            "encoding": self.encoding,
            "encoding_confidence": round(self.confidence, 3),
            "compressed": bool(self.compression),
            "compression": self.compression,
            "delimiter": dialect.delimiter,
            "quote": dialect.quote,
            "escape": dialect.escape or dialect.quote,
            "comment": self.layout.comment,
            "header": self.layout.header,
            "header_reason": self.layout.reason,
            "first_line": self.layout.first_line,
            "units": list(self.layout.units),
            "rows_left_out": self.outcome.left_out,
            "notes": self.notes(),
        }

    def notes(self) -> list[str]:
        """Return the sentences that a reader of the result should see."""
        notes = [*self.layout.notes, *self.outcome.notes()]
        if self.confidence < encodings_found.SURE:
            notes.insert(
                0,
                f"the encoding {self.encoding} is a guess ({self.confidence:.0%} sure); options.encoding settles it",
            )
        return notes


def prepare(path: str, options: dict[str, Any], scratch: Path) -> TableFile:
    """Find out how a file is written. Raises Refusal for what is no table.

    What duckdb cannot read as it is, is written into ``scratch`` as plain CSV; each file gets a plain name there,
    since duckdb would take a ``*`` in a path for a pattern.
    """
    stem = f"{sum(1 for _ in scratch.iterdir())}"
    format_ = table_sheets.find_format(path)
    if format_:
        return _converted(path, format_, options, scratch / stem)
    survey = encodings_found.survey(path, str(options.get("encoding", "")))
    layout = table_layout.detect(_sample(path, survey.encoding), options, given.shown(path))
    file = TableFile(
        given.shown(path),
        path,
        Path(path).stat().st_size,
        survey.encoding,
        survey.confidence,
        survey.compression,
        layout,
        scratch / f"{stem}.csv",
    )
    usual = (
        survey.encoding in _UTF8
        and survey.one_line_end
        and survey.compression in _READ_BY_DUCKDB
        and not (layout.comment and survey.hash_lines)
        and not layout.unusual
        and options.get("bad_rows") != "pad"
        and bool(layout.dialect.quote)
    )
    if usual:
        file.plain.symlink_to(Path(path).resolve())
    else:
        rewrite(file, options)
    return file


def _converted(path: str, format_: str, options: dict[str, Any], stem: Path) -> TableFile:
    """A sheet or JSON: written as CSV, in which the table is then found as in any other."""
    text = stem.with_suffix(".txt")
    result = table_sheets.write_csv(path, format_, options, text)
    own: dict[str, Any] = {
        name: options[name] for name in ("skip", "header", "header_row", "comment", "bad_rows") if name in options
    }
    if result.named:
        own = {"header_row": 1, "comment": ""}
    layout = table_layout.detect(
        _sample(str(text), "utf-8"), {**own, "delimiter": ",", "quote": '"'}, given.shown(path)
    )
    file = TableFile(
        given.shown(path),
        str(text),
        Path(path).stat().st_size,
        "utf-8",
        1.0,
        encodings_found.compression(path),
        replace(layout, notes=(*result.notes, *layout.notes)),
        stem.with_suffix(".csv"),
        text_columns=result.text_columns,
        format=result.format,
    )
    rewrite(file, own)
    return file


def rewrite(file: TableFile, options: dict[str, Any], parts: Sequence[table_rows.Part] = ()) -> None:
    """Read the file with care and write it as plain CSV, which has the very rows that fit; or parts of it."""
    parts = parts or [table_rows.Part(file.plain)]
    if file.plain.is_symlink():
        file.plain.unlink()
    pad = options.get("bad_rows") == "pad"
    try:
        file.outcome = table_rows.write_plain(_lines(file.path, file.encoding), file.layout, parts, pad=pad)
    except given.Refusal as refusal:
        raise given.Refusal(f"{file.name}: {refusal}") from None
    file.rewritten = True


def cut(files: Sequence[TableFile], names: Sequence[str], options: dict[str, Any], width: int) -> list[list[TableFile]]:
    """Return the files cut into tables of at most ``width`` columns of ``names``, row by row the same."""
    slices = [{name.lower() for name in names[start : start + width]} for start in range(0, len(names), width)]
    tables: list[list[TableFile]] = [[] for _ in slices]
    for file in files:
        places = [
            # A file without any of the columns brings its first one, so that its rows are there.
            tuple(at for at, name in enumerate(file.layout.columns) if name.lower() in chosen) or (0,)
            for chosen in slices
        ]
        paths = [file.plain.with_suffix(f".{number}.csv") for number in range(len(slices))]
        rewrite(file, options, [table_rows.Part(*pair) for pair in zip(paths, places, strict=True)])
        for table, path, own in zip(tables, paths, places, strict=True):
            columns = tuple(file.layout.columns[at] for at in own)
            layout = replace(file.layout, columns=columns)
            table.append(replace(file, plain=path, layout=layout, uncut=file.layout.columns))
    return tables


def duckdb_arguments(file: TableFile) -> tuple[str, ...]:
    """Return the arguments of duckdb's ``read_csv`` that the file needs, but for its columns."""
    if file.rewritten:
        return ("delim=','", "quote='\"'", "escape='\"'", "skip=0", "compression='none'", "new_line='\\r\\n'")
    dialect = file.layout.dialect
    quote = dialect.quote.replace("'", "''")
    return (
        f"delim='{dialect.delimiter}'",
        f"quote='{quote}'",
        f"escape='{quote}'",
        f"skip={file.layout.data_line - 1}",
        f"compression='{_READ_BY_DUCKDB[file.compression]}'",
    )


def _lines(path: str, encoding: str) -> Iterator[str]:
    """The physical lines, each with its end, which is any of the usual three."""
    rest = ""
    for piece in encodings_found.decoded(path, encoding):
        text = rest + piece
        lines = text.splitlines(keepends=True) if _only_line_ends(text) else _split(text)
        # A line end at the end of a piece may be half of one, and a line without one is unfinished.
        rest = lines.pop() if lines else ""
        yield from lines
    if rest:
        yield rest


def _only_line_ends(text: str) -> bool:
    """Whether splitlines would cut at line ends alone: it also cuts at form feeds and Unicode's separators."""
    return text.isascii() and not any(mark in text for mark in "\v\f\x1c\x1d\x1e")


def _split(text: str) -> list[str]:
    return [line for line in _LINE.findall(text) if line]


def _sample(path: str, encoding: str) -> list[str]:
    """The first lines: at least some, however long, and no more than a quarter of a million characters else."""
    lines: list[str] = []
    characters = 0
    for line in _lines(path, encoding):
        lines.append(line)
        characters += len(line)
        if characters >= (_SAMPLE_CHARACTERS if len(lines) >= _MIN_LINES else _MAX_SAMPLE):
            break
    if lines:
        lines[0] = lines[0].removeprefix("\ufeff")
    return lines
