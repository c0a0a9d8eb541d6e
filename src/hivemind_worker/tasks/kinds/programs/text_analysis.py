"""Texts analysed: encoding, language, sentences, words, runs of words, keywords, readability; in many languages.

Results: ``summary.json``, ``words.csv``, ``ngrams.csv``, ``keywords.csv``, ``documents.csv`` and ``plots.png``.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

import given
import text_counting
import text_input
import text_languages
import text_results
import text_words
from text_documents import Corpus, Document
from text_sentences import UNSPACED

_LIBRARIES = 150 * given.MIB
"""What the language model, ICU, numpy and matplotlib take beside the interpreter: measured."""

_ENTRY = 180
"""Bytes of one counted word: a string of a dozen letters, its count, its place in the table."""

_BATCH = 50_000
"""Words that are counted at a time: their list takes some 5 MB."""


def main() -> int:
    """Analyse."""
    settings = given.settings()
    files, options = settings["files"], settings["options"]
    lengths = range(2, options.get("ngrams", 3) + 1)
    # Half of the memory for the tables that live through the whole run, a quarter for one text's, a quarter for work.
    room = max(20_000, (given.memory_for_data() - _LIBRARIES) // 2 // _ENTRY // (2 + len(lengths)))
    corpus = Corpus(
        options,
        text_counting.Counts(room),
        text_counting.Counts(room),
        {length: text_counting.Counts(room) for length in lengths},
        room,
    )
    text_results.SCRATCH.mkdir(parents=True, exist_ok=True)
    # The language model unpacks to 68 MB, and a capsule's /tmp is smaller.
    tempfile.tempdir = str(text_results.SCRATCH)
    began = time.monotonic()
    documents = []
    for at, path in enumerate(files):
        documents.append(_read(path, at, corpus, alone=len(files) == 1))
        if (at + 1) % 50 == 0 or at + 1 == len(files):
            total = sum(document.bytes for document in documents)
            print(f"{at + 1:,} of {len(files):,} texts, {given.size(total)}, {time.monotonic() - began:.1f} s")
    text_results.write(documents, corpus)
    shutil.rmtree(text_results.SCRATCH)
    print(f"done in {time.monotonic() - began:.1f} s")
    return 0


def _read(path: str, at: int, corpus: Corpus, *, alone: bool) -> Document:
    """One text, paragraph by paragraph."""
    source = text_input.source(path, corpus.options.get("encoding", ""), corpus.options.get("format", ""))
    code, sure = corpus.options.get("language", ""), 1.0
    if not code:
        code, sure = text_languages.language(part for part, _ in text_input.paragraphs(source.pieces(), ""))
    size = Path(path).stat().st_size
    document = Document(given.shown(path), source.format, source.encoding, code, sure, size, source.notes)
    splitter, idle = text_words.Splitter(code), idle_words(code, corpus.options.get("stop_words", True))
    batch = _Batch(document, corpus, idle, text_counting.Counts(corpus.max_entries))
    for paragraph, first in text_input.paragraphs(source.pieces(), code):
        _measure(document, paragraph, first=first)
        began = len(batch.words)
        for clauses in splitter.sentences(paragraph):
            batch.add(clauses, compared=not alone)
        if alone:
            corpus.parts += first
            batch.of_paragraphs += set(batch.words[began:])
        if len(batch.words) > _BATCH:
            batch.flush()
    batch.flush()
    own = batch.own
    document.distinct, document.once, document.off = len(own), own.once(), own.off
    counts = {word: count for word, count in own.items() if batch.is_counted(word)}
    if not alone:
        corpus.documents.add(counts)
    (text_results.SCRATCH / f"{at}.json").write_text(json.dumps(counts), encoding="utf-8")
    return document


class _Batch:
    """Words and runs of words of one text, counted many at a time: most of them are few words, seen often."""

    def __init__(self, document: Document, corpus: Corpus, idle: frozenset[str], own: text_counting.Counts) -> None:
        """Empty. ``own`` are the counts of this text alone."""
        self._document = document
        self._corpus = corpus
        self._idle = idle
        self._min_length = corpus.min_length
        self._glue = "" if document.code in UNSPACED else " "
        self._sentences = 0
        self._runs: dict[int, list[str]] = {length: [] for length in corpus.runs}
        self.own = own
        self.words: list[str] = []
        self.of_paragraphs: list[str] = []
        """The different words of each paragraph, where paragraphs stand in for documents."""

    def add(self, clauses: list[list[str]], *, compared: bool) -> None:
        """Take one sentence; ``compared`` where there are other texts that it may be in."""
        words = [word for clause in clauses for word in clause]
        spoken = [word for word in words if word.isalpha() or not text_words.is_number(word)]
        self._document.numbers += len(words) - len(spoken)
        if compared:
            self._document.fingerprint.add(words)
        if not spoken:
            return
        self.words += spoken
        self._sentences += 1
        self._document.sentence_lengths[len(spoken)] += 1
        for clause in clauses:
            at_edge = self._idle
            if self._document.code == "zh" and at_edge:
                at_edge = frozenset(word for word in clause if is_idle(word, self._idle, "zh"))
            for length in self._runs:
                self._runs[length] += text_counting.runs(clause, length, self._glue, at_edge)

    def flush(self) -> None:
        """Count what was gathered."""
        counts = Counter(self.words)
        self._document.measures.add(counts, self._sentences, self._document.code)
        for word, times in counts.items():
            self._document.word_lengths[text_words.length(word)] += times
        self.own.update(counts)
        counted = {word: times for word, times in counts.items() if self.is_counted(word)}
        self._corpus.words.update(counted)
        if self.of_paragraphs:
            paragraphs = Counter(self.of_paragraphs)
            self._corpus.documents.update({word: times for word, times in paragraphs.items() if word in counted})
            self.of_paragraphs.clear()
        for length, gathered in self._runs.items():
            self._corpus.runs[length].add(gathered)
            gathered.clear()
        self.words.clear()
        self._sentences = 0

    def is_counted(self, word: str) -> bool:
        """Whether the word is long enough, and tells something."""
        return text_words.length(word) >= self._min_length and not is_idle(word, self._idle, self._document.code)


def _measure(document: Document, text: str, *, first: bool) -> None:
    """A paragraph, or a further piece of one."""
    document.paragraphs += first
    document.characters += len(text)
    document.undecodable += text.count("\ufffd")
    document.scripts.update(text_languages.scripts(text))
    if document.code == "zh":
        traditional, simple = text_languages.telling_characters(text)
        document.telling = (document.telling[0] + traditional, document.telling[1] + simple)


def idle_words(code: str, option: bool | list[str]) -> frozenset[str]:  # noqa: FBT001 - the option is one or the other
    """The words that hold a sentence together and tell nothing of its subject; a list adds to the language's own."""
    if option is False:
        return frozenset()
    from stopwordsiso import has_lang, stopwords  # noqa: PLC0415 - a table of 58 languages, for those who want it

    own = frozenset(text_words.small(word, code) for word in stopwords(code)) if has_lang(code) else frozenset()
    if code in {"fr", "it", "ca"}:
        own |= {"l", "d", "j", "n", "s", "t", "m", "c", "qu", "un", "all", "dell", "nell", "sull", "quest"}
    more = option if isinstance(option, list) else ()
    return own | {text_words.small(text_words.plain(word), code) for word in more}


def is_idle(word: str, idle: frozenset[str], code: str) -> bool:
    """Whether a word is one of them. The list of Chinese ones is in simplified characters."""
    return word in idle or (code == "zh" and text_languages.simplified(word) in idle)


if __name__ == "__main__":
    given.run(main)
