"""Which language and which scripts a text is in, and which of the two writings of Chinese."""

from __future__ import annotations

import functools
import importlib
import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import Any

SAMPLE = 20_000
"""Characters by which a language is told."""

_ONE_LANGUAGE = {
    "hangul": "ko",
    "thai": "th",
    "lao": "lo",
    "khmer": "km",
    "myanmar": "my",
    "greek": "el",
    "hebrew": "he",
    "tamil": "ta",
    "telugu": "te",
    "kannada": "kn",
    "malayalam": "ml",
    "gujarati": "gu",
    "gurmukhi": "pa",
    "oriya": "or",
    "sinhala": "si",
    "georgian": "ka",
    "armenian": "hy",
    "ethiopic": "am",
    "mongolian": "mn",
}
"""Scripts by which the language is known."""

_MORE = "am az be cy is jv ka kk km kn ky lb lo mg mk ml mn mt my ne or pa ps rw si sq sr ta te tg tk ug uz xh"
"""Languages told beside those with a list of common words; rarer ones are taken for their neighbours too often."""

_NAMES = {"cjk": "han", "hiragana": "kana", "katakana": "kana", "halfwidth": "kana", "katakana-hiragana": "kana"}


def scripts(text: str) -> Counter[str]:
    """How many letters of each script the text has."""
    counted: Counter[str] = Counter()
    for character, times in Counter(text).items():
        script = _script(character)
        if script:
            counted[script] += times
    return counted


def language(paragraphs: Iterable[str]) -> tuple[str, float]:
    """Tell the language of a text by its first pages, as a code and how sure that is (0 to 1); "" where it has none."""
    sample = ""
    for paragraph in paragraphs:
        sample += paragraph + "\n"
        if len(sample) >= SAMPLE:
            break
    counted = scripts(sample)
    letters = counted.total()
    if not letters:
        return "", 0.0
    if (counted["han"] + counted["kana"]) > 0.3 * letters:
        # Any Japanese sentence has kana: they hold its grammar.
        return ("ja", 1.0) if counted["kana"] > 0.1 * (counted["han"] + counted["kana"]) else ("zh", 1.0)
    script, times = counted.most_common(1)[0]
    if script in _ONE_LANGUAGE and times > 0.3 * letters:
        return _ONE_LANGUAGE[script], 1.0
    code, sure = _identifier().classify(sample[:SAMPLE])
    return str(code), float(sure)


def telling_characters(text: str) -> tuple[int, int]:
    """How many characters of a Chinese text only the traditional writing has, and how many only the simplified."""
    return _changed(text, simplified(text)), _changed(text, _converter("s2t").convert(text))


def variant(traditional: int, simple: int) -> str:
    """Which writing of Chinese, by the characters that only one of them has; "" where there are none."""
    if not traditional + simple:
        return ""
    return "traditional" if traditional >= simple else "simplified"


def simplified(text: str) -> str:
    """Chinese text in simplified characters."""
    return str(_converter("t2s").convert(text))


def _changed(text: str, other: str) -> int:
    return sum(one != two for one, two in zip(text, other, strict=False))


@functools.cache
def _converter(name: str) -> Any:
    return importlib.import_module("opencc").OpenCC(name)


@functools.cache
def _script(character: str) -> str:
    """The first word of a letter's name in Unicode; "" for what is no letter."""
    if not character.isalpha():
        return ""
    first = unicodedata.name(character, "").split(" ")[0].lower()
    if first == "fullwidth":
        return "latin"
    if first in {"feminine", "masculine", "modifier"}:  # ª, º and the like: of no script
        return ""
    return _NAMES.get(first, first)


@functools.cache
def _identifier() -> Any:
    """The model of languages, loaded when it is needed: it takes a second."""
    langid = importlib.import_module("py3langid.langid")
    model = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
    with_words = importlib.import_module("stopwordsiso").langs()
    model.set_languages(sorted((with_words | set(_MORE.split())) & set(model.labels)))
    return model
