"""Words and sentences against Unicode's own test files, and against texts of many scripts counted by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from icu4py import breakers
from uniseg import wordbreak

import text_input
import text_sentences
import text_words

UNICODE = Path("/usr/share/unicode/auxiliary")
BREAKERS = {
    "Word": breakers.WordBreaker,
    "Sentence": breakers.SentenceBreaker,
    "Grapheme": breakers.CharacterBreaker,
}
SINCE_15 = {
    "÷ 2701 × 200D × 2701 ÷": "U+2701 was a pictograph in Unicode 15, and is none in ICU's Unicode 17",
    "÷ 0061 × 200D × 2701 ÷": "as above",
}


@pytest.mark.parametrize("name", BREAKERS)
def test_boundaries_are_unicodes_own(name: str) -> None:
    file = UNICODE / f"{name}BreakTest.txt"
    if not file.exists():
        pytest.skip("needs Debian's unicode-data")
    facts = [line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines()]
    different = []
    for fact in filter(None, facts):
        parts = [part.replace("×", " ").split() for part in fact.strip("÷ ").split("÷")]
        expected = ["".join(chr(int(code, 16)) for code in part) for part in parts]
        if list(BREAKERS[name]("".join(expected), "en")) != expected:
            different.append(fact)
    assert len(facts) > 500
    assert set(different) <= set(SINCE_15)


MIXED = "ab'’.:,;_-é\u0301\u00ad\u200c\u200d12٣ אב״ עَر हि्न த்\r\n\u2028Жб👩🏽🇩🇪🇫 "


@settings(deadline=None)
@given(st.text(st.sampled_from(MIXED), max_size=24))
def test_boundaries_of_mixed_scripts_are_those_of_another_implementation(text: str) -> None:
    """Of scripts that Unicode's rules alone part: ICU has dictionaries for the others, Hangul among them."""
    assert list(breakers.WordBreaker(text, "en")) == list(wordbreak.words(text))


WORDS = {
    "hi": ("हिन्दी भारत की भाषा है।", 5),
    "ta": ("தமிழ் ஒரு செம்மொழி ஆகும்.", 4),
    "bn": ("আমি ভাত খাই।", 3),
    "ml": ("മലയാളം ഒരു ഭാഷയാണ്.", 3),
    "si": ("සිංහල ශ්‍රී ලංකාව.", 3),
    "he": ("שָׁלוֹם עוֹלָם", 2),
    "ar": ("مُحَمَّدٌ طَالِبٌ جَدِيدٌ.", 3),
    "fa": ("نمی‌آید کتاب‌ها", 2),
    "th": ("ภาษาไทยสวยงาม", 3),
    "lo": ("ພາສາລາວເປັນພາສາ", 4),
    "km": ("ភាសាខ្មែរ គឺជា ភាសា", 3),
    "ko": ("벌집의 벌들은 10년 iPhone을 SK텔레콤", 5),
    "vi": ("Tiếng Việt rất đẹp", 4),
    "en": ("It isn’t snake_case, 3.5 of 1,000 co\u00adoper\u00ad\nate: well-known.", 9),
    "tr": ("İSTANBUL IŞIK", 2),
}


@pytest.mark.parametrize("code", WORDS)
def test_words_of_many_scripts(code: str) -> None:
    text, count = WORDS[code]
    for written in (text, "\ufeff" + text, text.replace(" ", "  ")):
        (clauses,) = text_words.Splitter(code).sentences(written)
        assert sum(map(len, clauses)) == count, clauses


def test_small_letters_and_elisions() -> None:
    def words(code: str, text: str) -> list[str]:
        sentences = text_words.Splitter(code).sentences(text)
        return [word for clauses in sentences for clause in clauses for word in clause]

    assert words("tr", "İSTANBUL IŞIK İnsan") == ["istanbul", "ışık", "insan"]
    assert words("en", "İstanbul's ICE, ‘Don’t’") == ["istanbul's", "ice", "don't"]
    assert words("de", "Ver\u00adbin\u00addung VER\u00ad\nBINDUNG Straße") == ["verbindung", "verbindung", "straße"]
    assert words("fr", "L’eau d'aujourd’hui, quelqu’un n’a") == ["l", "eau", "d", "aujourd'hui", "quelqu'un", "n", "a"]
    assert words("en", "e\u0301te\u0301 été") == ["été", "été"]
    assert words("en", "ﬁnd the oﬃce ﬂow") == ["find", "the", "office", "flow"]
    assert words("ar", "ﻛﺘﺎﺏ ﻻ كتـــاب") == ["كتاب", "لا", "كتاب"]
    assert words("uk", "п'ять п’ять пʼять") == ["п'ять"] * 3
    assert [text_words.length(word) for word in ("हिन्दी", "été", "bee")] == [2, 3, 3]


def test_chinese_in_both_writings_is_cut_alike() -> None:
    def words(text: str) -> list[str]:
        return [word for clauses in text_words.Splitter("zh").sentences(text) for clause in clauses for word in clause]

    traditional = words("圖書館裡沒有電腦軟體開發的書，工程師學習機器學習。हिन्दी iPhone手機5公斤")
    simplified = words("图书馆里没有电脑软体开发的书，工程师学习机器学习。हिन्दी iPhone手机5公斤")
    assert list(map(len, traditional)) == list(map(len, simplified))
    assert {"圖書館", "沒有", "電腦", "工程師", "機器", "हिन्दी", "iphone", "手機", "5", "公斤"} <= set(traditional)


SENTENCES = {
    "en": ('He paid $3.50 to Mr. J. Doe, i.e. too much... "Why?" she asked. No. 5 it is. The answer is no. Go!', 5),
    "de": ("Das kostet ca. 5 Mio. Euro. Am 24. Dezember ist Weihnachten! Und Nr. 7? Ja. Dr. Müller kam.", 5),
    "el": ("Τι κάνεις; Καλά είμαι. Εσύ;", 3),
    "ur": ("یہ ایک کتاب ہے۔وہ اسکول جاتا ہے۔ موسم؟", 3),
    "hi": ("यह है। वह है॥ क्या?", 3),
    "am": ("ይህ መጽሐፍ ነው። እሱ ሄደ፧", 2),
    "hy": ("Բարև։ Ես եմ։", 2),
    "my": ("မင်္ဂလာပါ။ နေကောင်းလား။", 2),
    "km": ("ខ្ញុំ។ អ្នក។", 2),
    "ka": ("ეს წიგნია. ის კარგია.", 2),
    "th": ("ภาษาไทย\nฉันรัก", 2),
    "zh": ("他說：「好。」然後走了。\n真的嗎？！是的", 3),
    "ja": ("行く。「はい。」「いいえ。」終わり", 3),
    "ar": ("هل تعرف النحل؟ نعم أعرف. شكرا", 3),
    "fr": ("Wait… Puis il part : « Oui. » M. Dupont rit", 3),
}


@pytest.mark.parametrize("code", SENTENCES)
def test_sentences_of_many_scripts(code: str) -> None:
    text, count = SENTENCES[code]
    sentences = list(text_sentences.sentences(text, code))
    assert len(sentences) == count, sentences
    assert "".join(sentences).split() == text.split()


ABBREVIATED = [
    ("en", "The U.S. Army came. It lives in the U.S. He left. Washington D.C. Metro Police knew.", 4),
    ("en", "Smith et al. (2019) found it. So did Lee et al. Then came Sen. Jones, Gov. Brown and Lt. Hill.", 3),
    ("en", "Built ca. 1900 by Al. She has a Ph.D. in law. Call my rep. Now.", 4),
    ("en", "Shell Oil Co. Texas drilled. Acme Corp. Ltd sold bees.", 2),
    ("de", "Wir essen z. B. Brot. In Ländern, u. a. Polen, gilt i. d. R. Montag. Es ist d. h. Ende.", 3),
    ("es", "Vive en EE. UU. y vino en 44 a. C. César murió.", 1),
    ("fr", "Une ville, p. ex. Paris, est grande. Oui.", 2),
    ("ru", "Столица, т. е. Москва, велика. И т. д. Затем он ушёл.", 3),
    ("pl", "Są tu m.in. Niemcy i Czesi. Tak.", 2),
]


@pytest.mark.parametrize(("code", "text", "count"), ABBREVIATED)
def test_a_point_behind_an_abbreviation_ends_no_sentence(code: str, text: str, count: int) -> None:
    sentences = list(text_sentences.sentences(text, code))
    assert len(sentences) == count, sentences


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.sampled_from("abéñöüжщאבגحرفदक한글"), min_size=1, max_size=8), min_size=1, max_size=300))
def test_words_between_spaces_come_back(drawn: list[str]) -> None:
    """Whatever the sizes of the pieces in which a text is read, and wherever a long paragraph is cut."""
    text = " ".join(drawn) * 3
    expected = [text_words.small(word, "hu") for word in text_words.plain(text).split()]
    halves = [text[: len(text) // 3], text[len(text) // 3 :]]
    parts = text_input.paragraphs(iter(halves), "hu")
    splitter = text_words.Splitter("hu")
    sentences = (splitter.sentences(part) for part, _ in parts)
    assert [word for found in sentences for clauses in found for clause in clauses for word in clause] == expected


def test_a_long_paragraph_is_one_and_its_sentences_are_whole() -> None:
    text = "".join(f"Sentence number {at} is here.\n" for at in range(9_000)) + "\n\nA second one."
    pieces = [text[at : at + 7_001] for at in range(0, len(text), 7_001)]
    parts = list(text_input.paragraphs(iter(pieces), "en"))
    assert sum(first for _, first in parts) == 2
    assert len(parts) > 3
    sentences = [sentence for part, _ in parts for sentence in text_sentences.sentences(part, "en")]
    assert len(sentences) == 9_001
    thai = list(text_input.paragraphs(iter(["ภาษาไทยสวยงาม" * 8_000]), "th"))
    words = [word for part, _ in thai for clauses in text_words.Splitter("th").sentences(part) for word in clauses[0]]
    assert set(words) == {"ภาษา", "ไทย", "สวยงาม"}
    assert len(words) == 24_000
