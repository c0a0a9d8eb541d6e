"""The results of a text analysis: the tables, the summary and what there is to say of each text."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import given
import text_counting
import text_duplicates
import text_languages
import text_plots
import text_readability
import text_sentences
from text_documents import Corpus, Document

SCRATCH = Path(given.PRIVATE, "scratch")
"""Where the words of each text lie until all texts are known."""

_WORDS_A_MINUTE, _CHARACTERS_A_MINUTE = 230, 500
_LEAST_SURE = 0.8
"""Below this probability of the language the text says that it may be another."""


def write(documents: list[Document], corpus: Corpus) -> None:
    """Write all of them."""
    top, keywords = corpus.options.get("top", 100), corpus.options.get("keywords", 20)
    number = len(documents) if len(documents) > 1 else corpus.parts
    listed = [
        text_counting.telling(
            json.loads((SCRATCH / f"{at}.json").read_text(encoding="utf-8")).items(), corpus.documents, number, keywords
        )
        for at in range(len(documents))
    ]
    common = corpus.words.most_common(top)
    runs = {length: counts.most_common(top) for length, counts in corpus.runs.items()}
    _rows(
        "words.csv",
        ["word", "count", "share", "documents" if len(documents) > 1 else "paragraphs"],
        ([word, count, count / corpus.words.total, corpus.documents[word]] for word, count in common),
    )
    _rows(
        "ngrams.csv",
        ["n", "ngram", "count"],
        ([length, run, count] for length, entries in runs.items() for run, count in entries),
    )
    _rows(
        "keywords.csv",
        ["document", "keyword", "score", "count", "documents" if len(documents) > 1 else "paragraphs"],
        ([document.file, *row] for document, entries in zip(documents, listed, strict=True) for row in entries),
    )
    described = [
        {**_described(document), "keywords": [{"word": row[0], "score": row[1], "count": row[2]} for row in entries]}
        for document, entries in zip(documents, listed, strict=True)
    ]
    flat = [{key: value for key, value in each.items() if not isinstance(value, dict | list)} for each in described]
    _rows("documents.csv", list(flat[0]), (list(each.values()) for each in flat))
    sentence_lengths = sum((document.sentence_lengths for document in documents), Counter[int]())
    word_lengths = sum((document.word_lengths for document in documents), Counter[int]())
    more = f" and {len(documents) - 3} more" if len(documents) > 3 else ""
    title = corpus.options.get("title") or ", ".join(document.file for document in documents[:3]) + more
    given.write_json(
        "summary.json",
        {
            "title": corpus.options.get("title", ""),
            "documents": described,
            "duplicates": _duplicates(documents),
            "languages": dict(Counter(document.code for document in documents).most_common()),
            "characters": sum(document.characters for document in documents),
            "sentences": sum(sentence_lengths.values()),
            "words": sum(word_lengths.values()),
            "counted_words": corpus.words.total,
            "counts_at_most_too_small_by": {
                "words": corpus.words.off,
                **{f"{length}-grams": counts.off for length, counts in corpus.runs.items()},
            },
            "top_words": [{"word": word, "count": count} for word, count in common[:50]],
            "top_ngrams": {
                str(length): [{"ngram": run, "count": count} for run, count in entries[:50]]
                for length, entries in runs.items()
            },
        },
    )
    best: dict[str, float] = {}
    for word, score, *_ in (row for entries in listed for row in entries):
        best[word] = max(score, best.get(word, 0.0))
    keys = sorted(best.items(), key=lambda pair: (-pair[1], pair[0]))
    text_plots.draw(title, common, keys, sentence_lengths, word_lengths)


def _described(document: Document) -> dict[str, Any]:
    measures = document.measures
    letters = document.scripts.total() or 1
    minutes = (
        (document.scripts["han"] + document.scripts["kana"]) / _CHARACTERS_A_MINUTE
        if document.code in text_sentences.UNSPACED
        else measures.words / _WORDS_A_MINUTE
    )
    return {
        "file": document.file,
        "bytes": document.bytes,
        "format": document.format,
        "encoding": document.encoding,
        "language": document.code,
        "language_probability": round(document.sure, 4),
        "writing": text_languages.variant(*document.telling) if document.code == "zh" else "",
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
        "notes": _notes(document),
    }


def _notes(document: Document) -> list[str]:
    """What was assumed, and what a reader of the numbers must know."""
    notes = list(document.notes)
    if document.undecodable:
        notes.append(f"{document.undecodable:,} characters are none in {document.encoding}")
    if document.off:
        notes.append("too many different words to count the rarest: distinct and seen_once are of the commoner ones")
    if document.code and document.sure < _LEAST_SURE:
        notes.append(
            f"the language may be another than {document.code} ({document.sure:.0%}): options.language says it"
        )
    if document.code in {"th", "lo"}:
        notes.append("sentences are lines: the language has no mark for the end of one")
    return notes


def _duplicates(documents: list[Document]) -> list[dict[str, Any]]:
    """Texts of the same words in the same order (similarity 1), and those nearly the same."""
    prints = [(document.fingerprint.digest, document.fingerprint.hashes) for document in documents]
    return [
        {
            "file": documents[pair.other].file,
            "of": documents[pair.one].file,
            "similarity": pair.similarity,
        }
        for pair in text_duplicates.pairs(prints)
    ]


def _rows(name: str, head: list[str], rows: Iterator[list[Any]]) -> None:
    with (given.RESULTS / name).open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(rows)
