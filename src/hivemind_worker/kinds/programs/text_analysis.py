"""Texts analysed: encoding, language, sentences, words, runs of words, keywords, readability; in many languages.

Results: ``summary.json``, ``words.csv``, ``ngrams.csv``, ``keywords.csv``, ``documents.csv`` and ``plots.png``.
"""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import encodings_found
import given
import text_counting
import text_plots
import text_readability
import text_words

SCRATCH = Path(given.PRIVATE, "scratch")
_LIBRARIES = 110 * given.MIB
"""What the language model, numpy and matplotlib take beside the interpreter: measured."""

_ENTRY = 180
"""Bytes of one counted word: a string of a dozen letters, its count, its place in the table."""

_WORDS_A_MINUTE, _CHARACTERS_A_MINUTE = 230, 500


@dataclass
class _Document:
    """What is counted of one text. Its words lie in a file until all texts are known."""

    file: str
    encoding: str
    code: str
    sure: float
    bytes: int
    characters: int = 0
    undecodable: int = 0
    paragraphs: int = 0
    numbers: int = 0
    telling: tuple[int, int] = (0, 0)
    scripts: Counter[str] = field(default_factory=Counter)
    sentence_lengths: Counter[int] = field(default_factory=Counter)
    word_lengths: Counter[int] = field(default_factory=Counter)
    measures: text_readability.Measures = field(default_factory=text_readability.Measures)
    distinct: int = 0
    once: int = 0
    off: int = 0


@dataclass
class _All:
    """What is counted over all texts."""

    options: dict[str, Any]
    words: text_counting.Counts
    documents: text_counting.Counts
    runs: dict[int, text_counting.Counts]
    most: int
    parts: int = 0
    """Paragraphs, where there is one text: its keywords are those of few paragraphs."""

    @property
    def shortest(self) -> int:
        return int(self.options.get("min_length", 1))


def main() -> int:
    """Analyse."""
    said = given.settings()
    files, options = said["files"], said["options"]
    lengths = range(2, options.get("ngrams", 3) + 1)
    # Half of the memory for the tables that live through the whole run, a quarter for one text's, a quarter for work.
    room = max(20_000, (given.memory_for_data() - _LIBRARIES) // 2 // _ENTRY // (2 + len(lengths)))
    told = _All(
        options,
        text_counting.Counts(room),
        text_counting.Counts(room),
        {length: text_counting.Counts(room) for length in lengths},
        room,
    )
    SCRATCH.mkdir(parents=True, exist_ok=True)
    tempfile.tempdir = str(SCRATCH)  # the language model unpacks to 68 MB, and a capsule's /tmp is smaller
    began = time.monotonic()
    documents = []
    for at, path in enumerate(files):
        documents.append(_read(path, at, told, alone=len(files) == 1))
        if (at + 1) % 50 == 0 or at + 1 == len(files):
            total = sum(document.bytes for document in documents)
            print(f"{at + 1:,} of {len(files):,} texts, {given.size(total)}, {time.monotonic() - began:.1f} s")
    _write(documents, told)
    shutil.rmtree(SCRATCH)
    print(f"done in {time.monotonic() - began:.1f} s")
    return 0


def _read(path: str, at: int, told: _All, *, alone: bool) -> _Document:
    """One text, paragraph by paragraph."""
    encoding = encodings_found.find(path, told.options.get("encoding", ""))
    found = told.options.get("language", "")
    code, sure = (found, 1.0) if found else text_words.language(path, encoding)
    document = _Document(given.shown(path), encoding, code, sure, Path(path).stat().st_size)
    parted, idle = text_words.words(code), idle_words(code, told.options.get("stop_words", True))
    own = text_counting.Counts(told.most)
    for paragraph in text_words.paragraphs(path, encoding):
        _look(document, paragraph)
        seen: set[str] = set()
        for sentence in text_words.sentences(paragraph, code):
            clauses = [parted(clause) for clause in text_words.clauses(sentence)]
            words = [word for clause in clauses for word in clause]
            spoken = [word for word in words if not text_words.is_number(word)]
            document.numbers += len(words) - len(spoken)
            if not spoken:
                continue
            document.sentence_lengths[len(spoken)] += 1
            document.word_lengths.update(map(len, spoken))
            document.measures.add(spoken, code)
            counted = [word for word in spoken if len(word) >= told.shortest and not is_idle(word, idle, code)]
            own.add(spoken)
            told.words.add(counted)
            seen.update(counted)
            for clause in clauses:
                _count_runs(told, clause, idle, code)
        if alone:
            told.parts += 1
            told.documents.add(seen)
    document.distinct, document.once, document.off = len(own), own.once(), own.off
    kept = {word: count for word, count in own.items() if len(word) >= told.shortest and not is_idle(word, idle, code)}
    if not alone:
        told.documents.add(kept)
    (SCRATCH / f"{at}.json").write_text(json.dumps(kept), encoding="utf-8")
    return document


def idle_words(code: str, said: bool | list[str]) -> frozenset[str]:  # noqa: FBT001 - the option is one or the other
    """The words that hold a sentence together and tell nothing of its subject; a list adds to the language's own."""
    if said is False:
        return frozenset()
    from stopwordsiso import has_lang, stopwords  # noqa: PLC0415 - a table of 58 languages, for those who want it

    own = frozenset(map(str.lower, stopwords(code))) if has_lang(code) else frozenset()
    if code in {"fr", "it", "ca"}:
        own |= {"l", "d", "j", "n", "s", "t", "m", "c", "qu", "un", "all", "dell", "nell", "sull", "quest"}
    return own | {word.lower() for word in (said if isinstance(said, list) else ())}


def is_idle(word: str, idle: frozenset[str], code: str) -> bool:
    """Whether a word is one of them. The list of Chinese ones is in simplified characters."""
    return word in idle or (code == "zh" and word.translate(text_words.SIMPLIFYING) in idle)


def _look(document: _Document, paragraph: str) -> None:
    document.paragraphs += 1
    document.characters += len(paragraph)
    document.undecodable += paragraph.count("\ufffd")
    for name, script in text_words.SCRIPTS.items():
        document.scripts[name] += len(script.findall(paragraph))
    if document.code == "zh":
        traditional, simplified = text_words.telling_characters(paragraph)
        document.telling = (document.telling[0] + traditional, document.telling[1] + simplified)


def _count_runs(told: _All, words: list[str], idle: frozenset[str], code: str) -> None:
    glue = "" if code in text_words.UNSPACED else " "
    plain = [word.translate(text_words.SIMPLIFYING) for word in words] if code == "zh" else words
    at_edge = frozenset(word for word, simple in zip(words, plain, strict=True) if word in idle or simple in idle)
    for length, counts in told.runs.items():
        counts.add(text_counting.runs(words, length, glue, at_edge))


def _write(documents: list[_Document], told: _All) -> None:
    top, keywords = told.options.get("top", 100), told.options.get("keywords", 20)
    number = len(documents) if len(documents) > 1 else told.parts
    listed = [
        text_counting.telling(
            json.loads((SCRATCH / f"{at}.json").read_text(encoding="utf-8")).items(), told.documents, number, keywords
        )
        for at in range(len(documents))
    ]
    common = told.words.most_common(top)
    runs = {length: counts.most_common(top) for length, counts in told.runs.items()}
    _rows(
        "words.csv",
        ["word", "count", "share", "documents" if len(documents) > 1 else "paragraphs"],
        ([word, count, count / told.words.total, told.documents[word]] for word, count in common),
    )
    _rows(
        "ngrams.csv",
        ["n", "ngram", "count"],
        ([length, run, count] for length, found in runs.items() for run, count in found),
    )
    _rows(
        "keywords.csv",
        ["document", "keyword", "score", "count", "documents" if len(documents) > 1 else "paragraphs"],
        ([document.file, *row] for document, found in zip(documents, listed, strict=True) for row in found),
    )
    described = [
        {**_described(document), "keywords": [{"word": row[0], "score": row[1], "count": row[2]} for row in found]}
        for document, found in zip(documents, listed, strict=True)
    ]
    flat = [{key: value for key, value in each.items() if not isinstance(value, dict | list)} for each in described]
    _rows("documents.csv", list(flat[0]), (list(each.values()) for each in flat))
    sentence_lengths = sum((document.sentence_lengths for document in documents), Counter[int]())
    word_lengths = sum((document.word_lengths for document in documents), Counter[int]())
    title = told.options.get("title") or ", ".join(document.file for document in documents[:3])
    given.write_json(
        "summary.json",
        {
            "title": told.options.get("title", ""),
            "documents": described,
            "languages": dict(Counter(document.code for document in documents).most_common()),
            "characters": sum(document.characters for document in documents),
            "sentences": sum(sentence_lengths.values()),
            "words": sum(word_lengths.values()),
            "counted_words": told.words.total,
            "counts_at_most_too_small_by": {
                "words": told.words.off,
                **{f"{length}-grams": counts.off for length, counts in told.runs.items()},
            },
            "top_words": [{"word": word, "count": count} for word, count in common[:50]],
            "top_ngrams": {
                str(length): [{"ngram": run, "count": count} for run, count in found[:50]]
                for length, found in runs.items()
            },
        },
    )
    best: dict[str, float] = {}
    for word, score, *_ in (row for found in listed for row in found):
        best[word] = max(score, best.get(word, 0.0))
    keys = sorted(best.items(), key=lambda pair: (-pair[1], pair[0]))
    text_plots.draw(title, common, keys, sentence_lengths, word_lengths)


def _described(document: _Document) -> dict[str, Any]:
    measures = document.measures
    letters = document.scripts.total() or 1
    minutes = (
        (document.scripts["han"] + document.scripts["kana"]) / _CHARACTERS_A_MINUTE
        if document.code in text_words.UNSPACED
        else measures.words / _WORDS_A_MINUTE
    )
    notes = []
    if document.undecodable:
        notes.append(f"{document.undecodable:,} characters are none in {document.encoding}")
    if document.off:
        notes.append("too many different words to count the rarest: distinct and seen_once are of the commoner ones")
    if document.code == "th":
        notes.append("words of Thai are not parted: a run of letters counts as one")
    return {
        "file": document.file,
        "bytes": document.bytes,
        "encoding": document.encoding,
        "language": document.code,
        "language_probability": round(document.sure, 4),
        "writing": text_words.variant(*document.telling) if document.code == "zh" else "",
        "characters": document.characters,
        "paragraphs": document.paragraphs,
        "sentences": measures.sentences,
        "words": measures.words,
        "numbers": document.numbers,
        "distinct_words": document.distinct,
        "seen_once": document.once,
        "letters_per_word": measures.letters / measures.words if measures.words else None,
        "minutes_to_read": round(minutes, 2),
        "words_per_sentence": text_counting.spread(document.sentence_lengths),
        "characters_per_word": text_counting.spread(document.word_lengths),
        "scripts": {name: round(count / letters, 4) for name, count in document.scripts.most_common() if count},
        "readability": text_readability.scores(document.code, measures),
        "notes": notes,
    }


def _rows(name: str, head: list[str], rows: Iterator[list[Any]]) -> None:
    with (given.RESULTS / name).open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(rows)


if __name__ == "__main__":
    given.run(main)
