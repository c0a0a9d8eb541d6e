"""Texts into words: Unicode's own boundaries by ICU; dictionaries for Chinese and Japanese; each language's letters.

A word is what Unicode's annex 29 parts and has a letter or a digit in it: a hyphen parts, an apostrophe does not.
"""

from __future__ import annotations

import functools
import importlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator

from icu4py.breakers import CharacterBreaker, WordBreaker

import text_languages
import text_sentences

_IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u0640\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufe00-\ufe0f\ufeff]"
)
"""Soft hyphens, direction marks, Arabic's tatweel and the like: they change how a word looks, not which it is.

ZWJ and ZWNJ are kept."""

_PRESENTED = re.compile("[\ufb00-\ufb06\ufb13-\ufb17\ufb50-\ufbb1\ufbd3-\ufd3d\ufe70-\ufefc]+")
"""Ligatures and Arabic presentation forms, as PDFs have them: shapes of letters, of which the words are made."""

_DIVIDED = re.compile("\u00ad[ \t]*\r?\n[ \t]*")
_JOINERS = "\u200c\u200d"
_CLAUSE = re.compile(r"[,;:()\[\]{}\"«»„“”‹›、，；：（）「」『』《》【】،؛՝፣፤፥፦᠂᠈꘍—―]")
_DASHES = frozenset("-–‐‑")
_TURKISH = str.maketrans({"I": "ı", "İ": "i"})
_OTHERWISE = str.maketrans({"İ": "i"})
_APOSTROPHES = str.maketrans("’＇ʼ", "'''")
_DOTTED = frozenset({"tr", "az", "crh", "tt", "gag"})
"""Languages whose capital I is of ı, and whose İ is of i."""

_ELIDING = frozenset({"fr", "it", "ca"})
_WHOLE = frozenset({"aujourd'hui", "quelqu'un", "quelqu'une", "presqu'île", "prud'homme", "prud'hommes"})
_HAN = "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_KANA = "\u3041-\u3096\u3099-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"
_BLOCKS = {
    "zh": re.compile(f"[A-Za-z0-9+#&]*[{_HAN}][A-Za-z0-9+#&{_HAN}]*"),
    "ja": re.compile(f"[{_HAN}{_KANA}]+"),
}
"""What goes to the dictionary: Chinese with the Latin letters that some of its words have; all else is ICU's."""

_HANGUL = re.compile(r"[\u1100-\u11ff\u3131-\u318e\ua960-\ua97f\uac00-\ud7a3\ud7b0-\ud7ff]")
_SPACED = re.compile(f"[^\\W_{_HAN}{_KANA}]+")

_CACHED = 100_000
"""Different pieces of text whose words are remembered: some 20 MB."""

_BREAK, _DASH = ("\n",), ("-",)
"""Marks among the words of a sentence: the end of a clause, and a dash, which is one between spaces."""


class Splitter:
    """Parts the paragraphs of one language into sentences, clauses and words in small letters."""

    def __init__(self, code: str) -> None:
        """For the language ``code``."""
        self._code = code
        self._pieces: dict[str, tuple[str, ...]] = {}
        self._cut = {"zh": _chinese, "ja": _japanese}[code]() if code in _BLOCKS else None

    def sentences(self, paragraph: str) -> Iterator[list[list[str]]]:
        """The clauses of each sentence: no run of words goes beyond a comma, a bracket or the like."""
        for sentence in text_sentences.sentences(plain(paragraph), self._code):
            yield self.clauses(sentence)

    def clauses(self, sentence: str) -> list[list[str]]:
        """The words of each clause of a sentence."""
        current: list[str] = []
        clauses, pieces = [current], self._pieces
        previous, dashed = "", False
        for segment in self._segments(sentence):
            words = pieces.get(segment)
            if words is None:
                words = self._learn(segment)
            if words is _DASH:
                dashed, previous = previous.isspace(), segment
                continue
            if words is _BREAK or (dashed and segment.isspace()):
                if current:
                    current = []
                    clauses.append(current)
            elif words:
                current += words
            previous, dashed = segment, False
        return clauses if current else clauses[:-1]

    def _segments(self, sentence: str) -> Iterable[str]:
        return _bounded(sentence) if self._cut is None else self._by_dictionary(sentence, self._cut)

    def _by_dictionary(self, sentence: str, cut: Callable[[str], list[str]]) -> Iterator[str]:
        at = 0
        for block in _BLOCKS[self._code].finditer(sentence):
            yield from _bounded(sentence[at : block.start()])
            yield from cut(block[0])
            at = block.end()
        yield from _bounded(sentence[at:])

    def _learn(self, segment: str) -> tuple[str, ...]:
        if len(self._pieces) >= _CACHED:
            self._pieces.clear()
        self._pieces[segment] = self._parted(segment)
        return self._pieces[segment]

    def _parted(self, segment: str) -> tuple[str, ...]:
        if not any(map(str.isalnum, segment)):
            if segment in _DASHES:
                return _DASH
            return _BREAK if _CLAUSE.search(segment) else ()
        word = small(segment, self._code)
        return tuple(_elided(word)) if self._code in _ELIDING else (word,)


def _bounded(text: str) -> Iterable[str]:
    """Unicode's word boundaries. ICU has one more, between Hangul and other letters or digits, which is none here."""
    segments = WordBreaker(text, "en")
    return segments if text.isascii() or not _HANGUL.search(text) else _rejoined(segments)


def _rejoined(segments: Iterable[str]) -> Iterator[str]:
    whole = ""
    for segment in segments:
        if whole and _HANGUL.search(whole[-1] + segment[0]) and _SPACED.fullmatch(whole[-1] + segment[0]):
            whole += segment
            continue
        if whole:
            yield whole
        whole = segment
    if whole:
        yield whole


def _elided(word: str) -> Iterator[str]:
    """The article or pronoun that lost its vowel, and the word behind it: l'eau, d'aujourd'hui."""
    while "'" in word and word not in _WHOLE:
        first, _, word = word.partition("'")
        if first:
            yield first
    if word:
        yield word


def plain(text: str) -> str:
    """The text in composed characters, letters for their ligatures, without what is not seen.

    A word divided at a line's end is whole again.
    """
    if text.isascii():
        return text
    letters = _PRESENTED.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)
    return unicodedata.normalize("NFC", _IGNORABLE.sub("", _DIVIDED.sub("", letters)))


def small(word: str, code: str) -> str:
    """A word in small letters, as its language has them, with one kind of apostrophe."""
    table = _TURKISH if code in _DOTTED else _OTHERWISE
    return word.translate(table).lower().translate(_APOSTROPHES).strip(_JOINERS)


def is_number(word: str) -> bool:
    """Whether a word is digits alone, or has no letter at least."""
    return not any(map(str.isalpha, word))


@functools.lru_cache(_CACHED)
def length(word: str) -> int:
    """Characters as readers count them: a letter with its marks is one."""
    return len(word) if word.isascii() else sum(1 for _ in CharacterBreaker(word, "en"))


def _chinese() -> Callable[[str], list[str]]:
    """The dictionary is of simplified words: what it cuts is the text in simplified characters, as long as it was."""
    cut = importlib.import_module("rjieba").cut

    def parted(block: str) -> list[str]:
        simple = text_languages.simplified(block)
        if len(simple) != len(block):
            return list(cut(block))
        parts, at = [], 0
        for word in cut(simple):
            parts.append(block[at : at + len(word)])
            at += len(word)
        return parts

    return parted


def _japanese() -> Callable[[str], list[str]]:
    analyzer = importlib.import_module("suzume").Suzume()
    return lambda block: [morpheme.surface for morpheme in analyzer.analyze(block)]
