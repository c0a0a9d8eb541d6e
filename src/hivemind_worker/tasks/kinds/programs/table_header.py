"""Where a table begins in its file, and whether its first row names the columns. Judged by a sample of rows. Pure."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass

import cell_kinds
from table_dialect import Row

MAX_PREAMBLE = 100
"""Rows above a table at most."""

_CELLS = 200_000
_BELOW = 200
"""Rows below a candidate that are looked at."""

_MOSTLY = 0.9
"""Share of a column's cells that are of one kind for the column to be of it: some cells are always odd."""


_USUAL_NAMES = frozenset({"date", "id", "index", "key", "name"})
"""First cells that name a column also where names of other columns are missing."""


@dataclass(frozen=True)
class Start:
    """Where the table begins: ``first`` is the index of the header, or of the first data row where there is none."""

    first: int
    header: bool
    units: bool
    reason: str


class Sample:
    """The rows of a sample and the kind of each cell, computed once."""

    def __init__(self, rows: list[Row], width: int) -> None:
        """Look at as many rows as make up some hundred thousand cells."""
        self.rows = rows[: MAX_PREAMBLE + max(5, min(_BELOW, _CELLS // max(1, width)))]
        self.width = width
        self.kinds = [[kind(cell) for cell in row.cells] for row in self.rows]
        self._repeated: dict[int, list[int]] = {}

    def below(self, first: int) -> list[int]:
        """Return the indices of the rows below ``first`` that have the table's width and do not repeat that row."""
        if first not in self._repeated:
            cells = self.rows[first].cells
            rows = range(first + 1, len(self.rows))
            own = plain_names(cells)
            self._repeated[first] = [
                at for at in rows if len(self.kinds[at]) == self.width and not is_repeated(self.rows[at].cells, own)
            ][:_BELOW]
        return self._repeated[first]

    def column_kinds(self, first: int) -> list[str]:
        """Return what nearly all cells of each column below ``first`` are; empty where they are missing."""
        below = self.below(first)
        found = []
        for at in range(self.width):
            counts = Counter(self.kinds[row][at] for row in below)
            filled = sum(counts.values()) - counts["missing"]
            common, count = max(counts.items(), key=lambda pair: (pair[0] != "missing", pair[1]), default=("", 0))
            found.append("" if not filled else common if count >= _MOSTLY * filled else "text")
        return found


def kind(cell: str) -> str:
    """Return ``missing``, ``number``, ``date``, ``truth`` or ``text``."""
    if cell_kinds.is_missing(cell):
        return "missing"
    if cell_kinds.is_number(cell):
        return "number"
    if not cell_kinds.is_typed(cell):
        return "text"
    return "truth" if cell.strip().isalpha() else "date"


def plain_names(cells: list[str]) -> tuple[str, ...]:
    """Return the cells of a header as they are compared with other rows."""
    return tuple(map(_plain, cells))


def is_repeated(cells: list[str], names: tuple[str, ...]) -> bool:
    """Whether a row is the header once more, but for blanks, capitals and byte order marks; ``names`` are plain."""
    return len(cells) == len(names) and _plain(cells[-1]) == names[-1] and tuple(map(_plain, cells)) == names


def _plain(cell: str) -> str:
    return cell.replace("\ufeff", "").strip().casefold()


def table_width(rows: list[Row]) -> int:
    """Return the number of cells that most rows have; of several as common ones the last."""
    counts: dict[int, int] = {}
    for row in rows:
        counts[len(row.cells)] = counts.get(len(row.cells), 0) + 1
    last = {len(row.cells): at for at, row in enumerate(rows)}
    return max(counts, key=lambda width: (counts[width], last[width]))


def find_start(rows: list[Row], width: int) -> Start:
    """Return where the table begins among ``rows``, none of which is blank."""
    sample = Sample(rows, width)
    candidates = range(min(MAX_PREAMBLE, len(sample.rows)))
    scored = [(_evidence(sample, at), -at) for at in candidates if len(sample.rows[at].cells) in {width, width - 1}]
    evidence, place = max(scored, default=(0, 0))
    if evidence <= 0:
        first = _first_full(sample)
        header, reason = is_header(sample, first)
        return Start(first, header, header and _has_units(sample, first), reason)
    first = _topmost(sample, -place, evidence)
    if first > 0 and _is_unit_row(sample.rows[first]) and _may_name(sample.rows[first - 1], width):
        return Start(
            first - 1, header=True, units=True, reason="the rows below the names and the units are of other kinds"
        )
    header, reason = is_header(sample, first)
    return Start(first, header, header and _has_units(sample, first), reason)


def is_header(sample: Sample, first: int) -> tuple[bool, str]:
    """Return whether the row names the columns, and by which sign."""
    names = sample.rows[first].cells
    if not any(name.strip() for name in names):
        return False, "the first row is empty"
    below = sample.below(first)
    kinds = sample.kinds[first]
    if not below:
        words = all(found in {"text", "missing"} for found in kinds)
        return words, "there is one row" if words else "the only row holds values"
    if len(names) != sample.width:
        return True, "the row of names is shorter than the rows below"
    columns = sample.column_kinds(first)
    pairs = list(enumerate(zip(kinds, columns, strict=True)))
    differ = [at for at, (own, column) in pairs if column not in {"", "text", own} and own != "missing"]
    same = [at for at, (own, column) in pairs if own in {"number", "date", "truth"} and own == column]
    valued = [at for at, (own, _) in pairs if own in {"number", "date", "truth"} and at not in differ]
    if not valued:
        if differ:
            return True, "the cells below are numbers or dates, and the first row's are not"
        return _words_name(sample, first)
    if _numbers_name(sample, first, valued):
        return True, "the numbers of the first row count up, as names do"
    if len(differ) > len(same):
        return True, "most cells below are of another kind than the first row's"
    return False, "the first row holds values as the rows below do"


def column_names(
    cells: list[str], width: int, reserved: frozenset[str] = frozenset()
) -> tuple[tuple[str, ...], list[str]]:
    """Return a name for each column, and what had to be changed: SQL tells names apart without regard to case."""
    found: list[str] = []
    notes: list[str] = []
    used = set(reserved)
    for number in range(1, width + 1):
        cell = cells[number - 1] if number <= len(cells) else ""
        plain = " ".join(cell.replace("\0", "").replace("\ufeff", "").split())
        name = plain or f"column_{number}"
        unique, suffix = name, 2
        while unique.lower() in used:
            unique, suffix = f"{name}_{suffix}", suffix + 1
        if plain and unique != plain and plain.lower() not in reserved:
            notes.append(f"column {number} has the name of another, {plain!r}; it is called {unique!r} here")
        used.add(unique.lower())
        found.append(unique)
    return tuple(found), notes


def _evidence(sample: Sample, first: int) -> int:
    """How many columns below are numbers, dates or truth values where this row has words; 0 where it cannot be."""
    kinds = sample.kinds[first]
    if len(kinds) != sample.width or not sample.below(first):
        return 0
    columns = sample.column_kinds(first)
    typed = [at for at, column in enumerate(columns) if column not in {"", "text"}]
    count = sum(kinds[at] == "text" for at in typed)
    for above in range(first):
        found = sample.kinds[above]
        if len(found) == sample.width and any(found[at] == columns[at] for at in typed) and _filled(found) > 2:
            return 0  # data stand above: this row is one of them, with a word among its numbers
        if len(found) == sample.width == 2 and any(found[at] == columns[at] for at in typed) and count < 2:
            return 0
    if any(kinds[at] == columns[at] for at in typed) and count * 2 <= len(typed):
        return 0 if not _numbers_name(sample, first, [at for at in typed if kinds[at] == columns[at]]) else count + 1
    return count


def _topmost(sample: Sample, first: int, evidence: int) -> int:
    """The row of names where several rows of words follow each other above numbers.

    A word among a column's numbers (``Ann,pending``) looks like a name, so the first of them it is, unless this row has
    words in all columns of numbers, and there is no other column.
    """
    if evidence == sample.width:
        return first
    at = first
    while at > 0 and sample.rows[at - 1].last_line + 1 == sample.rows[at].line and _could_name(sample, at - 1):
        at -= 1
    return at


def _could_name(sample: Sample, at: int) -> bool:
    cells, kinds = [cell.strip() for cell in sample.rows[at].cells], sample.kinds[at]
    if len(cells) != sample.width or _filled(kinds) < max(2, sample.width - 1):
        return False
    return all(found in {"text", "missing"} for found in kinds) and not any(cell.endswith(":") for cell in cells)


def _first_full(sample: Sample) -> int:
    """The first row of the table's width, where only titles and remarks stand above it; else the first of all."""
    for at, row in enumerate(sample.rows[:MAX_PREAMBLE]):
        if len(row.cells) != sample.width:
            continue
        if sample.width > 2 and _filled(sample.kinds[at]) <= 1 and at + 1 < len(sample.rows):
            continue  # a title, padded with delimiters
        above = [kinds for kinds in sample.kinds[:at] if _filled(kinds) > 1]
        remarks = all("text" in kinds for kinds in above)
        named = not above or (_may_name(row, sample.width) and is_header(sample, at)[0])
        return at if remarks and named else 0
    return 0


def _filled(kinds: list[str]) -> int:
    return sum(found != "missing" for found in kinds)


def _may_name(row: Row, width: int) -> bool:
    cells = [cell.strip() for cell in row.cells]
    return len(cells) == width and all(cells) and not any(cell_kinds.is_typed(cell) for cell in cells)


def _is_unit_row(row: Row) -> bool:
    cells = [cell for cell in row.cells if cell.strip()]
    return len(cells) > 0 and all(map(cell_kinds.is_unit, cells))


def _has_units(sample: Sample, first: int) -> bool:
    """Whether the row below the names is one of units: no value of any column, and numbers below."""
    row = first + 1
    if row + 1 >= len(sample.rows) or len(sample.rows[row].cells) != sample.width:
        return False
    columns = sample.column_kinds(row)
    return _is_unit_row(sample.rows[row]) and all(
        own == "missing" or column in {"number", "date", ""}
        for own, column in zip(sample.kinds[row], columns, strict=True)
        if own != "missing"
    )


def _words_name(sample: Sample, first: int) -> tuple[bool, str]:
    """All columns are words: the first row names them unless a column has its word again."""
    names = [name.strip() for name in sample.rows[first].cells]
    below = sample.below(first)
    for at, name in enumerate(names):
        if name and any(sample.rows[row].cells[at].strip() == name for row in below):
            return False, "a cell of the first row stands again below it"
    if names[0].casefold() in _USUAL_NAMES:
        return True, f"{names[0]!r} is a usual name of a first column"
    if not all(names[1:]) and any(names):
        inner = [at for at, name in enumerate(names) if not name and 0 < at < max(i for i, n in enumerate(names) if n)]
        if inner:
            return False, "the first row has gaps as data have"
    return True, "no cell of the first row stands again below it"


def _numbers_name(sample: Sample, first: int, places: list[int]) -> bool:
    """Whether numbers are names: years, or counting up in equal steps, beside words or above broken numbers."""
    row = sample.rows[first].cells
    texts = [row[at].strip() for at in places]
    if not texts or not all(text.isascii() and text.isdigit() and len(text) <= 5 for text in texts):
        return False
    numbers = [int(text) for text in texts]
    below = [[sample.rows[at].cells[place].strip() for place in places] for at in sample.below(first)]
    words = any(found in {"text", "missing"} for found in sample.kinds[first])
    cells = [cell for cells in below for cell in cells if not cell_kinds.is_missing(cell)]
    broken = sum(not cell.isdigit() for cell in cells) > 0.5 * len(cells)
    step = _step(numbers)
    steps = [_step([int(cell) if cell.isdigit() and len(cell) < 10 else 0 for cell in cells]) for cells in below]
    alike = [found == step for found in steps]
    if all(map(_is_year, texts)) and len(set(numbers)) == len(numbers) and (words or abs(step) == 1):
        few_years = sum(map(_is_year, cells)) < 0.5 * max(1, len(cells))
        return few_years or (abs(step) == 1 and words and not any(alike))
    if not words and not broken:
        return False
    counted = len(numbers) > (1 if words else 2) and (abs(step) == 1 if len(numbers) == 2 else step != 0)
    return counted and not any(alike)


def _is_year(text: str) -> bool:
    return text.isdigit() and len(text) == 4 and 1700 <= int(text) <= 2200


def _step(numbers: list[int]) -> int:
    """By how much the numbers count up or down; 0 where the steps differ."""
    steps = {after - before for before, after in itertools.pairwise(numbers)}
    return steps.pop() if len(steps) == 1 else 0
