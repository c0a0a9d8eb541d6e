"""Which encoding bytes are in that are no UTF-8: the one in which they are words of one language. Pure.

A letter alone does not tell (0xF1 is ñ in Windows-1252 and ń in Windows-1250): what tells is whether all the letters
are of one language, whether they stand where letters stand, and which language the words beside them are in.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

_LATIN = {
    "es": "ñáéíóúü¿¡ªº",
    "fr": "éèêëàâçîïôùûüÿœæ",
    "de": "äöüß",
    "pt": "ãõáâàçéêíóôúüªº",
    "it": "àèéìòùîªº",
    "nl": "ëïéèöüáó",
    "sv": "åäöé",
    "da": "æøåé",
    "no": "æøåéòô",
    "fi": "äöå",
    "is": "áðéíóúýþæö",
    "ca": "àèéíïòóúüç·",
    "pl": "ąćęłńóśźż",
    "cs": "áčďéěíňóřšťúůýž",
    "sk": "áäčďéíĺľňóôŕšťúýž",
    "hu": "áéíóöőúüű",
    "hr": "čćđšž",
    "ro": "ăâîșțşţ",
    "tr": "çğıİöşüâîû",
    "lt": "ąčęėįšųūž",
    "lv": "āčēģīķļņšūž",
    "et": "äöõüšž",
    "vi": "ăâđêôơưáàảãạéèẻẽẹíìỉĩịóòỏõọúùủũụýỳỷỹỵ\u0300\u0301\u0303\u0309\u0323",
}
_OTHER = {
    "ru": "оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфъё",
    "uk": "оанивітерслкудмпяьзбгчйхжцєїюшщфґ",
    "bg": "аиоентрсвлкдпмзяъгбучцйжшхфщью",
    "sr": "аоиенрсјтукдвпмлзгбшчцћњжхђљфџ",
    "el": "αοιετσνηυρπκμλςωίγδάόθχέύφήβξώζψϊϋΐΰ",
    "he": "יוהלארתבשמםנדכקחעצטגפזסןךףץ",
    "ar": "اليمنتروبةعدسفكهقحجشصطخضذثزغئىءظآؤأإ",
    "th": "ารนกอเงมย่ลวด้ทสตะปบคหีัจพิชขใไุ็ูืแโถผซ์ธณำศฟญภษ๊๋ฉฐฎฑฌฏฒฝฆฬฮฤๆๅฺ๏ฯ฿ฃฅ๐๑๒๓๔๕๖๗๘๙",
}
_WEST = ("es", "fr", "de", "pt", "it", "nl", "sv", "da", "no", "fi", "is", "ca")
_EAST = ("pl", "cs", "sk", "hu", "hr", "ro", "de")
_CYRILLIC = ("ru", "uk", "bg", "sr")

_SINGLE: tuple[tuple[str, tuple[str, ...], float], ...] = (
    ("cp1252", _WEST, 1.0),
    ("cp1250", _EAST, 0.99),
    ("cp1251", _CYRILLIC, 1.0),
    ("koi8-r", ("ru", "bg"), 0.99),
    ("koi8-u", ("uk",), 0.98),
    ("cp1253", ("el",), 1.0),
    ("cp1254", ("tr",), 0.99),
    ("cp1255", ("he",), 1.0),
    ("cp1256", ("ar",), 1.0),
    ("cp1257", ("lt", "lv", "et"), 0.98),
    ("cp1258", ("vi",), 0.97),
    ("cp874", ("th",), 0.98),
    ("iso8859-2", _EAST, 0.98),
    ("iso8859-5", _CYRILLIC, 0.97),
    ("iso8859-7", ("el",), 0.98),
    ("iso8859-15", _WEST, 0.96),
    ("cp866", ("ru", "bg"), 0.97),
    ("cp850", _WEST, 0.93),
    ("cp852", _EAST, 0.88),
    ("mac_roman", _WEST, 0.93),
    ("mac_cyrillic", ("ru",), 0.9),
)
"""Encodings with the languages that are written in them, and how much to believe in one where all else is equal."""

_SIGNS = frozenset("“”„‘’‚–—…«»€°§©®™½¼¾·²³×±µ\u00a0´¨£¥¢¡¿†•№‰→\u200e\u200f\u200c،؟؛ـ")

_SIGNS_WITHIN = re.compile(r"(?<=[A-Za-z])[^\w\s\x00-\x7f\u0300-\u036f]*[๐-๙]+[^\w\s\x00-\x7f]*(?=[A-Za-z])")
"""Thai digits, and signs beside them, within a Latin word: ``Gr๖฿e`` is ``Größe``."""


@dataclass(frozen=True)
class Guess:
    """An encoding by Python's name, the language that speaks for it, and how sure that is, up to 1."""

    encoding: str
    language: str
    confidence: float


_FEW = 20
"""Letters beyond ASCII below which chance may make them words of another language."""

_NEAR = 0.035
"""Scores within which the words decide, not the letters."""

_FEW_IDEOGRAPHS = 100
"""Letters beyond ASCII below which Chinese or Korean may as well be Japanese without kana."""

_IDEOGRAPHS_ALONE = 0.6
"""Score of Japanese without kana, such as a list of names: a guess at best."""

_SURE_OF_FEW = 0.75
_ONE_LETTER_WORDS = frozenset("àáâåæéèêíîöóòôøúüýÀÁÅÉÈÍÓÖØÚ")

LanguageJudge = Callable[[str], dict[str, float]]
"""Takes a text, and returns how likely each language is, by its code of two letters."""


def judge(sample: bytes, languages: LanguageJudge) -> Guess | None:
    """Return the likeliest encoding of ``sample``, which holds more than ASCII; None where no encoding fits."""
    scored = [*_many_bytes(sample), *_one_byte(sample)]
    if not scored:
        return None
    best = max(score for score, *_ in scored)
    if best < 0.5:
        return None
    few = sum(byte >= 0x80 for byte in sample) < _FEW
    near = [entry for entry in scored if entry[0] >= best - _NEAR]
    texts: dict[str, list[tuple[float, str, list[str]]]] = {}
    for score, encoding, spoken, text in near:
        texts.setdefault(text, []).append((score, encoding, spoken))
    if len(texts) == 1:
        score, encoding, spoken = max(texts[near[0][3]], key=lambda entry: entry[0])
        return Guess(encoding, spoken[0], min(0.99, score, _doubt(scored, near[0][3], best, few=few)))
    chances: dict[str, float] = {}
    spoken_in: dict[str, str] = {}
    for text, entries in texts.items():
        score, encoding, _ = max(entries, key=lambda entry: entry[0])
        own = list(dict.fromkeys(language for _, _, spoken in entries for language in spoken))
        likely = languages(text)
        chances[encoding] = score * (sum(likely.get(language, 0.0) for language in own) + 1e-6)
        spoken_in[encoding] = max(own, key=lambda language: likely.get(language, 0.0))
    encoding = max(chances, key=lambda name: chances[name])
    chosen = next(text for _, own, _, text in near if own == encoding)
    sure = min(best, chances[encoding] / sum(chances.values()), _doubt(scored, chosen, best, few=few))
    return Guess(encoding, spoken_in[encoding], sure)


def _doubt(scored: list[tuple[float, str, list[str], str]], text: str, best: float, *, few: bool) -> float:
    """How sure a guess by a few letters can be where they could be other words as well."""
    others = [(score, encoding) for score, encoding, _, other in scored if other != text]
    rivals = any(score >= 0.75 * best for score, _ in others)
    if few and rivals:
        return _SURE_OF_FEW
    is_short = sum(not letter.isascii() for letter in text) < _FEW_IDEOGRAPHS
    has_kana = any("\u3040" <= letter <= "\u30ff" for letter in text)
    may_be_japanese = not has_kana and any(encoding in {"cp932", "euc_jp"} for _, encoding in others)
    return _SURE_OF_FEW if is_short and may_be_japanese else 1.0


def _one_byte(sample: bytes) -> list[tuple[float, str, list[str], str]]:
    guesses = []
    for encoding, languages, prior in _SINGLE:
        try:
            text = sample.decode(encoding)
        except UnicodeDecodeError:
            continue
        if any("\x80" <= letter <= "\x9f" for letter in text):
            continue
        shape = _shape(text)
        scores = {language: _coverage(text, language) * shape * prior for language in languages}
        best = max(scores.values())
        spoken = [language for language, score in scores.items() if score >= best - 0.02]
        guesses.append((best, encoding, spoken, text))
    return guesses


def _coverage(text: str, language: str) -> float:
    """The share of the letters beyond ASCII that the language writes; signs count half for it."""
    own = _LATIN.get(language) or _OTHER[language]
    foreign = [letter for letter in text if not letter.isascii()]
    letters = sum(letter.lower() in own or letter in own for letter in foreign)
    signs = sum(letter in _SIGNS and letter not in own for letter in foreign)
    if not letters:
        return 0.9 * signs / len(foreign)
    # Two scripts in one word are no word, so foreign letters weigh double.
    others = len(foreign) - letters - signs
    share = max(0.0, (letters + 0.9 * signs - others) / len(foreign))
    return share * (0.75 + 0.25 * _commonness(foreign, own)) if language in _OTHER else share


def _commonness(foreign: list[str], own: str) -> float:
    """How common the letters are in the language, of which ``own`` has the commonest first; 1 for ordinary text."""
    places = [own.index(letter.lower()) for letter in foreign if letter.lower() in own]
    return min(1.0, 1.45 * (1 - sum(places) / len(places) / len(own))) if places else 0.0


def _shape(text: str) -> float:
    """The share of letters beyond ASCII that stand as letters do: capitals at the start, signs not within a word."""
    odd = total = 0
    for before, letter, after in zip(" " + text, text, text[1:] + " ", strict=False):
        if letter.isascii():
            continue
        total += 1
        if letter.isalpha():
            odd += _is_odd_letter(before, letter, after)
        elif unicodedata.combining(letter):
            # A mark of a script of its own stands upon a letter of that script.
            of_a_script = not unicodedata.name(letter, "").startswith("COMBINING")
            odd += of_a_script and (before.isascii() or not (before.isalpha() or unicodedata.combining(before)))
        else:
            odd += before.isalpha() and after.isalpha() and letter not in "’'·\u00ad\u200c"
    odd += sum(map(len, _SIGNS_WITHIN.findall(text)))
    return 1.0 - min(1.0, odd / max(1, total))


def _is_odd_letter(before: str, letter: str, after: str) -> bool:
    capital_inside = letter.isupper() and before.isalpha() and before.islower()
    small_among = letter.islower() and before.isupper() and after.isupper()
    latin_beside = any(other.isascii() and other.isalpha() for other in (before, after))
    is_syllable = unicodedata.name(letter, "").startswith(("CJK", "HANGUL"))
    scripts = latin_beside and not is_syllable and not _is_latin(letter)
    alone = not before.isalpha() and not after.isalpha()
    is_word = is_syllable or letter in _ONE_LETTER_WORDS or (letter.islower() and _is_cyrillic(letter))
    stray = alone and not is_word
    beside_digit = alone and (before.isdigit() or after.isdigit())
    return capital_inside or small_among or scripts or stray or beside_digit


def _is_cyrillic(letter: str) -> bool:
    return unicodedata.name(letter, "").startswith("CYRILLIC")


def _is_latin(letter: str) -> bool:
    return unicodedata.name(letter, "").startswith("LATIN")


def _many_bytes(sample: bytes) -> list[tuple[float, str, list[str], str]]:
    """Chinese, Japanese and Korean: two bytes a character, of which common ones make up nearly all."""
    guesses = []
    high = [index for index, byte in enumerate(sample) if byte >= 0x80]
    runs = sum(1 for _ in itertools.groupby(index - at for at, index in enumerate(high)))
    if len(high) < 2 or len(high) / runs < 1.6:
        return []  # single letters among ASCII ones
    for encoding, language, common in (
        ("gb18030", "zh", _common_gb),
        ("big5", "zh", _common_big5),
        ("cp932", "ja", _common_japanese),
        ("euc_jp", "ja", _common_japanese),
        ("cp949", "ko", _common_korean),
    ):
        try:
            text = sample.decode(encoding)
        except UnicodeDecodeError:
            continue
        foreign = [letter for letter in text if not letter.isascii()]
        if foreign and (score := common(foreign)) >= _IDEOGRAPHS_ALONE:
            guesses.append((score, encoding, [language], text))
    return guesses


def _leads(letters: list[str], encoding: str) -> list[tuple[int, int]]:
    pairs = [letter.encode(encoding, "replace") for letter in letters]
    return [(pair[0], pair[1]) if len(pair) == 2 else (0, 0) for pair in pairs]


def _common_gb(letters: list[str]) -> float:
    leads = [
        (lead, trail) for lead, trail in _leads(letters, "gb18030") if not (0xA1 <= lead <= 0xA3 and trail >= 0xA1)
    ]
    if not leads:
        return 0.0
    common = sum(0xB0 <= lead <= 0xD7 and trail >= 0xA1 for lead, trail in leads) / len(leads)
    beyond_korean = sum(lead > 0xC8 for lead, _ in leads)
    return common * (0.6 if len(leads) >= 6 and beyond_korean < 0.1 * len(leads) else 0.98)


def _common_big5(letters: list[str]) -> float:
    leads = [(lead, trail) for lead, trail in _leads(letters, "big5") if not 0xA1 <= lead <= 0xA3]
    if not leads:
        return 0.0
    low = sum(trail < 0x7F for _, trail in leads)
    common = sum(0xA4 <= lead <= 0xC6 for lead, _ in leads) / len(leads)
    return common * (0.6 if len(leads) >= 6 and not low else 0.97)


def _common_japanese(letters: list[str]) -> float:
    kana = sum("\u3040" <= letter <= "\u30ff" for letter in letters)
    half = sum("\uff61" <= letter <= "\uff9f" for letter in letters)
    cjk_count = sum("\u3000" <= letter <= "\u9fff" or "\uff01" <= letter <= "\uff5e" for letter in letters)
    share = kana / len(letters)
    return (cjk_count - half) / len(letters) * (1.0 if share > 0.15 else 0.6 + share)


def _common_korean(letters: list[str]) -> float:
    leads = _leads([letter for letter in letters if "\uac00" <= letter <= "\ud7a3"], "cp949")
    usual = sum(0xB0 <= lead <= 0xC8 and trail >= 0xA1 for lead, trail in leads)
    return 0.98 * usual / len(letters)
