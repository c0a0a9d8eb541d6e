"""What is counted of one text, and of all texts together."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import text_counting
import text_duplicates
import text_readability


@dataclass
class Document:
    """One text. Its words lie in a file until all texts are known."""

    file: str
    format: str
    encoding: str
    code: str
    sure: float
    bytes: int
    notes: list[str]
    characters: int = 0
    undecodable: int = 0
    paragraphs: int = 0
    numbers: int = 0
    telling: tuple[int, int] = (0, 0)
    scripts: Counter[str] = field(default_factory=Counter)
    sentence_lengths: Counter[int] = field(default_factory=Counter)
    word_lengths: Counter[int] = field(default_factory=Counter)
    measures: text_readability.Measures = field(default_factory=text_readability.Measures)
    fingerprint: text_duplicates.Fingerprint = field(default_factory=text_duplicates.Fingerprint)
    distinct: int = 0
    once: int = 0
    off: int = 0


@dataclass
class Corpus:
    """All texts."""

    options: dict[str, Any]
    words: text_counting.Counts
    documents: text_counting.Counts
    runs: dict[int, text_counting.Counts]
    max_entries: int
    parts: int = 0
    """Paragraphs, where there is one text: its keywords are those of few paragraphs."""

    @property
    def min_length(self) -> int:
        """Characters of the shortest word that is counted."""
        return int(self.options.get("min_length", 1))
