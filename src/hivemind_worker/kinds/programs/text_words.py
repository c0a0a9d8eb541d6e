"""Texts into paragraphs, sentences and words, each language by its own rules; and which language a text is in."""

from __future__ import annotations

import functools
import importlib
import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

import encodings_found

SAMPLE = 20_000
"""Characters by which a language is told."""

_LONGEST = 64 * 1024
"""Most characters of a paragraph; a longer one (a file without line breaks) is cut at a space."""

SCRIPTS = {
    "latin": re.compile(r"[A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff]"),
    "han": re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]"),
    "kana": re.compile(r"[\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f]"),
    "hangul": re.compile(r"[\uac00-\ud7a3\u1100-\u11ff\u3131-\u318e]"),
    "cyrillic": re.compile(r"[\u0400-\u052f]"),
    "greek": re.compile(r"[\u0370-\u03ff\u1f00-\u1fff]"),
    "arabic": re.compile(r"[\u0620-\u064a\u066e-\u06d3\u0750-\u077f\u08a0-\u08ff]"),
    "hebrew": re.compile(r"[\u05d0-\u05ea]"),
    "devanagari": re.compile(r"[\u0900-\u0963\u0971-\u097f]"),
    "thai": re.compile(r"[\u0e01-\u0e4e]"),
}
UNSPACED = frozenset({"zh", "ja"})
"""Languages that put no space between words; their words are found by a dictionary."""

# Characters whose traditional and simplified forms differ, of those that texts of any subject have.
_TRADITIONAL = (
    "們個這來為會說時對後過還從與於給讓將並當應該誰麼嗎幾樣點總雖處無則卻難經僅單雙國學開關長門見親觀覺東車書樂業"
    "專絲兩嚴豐臨義烏習鄉買亂爭產務動勞勢區醫華協賣盧衛廠歷壓參發變號嘆員嗚問聲園團圖圓場壞塊壇報壯備夠頭奪奮媽婦"
    "孫寧寶實審導層歲島師帶幣幫廣莊慶廬庫廢異彈強歸錄彙徹態慣戲戶擁擇擊據損換執擴擔拋護報數斷舊顯曉術機殺雜權條極"
    "構標棟歐歡步歸殘氣漢湯溝沒淚潔測濟濃濤滅滿漲澤獨獎獻現環電畫療發監盤確碼磚離種積稱穩窮競筆節範築簡類糧純紙級"
    "紀約紅紋納紐線練組細終結絕統絲綠維網緊線編緩縣縱總績織續纖罷羅職聯聽腦臉舉艦藝節蘭蘋藥蟲補裝複規視計訂認討訓"
    "議記講許論設訪證評識訴診詞試詩話誠語誤請諸課調談謝謀貝負財責貨質購貴費資賓賞賽贊趕跡車軌軍輕載較輛輪輸轉辦辭"
    "邊達遷運進遠適選遺鄰醬釋針鐘銀銅錯鍵鐵鋼錢錶閃閉間聞閱陽陰陣階隊際陸險隨隱雙難雲電靜靈頂項順須預領頻題額顏願"
    "風飛飯館馬驗驚體魚鮮鳥麗黃黨齊齒龍龜臺灣蘇歷讀寫試貓雞鴨豬驢羊飲餐"
)
_SIMPLIFIED = (
    "们个这来为会说时对后过还从与于给让将并当应该谁么吗几样点总虽处无则却难经仅单双国学开关长门见亲观觉东车书乐业"
    "专丝两严丰临义乌习乡买乱争产务动劳势区医华协卖卢卫厂历压参发变号叹员呜问声园团图圆场坏块坛报壮备够头夺奋妈妇"
    "孙宁宝实审导层岁岛师带币帮广庄庆庐库废异弹强归录汇彻态惯戏户拥择击据损换执扩担抛护报数断旧显晓术机杀杂权条极"
    "构标栋欧欢步归残气汉汤沟没泪洁测济浓涛灭满涨泽独奖献现环电画疗发监盘确码砖离种积称稳穷竞笔节范筑简类粮纯纸级"
    "纪约红纹纳纽线练组细终结绝统丝绿维网紧线编缓县纵总绩织续纤罢罗职联听脑脸举舰艺节兰苹药虫补装复规视计订认讨训"
    "议记讲许论设访证评识诉诊词试诗话诚语误请诸课调谈谢谋贝负财责货质购贵费资宾赏赛赞赶迹车轨军轻载较辆轮输转办辞"
    "边达迁运进远适选遗邻酱释针钟银铜错键铁钢钱表闪闭间闻阅阳阴阵阶队际陆险随隐双难云电静灵顶项顺须预领频题额颜愿"
    "风飞饭馆马验惊体鱼鲜鸟丽黄党齐齿龙龟台湾苏历读写试猫鸡鸭猪驴羊饮餐"
)
SIMPLIFYING = str.maketrans(dict(zip(_TRADITIONAL, _SIMPLIFIED, strict=True)))
_IN_BOTH = "后云台表范于几并丰宁种虫据"
"""Simplified forms that the traditional writing has as well, as other words."""

_ONLY_TRADITIONAL = re.compile(
    f"[{''.join(one for one, other in zip(_TRADITIONAL, _SIMPLIFIED, strict=True) if one != other)}]"
)
_ONLY_SIMPLIFIED = re.compile(
    f"[{''.join(other for one, other in zip(_TRADITIONAL, _SIMPLIFIED, strict=True) if other not in one + _IN_BOTH)}]"
)

_BLANK = re.compile(r"(?:\r\n?|\n)[ \t\u3000]*(?:\r\n?|\n)\s*")
_LINE = re.compile(r"[\r\n]+")
_UNSPACED_END = re.compile(r"[。！？!?…｡]+([」』”’）)】》]*)")
_CLAUSE = re.compile(r"(?<!\d)[,:]|[,:](?!\d)|[;，；：、()（）「」『』《》【】“”„«»\"\[\]{}]|\s[–—-]\s|—+")
_END = re.compile(r"[.!?…؟।]+[\"'»”’)\]]*(?=\s)")
_OPENERS = "\"'«»„“‘([¿¡—–- "
_LAST_WORD = re.compile(r"(\S+)$")
_WORD = re.compile(r"[^\W_]+(?:['’·\-][^\W_]+)*")
_ELIDED = re.compile(r"aujourd['’]hui|[^\W_]+(?:-[^\W_]+)*", re.IGNORECASE)
_ABBREVIATIONS = {
    "en": "mr mrs ms dr prof st sr jr vs etc e.g i.e cf no vol fig inc ltd co dept approx gen col sgt capt rev hon",
    "de": "dr prof hr fr nr bzw z.b d.h u.a etc ca vgl bd st str evtl ggf inkl usw s abs art jh geb gest sog",
    "fr": "m mm mme mlle dr pr etc cf p.ex av apr env st ste vol fig no",
    "es": "sr sra srta dr dra prof ud uds etc p.ej pág núm vol fig",
    "it": "sig sigg dott prof ecc es pag vol fig",
    "pt": "sr sra dr dra prof etc pág vol fig ex",
    "nl": "dhr mevr dr prof bijv enz etc nr blz",
}
_ORDINALS = frozenset({"de", "da", "no", "fi", "cs", "sk", "pl", "hu", "hr", "sl", "et", "lv", "tr"})
"""Languages that write "the 3rd" as "3."."""


def paragraphs(path: str, encoding: str) -> Iterator[str]:
    """The text's paragraphs, parted by empty lines, in memory of one piece at a time."""
    rest = ""
    for piece in encodings_found.decoded(path, encoding):
        *whole, rest = _BLANK.split(rest + piece)
        for paragraph in whole:
            yield from _cut(paragraph)
        while len(rest) > _LONGEST:
            at = _place_to_cut(rest)
            yield unicodedata.normalize("NFC", rest[:at])
            rest = rest[at:]
    yield from _cut(rest)


def language(path: str, encoding: str) -> tuple[str, float]:
    """Tell the language of a text by its first pages, as a code and how sure that is (0 to 1); "" where it has none."""
    sample = ""
    for paragraph in paragraphs(path, encoding):
        sample += paragraph + "\n"
        if len(sample) >= SAMPLE:
            break
    counted = {name: len(script.findall(sample)) for name, script in SCRIPTS.items()}
    letters = sum(counted.values())
    if not letters:
        return "", 0.0
    if (counted["han"] + counted["kana"]) > 0.3 * letters:
        # Any Japanese sentence has kana: they hold its grammar.
        return ("ja", 1.0) if counted["kana"] > 0.1 * (counted["han"] + counted["kana"]) else ("zh", 1.0)
    for script, code in (("hangul", "ko"), ("thai", "th"), ("greek", "el"), ("hebrew", "he")):
        if counted[script] > 0.3 * letters:
            return code, 1.0
    code, sure = _identifier().classify(sample[:SAMPLE])
    return str(code), float(sure)


def variant(traditional: int, simplified: int) -> str:
    """Which writing of Chinese, by the characters that only one of them has; "" where there are none."""
    if not traditional + simplified:
        return ""
    return "traditional" if traditional >= simplified else "simplified"


def telling_characters(text: str) -> tuple[int, int]:
    """How many characters of a Chinese text only the traditional writing has, and how many only the simplified."""
    return len(_ONLY_TRADITIONAL.findall(text)), len(_ONLY_SIMPLIFIED.findall(text))


def sentences(paragraph: str, code: str) -> Iterator[str]:
    """The sentences of a paragraph. In Chinese and Japanese a line break ends one; elsewhere it is a space."""
    if code in UNSPACED:
        for line in _LINE.split(paragraph):
            yield from _ended(line, _UNSPACED_END, code)
    else:
        yield from _ended(paragraph, _END, code)


def clauses(sentence: str) -> list[str]:
    """The parts of a sentence between commas, brackets and the like: no run of words goes beyond them."""
    return [clause for clause in _CLAUSE.split(sentence) if clause and not clause.isspace()]


def words(code: str) -> Callable[[str], list[str]]:
    """The function that parts a sentence of that language into words and numbers, in small letters."""
    if code == "zh":
        cut = importlib.import_module("rjieba").cut
        return lambda sentence: [word.lower() for word in cut(sentence) if _WORD.search(word)]
    if code == "ja":
        japanese = importlib.import_module("suzume").Suzume()
        return lambda sentence: [
            each.surface.lower() for each in japanese.analyze(sentence) if _WORD.search(each.surface)
        ]
    word = _ELIDED if code in {"fr", "it", "ca"} else _WORD
    return lambda sentence: [each.replace("’", "'") for each in word.findall(sentence.lower())]


def is_number(word: str) -> bool:
    """Whether a word is digits alone, or has no letter at least."""
    return not any(map(str.isalpha, word))


@functools.cache
def _identifier() -> Any:
    """The model of languages, loaded when it is needed: it takes a second. Only of those whose words are known here."""
    langid = importlib.import_module("py3langid.langid")
    found = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
    found.set_languages(sorted(importlib.import_module("stopwordsiso").langs() & set(found.labels)))
    return found


def _ended(text: str, end_of_sentence: re.Pattern[str], code: str) -> Iterator[str]:
    start = 0
    for end in end_of_sentence.finditer(text):
        if not _goes_on(text, start, end, code):
            yield text[start : end.end()]
            start = end.end()
    if text[start:].strip():
        yield text[start:]


def _cut(paragraph: str) -> Iterator[str]:
    while len(paragraph) > _LONGEST:
        at = _place_to_cut(paragraph)
        yield unicodedata.normalize("NFC", paragraph[:at])
        paragraph = paragraph[at:]
    if paragraph.strip():
        yield unicodedata.normalize("NFC", paragraph)


def _place_to_cut(text: str) -> int:
    """After the last line, sentence or word that fits."""
    head = text[:_LONGEST]
    return next((at + 1 for at in (head.rfind("\n"), head.rfind("。"), head.rfind(" ")) if at > 0), _LONGEST)


def _goes_on(paragraph: str, start: int, end: re.Match[str], code: str) -> bool:
    """Whether what looks like an end is none: after an abbreviation, an initial, an ordinal, before a small letter.

    In Chinese and Japanese, where a quotation ends and the sentence around it has more to say.
    """
    if code in UNSPACED:
        return bool(end[1]) and paragraph[end.end() :].strip()[:1] not in {"", "「", "『", "“", "‘"}
    following = paragraph[end.end() : end.end() + 20].lstrip().lstrip(_OPENERS)
    if following and following[0].islower():
        return True
    if not end[0].startswith(".") or end[0].startswith(".."):
        return False
    before = _LAST_WORD.search(paragraph, start, end.start())
    if before is None:
        return False
    word = before[1].lstrip(_OPENERS).lower()
    if word in _abbreviations(code) or (len(word) == 1 and word.isalpha()):
        return True
    return code in _ORDINALS and word.isdecimal() and len(word) <= 2


@functools.cache
def _abbreviations(code: str) -> frozenset[str]:
    return frozenset(_ABBREVIATIONS.get(code, "").split())
