"""Syllables of words, by the rules of each language's spelling; of English also the commonest words that break them."""

from __future__ import annotations

import functools
import re

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

_IRREGULAR = {
    1: """
        beat cheat eat friend friends great guard guards heat league meat neat sea seat squad square sweat tea threat
        tongue treat wheat yea
    """,
    2: """
        acres anxious awesome barely baseball basement beings beyond billion billions boyfriend brilliant business
        buyer buyers buying cafe careful catholic centre centres chaos chile chocolate closely colleague colleagues
        colonel comeback coupled creates cruel crying defeat desperate diamond diamonds diet duo dying earthquake
        elsewhere equal evening facebook fashion fire fired fires flour fluid flying forecast framework friendly
        friendship fuel gameplay genre giant giants girlfriend grateful guidelines handled hatred hire hired homeless
        homework hour hours household households hundred interest interests jr junior language largely lately layer
        layers laying layout lifestyle lifetime likely likewise lonely lovely loyal lying marriage maybe mayor merely
        metres million millions movement movements mr mrs naked namely nicely ok opera our ours paying peaceful
        pipeline placement platinum player players playing playoff playoffs poem poems poet praying privilege purely
        quantum quarter quarters quiet rarely react repeat retreat royal ruin ruined ruins sacred safely safety saying
        science senior settled several someday somehow something sometime sometimes somewhat somewhere statement
        statements staying struggled surely technique techniques thereby therefore timeline tire tired tires titled
        trying tv uk union unions unique useful useless vs warehouse wednesday wicked widely widespread wire wireless
    """,
    3: """
        achievement achievements acquire acquired actively adequate anime announcement annoying anyone applying areas
        arrangement arrangements australia australian awareness barrier barriers basically behavior behaviour
        brazilian bullying businesses carefully carrier carriers carrying civilian civilians companion completely
        convenience convenient created creating creation creative creator cycling desire desired desires destroying
        dialogue differently disabled earlier earliest easier elaborate empire employee employees employer employers
        enabled enforcement engagement enjoying entire entitled equally equation especially everyday everything
        everywhere excitement extremely familiar finale gambling genuine guarantee guaranteed guardian happier hawaii
        headquarters hopefully ideas improvement improvements influence influenced inspired interested interesting
        involvement israel italian korean languages linear loyalty management measurement measurements medium
        nonetheless nuclear opinion opinions ourselves parliament poetry practically precisely premium privately
        qualified qualify qualities quality quantity quarterly quietly ratio reaction reactions realise realised
        realize realized recipe recipes recovery replacement require required requirement requirements requires
        sciences scientist scientists severely somebody stadium struggling studying suicide temperature temperatures
        theater theatre typically unlikely usa valuable vegetables video videos whoever worrying
    """,
    4: """
        absolutely accurately anxiety appreciate associate associates california caribbean coalition definitely
        desperately diabetes effectively effectiveness elementary emotionally equality etc european everybody
        exclusively fortunately geographic geography influences influential laboratory marijuana mechanisms negotiate
        realistic reality recreation relatively requiring respectively scientific separately societies society
        specifically ultimately underlying variety whatsoever
    """,
    5: """
        appreciated appreciation approximately associated association associations automatically christianity
        cooperation creativity deliberately enthusiasm identifying ideology immediately initiated negotiations
        parliamentary theoretical unfortunately
    """,
    6: """
        extraordinary mediterranean simultaneously
    """,
}
"""The commonest English words whose syllables, as the CMU Pronouncing Dictionary has them, the rules miss."""

_COUNTS = {word: count for count, words in _IRREGULAR.items() for word in words.split()}


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
    stem = word.removesuffix("'s")
    if stem in _COUNTS:
        return _COUNTS[stem] + (stem != word and _SIBILANT.search(stem) is not None)
    return _estimated(word)


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
