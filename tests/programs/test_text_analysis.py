"""text_analysis against independent computations: plain counting, scikit-learn's TF-IDF, formulas reckoned by hand."""

from __future__ import annotations

import csv
import os
import random
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import program_runs
import pytest

import text_counting
import text_plots
import text_readability
import text_syllables

LIBRARIES = (
    "charset_normalizer",
    "matplotlib.pyplot",
    "py3langid",
    "rjieba",
    "suzume",
    "stopwordsiso",
    "icu4py",
    "pypdf",
)

BEES = {
    "en": "The bees of a hive divide their work. Dr. Smith wrote that no bee gives orders. All follow simple rules.",
    "de": "Die Bienen teilen sich die Arbeit. Am 3. Mai schrieb Dr. Müller, daß keine Befehle gibt. Jede folgt Regeln.",
    "fr": "Les abeilles d'une ruche partagent le travail. M. Dupont l'a observé : aucune ne l'ordonne. C'est simple.",
    "es": "Las abejas de una colmena se reparten el trabajo. ¿Quién da las órdenes? Ninguna abeja da órdenes allí.",
    "it": "Le api di un alveare si dividono il lavoro. Nessuna ape dà ordini. Ognuna segue regole molto semplici.",
    "ru": "Пчёлы улья делят между собой работу. Ни одна пчела не отдаёт приказов. Каждая следует простым правилам.",
    "ja": "蜂の巣では、蜂が仕事を分け合っています。「なぜ分かるの？」と子供たちは聞きました。仕事は年齢で決まります。",
    "zh": "蜂巢裡的蜜蜂分工合作，沒有一隻蜜蜂下命令。「牠們怎麼知道該做什麼？」孩子們問。每隻蜜蜂都遵守規則。",
    "ko": "벌집의 벌들은 일을 나누어 한다. 어떤 벌도 명령을 내리지 않는다. 모든 벌은 간단한 규칙을 따른다.",
}
SIMPLIFIED = "蜂巢里的蜜蜂分工合作，没有一只蜜蜂下命令。“它们怎么知道该做什么？”孩子们问。每只蜜蜂都遵守简单的规则。"


def analyse(tmp_path: Path, files: dict[str, bytes], **options: object) -> program_runs.Ran:
    return program_runs.run(
        tmp_path / "workspace", dict(files), processing_type="text_analysis", input_data=list(files), options=options
    )


def table(ran: program_runs.Ran, name: str) -> list[dict[str, str]]:
    assert ran.code == 0, ran.err
    with (ran.results / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def babel(tmp_path_factory: pytest.TempPathFactory) -> program_runs.Ran:
    """One run over one text in each language, and a second Chinese one."""
    files = {f"{code}.txt": text.encode() for code, text in BEES.items()}
    return analyse(tmp_path_factory.mktemp("babel"), {**files, "zh-cn.txt": SIMPLIFIED.encode()}, title="Bees")


def described(ran: program_runs.Ran) -> dict[str, dict[str, Any]]:
    assert ran.code == 0, ran.err
    return {document["file"].removesuffix(".txt"): document for document in ran.json()["documents"]}


def test_languages_are_told_and_their_sentences_parted(babel: program_runs.Ran) -> None:
    found = described(babel)
    assert {name: document["language"] for name, document in found.items()} == {
        **{code: code for code in BEES},
        "zh-cn": "zh",
    }
    assert {name: document["sentences"] for name, document in found.items()} == dict.fromkeys(found, 3)
    assert found["zh"]["writing"] == "traditional"
    assert found["zh-cn"]["writing"] == "simplified"
    assert found["en"]["writing"] == ""


def test_words_are_those_of_the_language(babel: program_runs.Ran) -> None:
    rows = table(babel, "keywords.csv")
    keywords = {code: {row["keyword"] for row in rows if row["document"] == f"{code}.txt"} for code in [*BEES, "zh-cn"]}
    assert {"蜜蜂", "蜂巢", "命令"} <= keywords["zh"] & keywords["zh-cn"]
    assert {"仕事", "年齢", "子供"} & keywords["ja"]
    assert {"abeilles", "ruche", "dupont"} <= keywords["fr"]
    assert not {"l", "d", "les", "une"} & keywords["fr"]
    assert {"bienen", "arbeit", "müller"} <= keywords["de"]
    assert not {"們", "的", "每", "们", "该"} & (keywords["zh"] | keywords["zh-cn"])


def test_the_plot_is_a_picture_with_ink(babel: program_runs.Ran) -> None:
    picture = (babel.results / "plots.png").read_bytes()
    width, height = struct.unpack(">II", picture[16:24])
    assert width > 1_000
    assert height > 800
    assert len(picture) > 20_000
    assert babel.files == [
        *("documents.csv", "keywords.csv", "ngrams.csv", "plots.png", "summary.json", "words.csv"),
    ]


def made_up(seed: int, sentences: int) -> list[list[str]]:
    """Sentences of invented words, some common and most rare."""
    drawn = random.Random(seed)
    vocabulary = [f"{drawn.choice('bcdfgl')}{drawn.choice('aeiou')}{at}x" for at in range(400)]
    weights = [1 / (at + 1) for at in range(400)]
    return [drawn.choices(vocabulary, weights, k=drawn.randint(3, 20)) for _ in range(sentences)]


def spoken(sentences: list[list[str]]) -> bytes:
    return "\n\n".join(
        " ".join(" ".join(words).capitalize() + "." for words in sentences[at : at + 5])
        for at in range(0, len(sentences), 5)
    ).encode()


def test_counts_agree_with_plain_counting(tmp_path: Path) -> None:
    sentences = made_up(1, 400)
    ran = analyse(tmp_path, {"a.txt": spoken(sentences)}, language="en", stop_words=False, top=10_000, ngrams=3)
    (document,) = ran.json()["documents"]
    words = [word for sentence in sentences for word in sentence]
    assert (document["sentences"], document["paragraphs"], document["words"]) == (400, 80, len(words))
    assert document["distinct_words"] == len(set(words))
    assert document["seen_once"] == sum(count == 1 for count in Counter(words).values())
    assert document["words_per_sentence"]["mean"] == pytest.approx(len(words) / 400)
    assert document["words_per_sentence"]["median"] == sorted(map(len, sentences))[199:201][0]
    assert {row["word"]: int(row["count"]) for row in table(ran, "words.csv")} == Counter(words)
    for length in (2, 3):
        runs = Counter(
            " ".join(sentence[at : at + length]) for sentence in sentences for at in range(len(sentence) - length + 1)
        )
        told = {row["ngram"]: int(row["count"]) for row in table(ran, "ngrams.csv") if row["n"] == str(length)}
        assert told == runs


@pytest.mark.long
def test_keywords_agree_with_scikit_learn(tmp_path: Path) -> None:
    texts = {f"{at}.txt": made_up(at, 30 + at) for at in range(4)}
    ran = analyse(
        tmp_path,
        {name: spoken(sentences) for name, sentences in texts.items()},
        language="en",
        stop_words=False,
        keywords=1_000,
    )
    lists = [[word for sentence in sentences for word in sentence] for sentences in texts.values()]
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415 - two seconds for each process that collects the tests

    vectorizer = TfidfVectorizer(analyzer=lambda words: words, norm=None)
    matrix = vectorizer.fit_transform(lists).toarray()
    rows = table(ran, "keywords.csv")
    for at, name in enumerate(texts):
        expected = {word: matrix[at][column] for word, column in vectorizer.vocabulary_.items() if matrix[at][column]}
        told = {row["keyword"]: float(row["score"]) for row in rows if row["document"] == name}
        assert told == pytest.approx(expected)
    alone = analyse(tmp_path / "alone", {"a.txt": spoken(texts["3.txt"])}, language="en", stop_words=False, keywords=9)
    parts = [
        [word for sentence in texts["3.txt"][at : at + 5] for word in sentence]
        for at in range(0, len(texts["3.txt"]), 5)
    ]
    whole = vectorizer.fit_transform(parts).toarray().sum(axis=0)
    best = sorted(((-whole[column], word) for word, column in vectorizer.vocabulary_.items()))[:9]
    assert [row["keyword"] for row in table(alone, "keywords.csv")] == [word for _, word in best]


def test_encodings_are_found(tmp_path: Path) -> None:
    encodings = {"big5": "zh", "gb18030": "zh-cn", "shift_jis": "ja", "euc_jp": "ja", "cp1252": "de", "koi8-r": "ru"}
    texts = {
        encoding: (SIMPLIFIED if code == "zh-cn" else BEES[code]).replace("隻", "個").replace("牠", "它") * 3
        for encoding, code in encodings.items()
    }
    ran = analyse(tmp_path, {f"{name}.txt": text.encode(name) for name, text in texts.items()}, ngrams=1)
    documents = {document["file"]: document for document in ran.json()["documents"]}
    for encoding, code in encodings.items():
        document = documents[f"{encoding}.txt"]
        assert document["language"] == code[:2], encoding
        assert document["characters"] == len(texts[encoding]), encoding
        assert document["notes"] == [], encoding


def test_text_inside_the_task_options_and_odd_texts(tmp_path: Path) -> None:
    text = "One fish. Two fish. Red fish, blue FISH: 3 fish of $5_000."
    chosen = {"stop_words": ["red"], "min_length": 4, "language": "en", "top": 2}
    odd = {"a.txt": b"", "b.txt": b"12 + 34 = 46\n"}
    tasks: list[tuple[dict[str, bytes], dict[str, Any]]] = [
        ({}, {"input_data": {"text": text}, "options": chosen}),
        (odd, {"input_data": list(odd)}),
        ({"a.txt": b"abc\0\1def"}, {"input_data": "a.txt"}),
    ]
    inline, empty, binary = (
        program_runs.run(tmp_path / str(number), files, processing_type="text_analysis", **fields)
        for number, (files, fields) in enumerate(tasks)
    )
    assert inline.json()["top_words"] == [{"word": "fish", "count": 5}, {"word": "blue", "count": 1}]
    assert inline.json()["documents"][0]["file"] == "(text)"
    assert inline.json()["documents"][0]["numbers"] == 2  # 3, and 5_000: Unicode joins what an underscore joins
    assert [document["words"] for document in empty.json()["documents"]] == [0, 0]
    assert empty.json()["documents"][0]["language"] == ""
    assert empty.json()["duplicates"] == []
    assert binary.code == 2
    assert binary.err == "a.txt is no text: it holds NUL bytes\n"


def test_readability_by_hand() -> None:
    told = text_readability.Measures()
    told.add({"the": 2, "cat": 1, "sat": 1, "on": 1, "mat": 1, "a": 1, "beautiful": 1, "animal": 1}, 2, "en")
    assert (told.words, told.sentences, told.syllables, told.three_syllables) == (9, 2, 13, 2)
    scores = text_readability.scores("en", told)
    assert scores["flesch_reading_ease"] == pytest.approx(206.835 - 1.015 * 4.5 - 84.6 * 13 / 9)
    assert scores["gunning_fog"] == pytest.approx(0.4 * (4.5 + 100 * 2 / 9))
    assert scores["lix"] == pytest.approx(4.5 + 100 * 1 / 9)
    assert text_readability.scores("zh", told) == {}
    assert set(text_readability.scores("sv", told)) == {"lix", "rix"}


SYLLABLES = {
    "en": "cat1 table2 make1 makes1 walked1 wanted2 beautiful3 little2 science2 idea3 nation2 people2 boxes2 reading2 "
    "university5 serious3 create2 being2 queue1 rhythm2 every3 animal3 computer3 through1 area3 business3",
    "de": "haus1 biene2 arbeiterin4 straße2 blüten2 freude2 leute2 feuer2 schule2 see1 ruhig2 äußerst2 museum3",
    "fr": "abeille2 ruche1 travail2 maison2 élève2 parlent1 table1 université5 eau1 oiseau2",
    "es": "abeja3 colmena3 país2 aire2 poeta3 ciudad2 día2 cuando2 construir3 maíz2",
    "it": "ape2 alveare4 lavoro3 città2 paese3 uomo2 fiore2",
    "ru": "пчела2 улей2 работа3 правило3 дом1",
}


@pytest.mark.parametrize("code", SYLLABLES)
def test_syllables_are_mostly_right(code: str) -> None:
    known = {word[:-1]: int(word[-1]) for word in SYLLABLES[code].split()}
    wrong = {word for word, count in known.items() if text_syllables.syllables(word, code) != count}
    assert len(wrong) <= 0.2 * len(known), wrong


def test_counting_in_bounded_memory_errs_by_no_more_than_it_says() -> None:
    drawn = random.Random(7)
    words = [f"w{int(drawn.paretovariate(0.6)) % 50_000}" for _ in range(200_000)]
    counts = text_counting.Counts(2_000)
    for start in range(0, len(words), 500):
        counts.add(words[start : start + 500])
    exact = Counter(words)
    assert len(counts) <= 2_500
    assert 0 < counts.off < exact.most_common(20)[-1][1] / 4
    assert all(0 <= exact[word] - counts[word] <= counts.off for word in exact)
    assert counts.total == len(words)
    assert [word for word, _ in counts.most_common(3)] == [word for word, _ in exact.most_common(3)]


AXES = """
from collections import Counter
from matplotlib import figure
import text_plots

def look(canvas, _place):
    words, keywords, sentences, characters = canvas.axes
    counted = [words.get_xticks(), sentences.get_yticks(), sentences.get_xticks(), characters.get_xticks()]
    print([float(tick).is_integer() for ticks in counted for tick in ticks].count(False))
    print([float(tick).is_integer() for tick in keywords.get_xticks()].count(False) > 0)

figure.Figure.savefig = look
text_plots.draw("bees", [("bee", 3)], [("bee", 1.5)], Counter({8: 3, 9: 1, 26: 1}), Counter({1: 2, 3: 1}))
"""


def test_counts_and_lengths_are_drawn_on_axes_of_whole_numbers(tmp_path: Path) -> None:
    (tmp_path / ".hivemind").mkdir()
    # In a process of its own: matplotlib keeps its fonts open.
    looked = subprocess.run(
        [sys.executable, "-c", AXES], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(text_plots.__file__).parent)},
    )  # fmt: skip
    assert looked.stdout.split() == ["0", "True"], looked.stderr
