"""Where sentences end: Unicode's rules by ICU, then each language's abbreviations, initials and ordinals."""

from __future__ import annotations

import re
from collections.abc import Iterator

from icu4py.breakers import SentenceBreaker

UNSPACED = frozenset({"zh", "ja"})
"""Languages that put no space between words; their words are found by a dictionary."""

BY_LINE = UNSPACED | {"th", "lo"}
"""Languages in which a line break ends a sentence; elsewhere it is a space. Thai and Lao have no mark for an end."""

_CLOSERS = "\"'»”’)]}」』）】》›"
_OPENERS = "\"'«»„“‘([¿¡—–- "
_LATIN_ENDS = frozenset(".!?…")
"""Marks that end a sentence only before a space: a.b, http://x/?q, Yahoo!Inc. Those of other scripts need none."""

_ELLIPSIS = re.compile(rf"…[{re.escape(_CLOSERS)}]*\s+")
_LAST_WORD = re.compile(r"(\S+)$")
_LINE_BREAK = re.compile(r"[\t\n\v\f\r\x85\u2028\u2029]")
_ABBREVIATIONS = {
    "en": "mr mrs ms dr prof st sr jr vs e.g i.e cf inc ltd dept approx gen col sgt capt rev hon messrs mt viz co corp",
    "de": (
        "a d h i o s u v z dr prof hr fr bzw z.b d.h u.a ca vgl str evtl ggf inkl abs art geb gest sog mio mrd tsd "
        "zzgl exkl hrsg"
    ),
    "fr": "p.ex p ex m mm mme mlle dr pr cf env st ste av",
    "es": "ee a sr sra srta sres dr dra prof ud uds p.ej",
    "it": "sig sigg dott prof ing avv",
    "pt": "sr sra dr dra prof ex",
    "nl": "dhr mevr dr prof bijv ir drs",
    "ru": "г гг ул им е т.е т.д т.п",
    "pl": "m.in dr prof np mgr inż ul św",
    "sv": "dr prof t.ex bl.a dvs",
}
_TITLES = frozenset(("Lt", "Maj", "Cmdr", "Adm", "Sen", "Gov", "Rep", "Supt"))
"""Titles in English that are words without their capital."""

_EITHER = re.compile(r"(?:[A-Z]\.)+[A-Z]|al|Ph\.D")
"""What in English stands within a sentence (the U.S. Army, Smith et al. (2019)) as well as at the end of one."""

_FIRST_WORD = re.compile(r"\w*")
_STARTER_WORDS = """
    A After All Also Although An And Another Are As At Because Before But By Can Did Do Does Each Even Every Few Finally
    First For From He Her Here His How However I If In Is It Its Later Many Most My No Not Now On Once One Only Or Other
    Others Our She Since So Some Soon Such That The Their Then There These They This Those Thus To Today Two Under Until
    Was We Were What When Where While Who Why With You Your
"""
_STARTERS = frozenset(_STARTER_WORDS.split())
"""Words with which an English sentence begins after one of these."""

_NUMBERED = {
    "en": "ca no nos vol fig figs p pp sec ch eq jan feb mar apr jun jul aug sep sept oct nov dec",
    "de": "nr bd s abb kap jh",
    "fr": "no vol fig p pp art apr av janv févr juil sept oct nov déc",
    "es": "núm pág págs vol fig art",
    "it": "pag vol fig art n",
    "pt": "pág núm vol fig art",
    "nl": "nr blz art",
    "ru": "стр рис табл",
}
"""Abbreviations before a number alone: "No. 5", but "The answer is no. He left."."""

_ORDINALS = frozenset({"de", "da", "no", "nb", "nn", "fi", "cs", "sk", "pl", "hu", "hr", "sl", "et", "lv", "tr"})
"""Languages that write "the 3rd" as "3."."""


def sentences(paragraph: str, code: str) -> Iterator[str]:
    """The sentences of a paragraph. Line breaks become spaces where they end no sentence in that language."""
    text = paragraph if code in BY_LINE else _LINE_BREAK.sub(" ", paragraph)
    start = 0
    for end in _ends(text, code):
        if end < len(text) and _goes_on(text, start, end, code):
            continue
        if text[start:end].strip():
            yield text[start:end]
        start = end


def _ends(text: str, code: str) -> list[int]:
    """Where a sentence may end, by Unicode (UAX 29) and, which it leaves out, after an ellipsis and a space."""
    ends, at = [], 0
    for sentence in SentenceBreaker(text, "el" if code == "el" else "en"):  # Greek asks with a semicolon
        at += len(sentence)
        ends.append(at)
    if "…" in text:
        ends = sorted({*ends, *(match.end() for match in _ELLIPSIS.finditer(text))})
    return ends


def _goes_on(text: str, start: int, end: int, code: str) -> bool:
    """Whether what looks like an end is none: after an abbreviation, an initial, an ordinal, before a small letter.

    In Chinese and Japanese, where a quotation ends and the sentence around it has more to say.
    """
    before = text[start:end].rstrip()
    marked = before.rstrip(_CLOSERS)
    if code in UNSPACED:
        quoted = marked != before and text[end - 1] not in "\r\n"
        return quoted and text[end:].strip()[:1] not in {"", "「", "『", "“", "‘"}
    if marked[-1:] in _LATIN_ENDS and not text[end - 1].isspace():
        return True
    following = text[end : end + 20].lstrip().lstrip(_OPENERS)
    if (
        following[:1].islower() and following[:1].title() != following[:1]
    ):  # Georgian has small letters, and no capital to begin with
        return True
    if not marked.endswith(".") or marked.endswith(".."):
        return False
    word = _LAST_WORD.search(marked[:-1])
    return word is not None and _is_abbreviated(word[1].lstrip(_OPENERS), following, code)


def _is_abbreviated(word: str, following: str, code: str) -> bool:
    """Whether the point behind this word is the word's: ``following`` is what comes next."""
    small = word.lower()
    if code == "en" and (word in _TITLES or _EITHER.fullmatch(word)):
        return word in _TITLES or _FIRST_WORD.match(following)[0] not in _STARTERS  # type: ignore[index]  # matches all
    if small in _ALWAYS.get(code, ()) or (len(word) == 1 and word.isalpha() and word.isupper()):
        return True
    if small in _BEFORE_NUMBERS.get(code, ()):
        return following[:1].isdigit()
    return code in _ORDINALS and word.isdecimal() and len(word) <= 2


def _by_language(table: dict[str, str]) -> dict[str, frozenset[str]]:
    return {code: frozenset(words.split()) for code, words in table.items()}


_ALWAYS, _BEFORE_NUMBERS = _by_language(_ABBREVIATIONS), _by_language(_NUMBERED)
