"""Words and runs of words counted in bounded memory; which words tell a text from others (TF-IDF)."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping


class Counts:
    """A counter of at most about ``most`` entries. Beyond it the rarest are forgotten (lossy counting).

    A count is then at most ``off`` too small, and what is missing was seen at most ``off`` times; with ``off`` 0 every
    count is exact.
    """

    def __init__(self, most: int) -> None:
        """Empty."""
        self._most = most
        self._counts: Counter[str] = Counter()
        self.total = 0
        self.off = 0

    def __len__(self) -> int:
        return len(self._counts)

    def __getitem__(self, entry: str) -> int:
        return self._counts[entry]

    def add(self, entries: Iterable[str]) -> None:
        """Count each of them."""
        self.update(Counter(iter(entries)))  # of a mapping its keys, each once

    def update(self, counts: Mapping[str, int]) -> None:
        """Count each as often as it was seen."""
        before = len(self._counts)
        self.total += sum(counts.values())
        self._counts.update(counts)
        if len(self._counts) > max(self._most, before):
            self._forget()

    def most_common(self, top: int) -> list[tuple[str, int]]:
        """The commonest, and among equals those that come first in the order of their characters."""
        if top * 20 < len(self._counts):
            least = self._counts.most_common(top)[-1][1]
            found = [pair for pair in self._counts.items() if pair[1] >= least]
        else:
            found = list(self._counts.items())
        return sorted(found, key=lambda pair: (-pair[1], pair[0]))[:top]

    def once(self) -> int:
        """How many entries were seen once."""
        return sum(count == 1 for count in self._counts.values())

    def items(self) -> Iterable[tuple[str, int]]:
        """Each entry with its count."""
        return self._counts.items()

    def _forget(self) -> None:
        """Down to half of the room: forgetting costs a walk over all, and must be rare."""
        by_count = Counter(self._counts.values())
        kept = len(self._counts)
        least = 0
        while kept > self._most // 2:
            least += 1
            kept -= by_count[least]
        self.off += least
        self._counts = Counter({entry: count - least for entry, count in self._counts.items() if count > least})


def runs(words: list[str], length: int, glue: str, idle: frozenset[str]) -> list[str]:
    """The runs of ``length`` words in a clause, but for those that begin or end with one of ``idle``."""
    return [
        glue.join(words[at : at + length])
        for at in range(len(words) - length + 1)
        if words[at] not in idle and words[at + length - 1] not in idle
    ]


def telling(
    counts: Iterable[tuple[str, int]], documents: Counts, number: int, top: int
) -> list[tuple[str, float, int, int]]:
    """The words that tell this text: (word, count x idf, count, documents that have it), the most telling first.

    idf = ln((1 + number) / (1 + documents that have it)) + 1, the usual smooth form: a word that all have still counts
    once.
    """
    scored = (
        (word, count * (math.log((1 + number) / (1 + documents[word])) + 1), count, documents[word])
        for word, count in counts
    )
    return sorted(scored, key=lambda row: (-row[1], row[0]))[:top]


def spread(lengths: Counter[int]) -> dict[str, float | int | None]:
    """Mean, median, least and greatest of counted lengths."""
    count = sum(lengths.values())
    if not count:
        return {"mean": None, "median": None, "min": None, "max": None}
    ordered = sorted(lengths)
    reached = list(itertools.accumulate(lengths[length] for length in ordered))
    low = next(length for length, upto in zip(ordered, reached, strict=True) if upto >= (count + 1) // 2)
    high = next(length for length, upto in zip(ordered, reached, strict=True) if upto >= count // 2 + 1)
    return {
        "mean": sum(length * times for length, times in lengths.items()) / count,
        "median": (low + high) / 2,
        "min": ordered[0],
        "max": ordered[-1],
    }
