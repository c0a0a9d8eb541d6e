"""How hard a text is to read, by the formulas of its language."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import text_syllables


@dataclass
class Measures:
    """What the formulas are made of, counted over a text."""

    sentences: int = 0
    words: int = 0
    letters: int = 0
    syllables: int = 0
    one_syllable: int = 0
    three_syllables: int = 0
    long_words: int = 0

    def add(self, words: Mapping[str, int], sentences: int, code: str) -> None:
        """Count words, each as often as it was seen, and the sentences that they were in."""
        self.sentences += sentences
        for word, times in words.items():
            letters = sum(map(str.isalpha, word))
            self.words += times
            self.letters += letters * times
            self.long_words += times * (letters > 6)
            if code in text_syllables.SYLLABIC:
                count = text_syllables.syllables(word, code)
                self.syllables += count * times
                self.one_syllable += times * (count == 1)
                self.three_syllables += times * (count >= 3)


def scores(code: str, told: Measures) -> dict[str, float]:
    """The scores that suit the language; none for a text without words, or where words are not parted by spaces."""
    if not told.words or not told.sentences:
        return {}
    found = {name: formula(told) for name, formula in _FORMULAS.get(code, {}).items()}
    if code in _LIX:
        found["lix"] = told.words / told.sentences + 100 * told.long_words / told.words
        found["rix"] = told.long_words / told.sentences
    return found


def _per_sentence(told: Measures) -> float:
    return told.words / told.sentences


def _per_word(told: Measures) -> float:
    return told.syllables / told.words


_LIX = frozenset(
    (
        *("en", "de", "fr", "es", "it", "pt", "nl", "sv", "da", "no", "nb", "nn", "fi", "is", "et", "lv", "lt", "pl"),
        *("cs", "sk", "sl", "hr", "hu", "ro", "ca", "gl", "eu", "ga", "tr", "el", "ru", "uk", "bg", "be", "mk", "sr"),
    )
)
"""Languages whose words are letters side by side: what LIX counts. It says nothing of Hindi or Thai."""

_FORMULAS: dict[str, dict[str, Callable[[Measures], float]]] = {
    "en": {
        "flesch_reading_ease": lambda told: 206.835 - 1.015 * _per_sentence(told) - 84.6 * _per_word(told),
        "flesch_kincaid_grade": lambda told: 0.39 * _per_sentence(told) + 11.8 * _per_word(told) - 15.59,
        "gunning_fog": lambda told: 0.4 * (_per_sentence(told) + 100 * told.three_syllables / told.words),
        "smog": lambda told: 1.043 * math.sqrt(told.three_syllables * 30 / told.sentences) + 3.1291,
        "coleman_liau": lambda told: 5.88 * told.letters / told.words - 29.6 * told.sentences / told.words - 15.8,
        "automated_readability": lambda told: 4.71 * told.letters / told.words + 0.5 * _per_sentence(told) - 21.43,
    },
    "de": {
        "flesch_amstad": lambda told: 180 - _per_sentence(told) - 58.5 * _per_word(told),
        "wiener_sachtextformel": lambda told: (
            19.35 * told.three_syllables / told.words
            + 0.1672 * _per_sentence(told)
            + 12.97 * told.long_words / told.words
            - 3.27 * told.one_syllable / told.words
            - 0.875
        ),
    },
    "fr": {"kandel_moles": lambda told: 207 - 1.015 * _per_sentence(told) - 73.6 * _per_word(told)},
    "es": {
        "fernandez_huerta": lambda told: 206.84 - 1.02 * _per_sentence(told) - 60 * _per_word(told),
        "szigriszt_pazos": lambda told: 206.835 - _per_sentence(told) - 62.3 * _per_word(told),
    },
    "it": {"gulpease": lambda told: 89 + (300 * told.sentences - 10 * told.letters) / told.words},
    "pt": {"flesch_martins": lambda told: 248.835 - 1.015 * _per_sentence(told) - 84.6 * _per_word(told)},
    "nl": {"flesch_douma": lambda told: 206.84 - 0.93 * _per_sentence(told) - 77 * _per_word(told)},
    "ru": {"flesch_oborneva": lambda told: 206.835 - 1.3 * _per_sentence(told) - 60.1 * _per_word(told)},
}
"""By language: the published adaptations of Flesch's formula, and others made for the language."""
