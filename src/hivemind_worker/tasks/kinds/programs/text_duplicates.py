"""Which texts are the same, word for word, and which nearly are (MinHash over runs of three words)."""

from __future__ import annotations

import hashlib
import heapq
import itertools
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_HASHES = 256
"""Smallest hashes kept of a text: the similarity of two is then right to some ±0.06."""

NEAR = 0.8
"""From this share of common runs of three words two texts are called nearly the same."""

_COMMON = 50
"""A run that more texts have than this joins none of them: a licence or a footer."""


class Fingerprint:
    """What is remembered of a text: the digest of its words, and the smallest hashes of its runs of three."""

    def __init__(self) -> None:
        """Of a text without words."""
        self._digest = hashlib.sha256()
        self._smallest: list[int] = []  # a heap of negatives: the largest kept is first
        self._members: set[int] = set()
        self._last: tuple[str, ...] = ()

    def add(self, words: Sequence[str]) -> None:
        """Take the next words."""
        self._digest.update("".join(f"{word}\n" for word in words).encode("utf-8", "surrogatepass"))
        run = (*self._last, *words)
        for three in zip(run, run[1:], run[2:], strict=False):
            self._keep(zlib.crc32(" ".join(three).encode("utf-8", "surrogatepass")))
        self._last = run[-2:]

    @property
    def digest(self) -> str:
        """The same for texts of the same words in the same order, whatever their format, case and punctuation."""
        return self._digest.hexdigest()

    @property
    def hashes(self) -> frozenset[int]:
        """The smallest."""
        return frozenset(self._members)

    def _keep(self, value: int) -> None:
        if len(self._smallest) < _HASHES:
            if value not in self._members:
                self._members.add(value)
                heapq.heappush(self._smallest, -value)
        elif value < -self._smallest[0] and value not in self._members:
            self._members.remove(-heapq.heapreplace(self._smallest, -value))
            self._members.add(value)


@dataclass(frozen=True)
class Pair:
    """Two texts and the share of runs of three words that they have in common (Jaccard), 1 for the same words."""

    one: int
    other: int
    similarity: float


def pairs(prints: Sequence[tuple[str, frozenset[int]]]) -> list[Pair]:
    """The pairs of texts that are the same or nearly so, most alike first; ``prints`` are (digest, hashes)."""
    holders: dict[int, list[int]] = {}
    for number, (_, hashes) in enumerate(prints):
        for value in hashes:
            holders.setdefault(value, []).append(number)
    shared: Counter[tuple[int, int]] = Counter()
    for numbers in holders.values():
        if len(numbers) <= _COMMON:
            shared.update(itertools.combinations(numbers, 2))
    same = set(_same(prints))
    near = [
        Pair(one, other, round(similarity, 2))
        for one, other in shared
        if (one, other) not in same and (similarity := _similarity(prints[one][1], prints[other][1])) >= NEAR
    ]
    exact = [Pair(one, other, 1.0) for one, other in same]
    return sorted(exact + near, key=lambda pair: (-pair.similarity, pair.one, pair.other))


def _same(prints: Sequence[tuple[str, frozenset[int]]]) -> Iterable[tuple[int, int]]:
    """Each repetition with the first text of those words."""
    first: dict[str, int] = {hashlib.sha256().hexdigest(): -1}
    for number, (digest, _) in enumerate(prints):
        original = first.setdefault(digest, number)
        if original not in {-1, number}:
            yield original, number


def _similarity(one: frozenset[int], other: frozenset[int]) -> float:
    smallest = set(heapq.nsmallest(_HASHES, one | other))
    return len(smallest & one & other) / len(smallest)
