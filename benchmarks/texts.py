"""100 MB of text: text_analysis beside a plain count of words in Python, which does no more than that.

Usage: python benchmarks/texts.py [--megabytes N] [--rounds N]
"""

from __future__ import annotations

import argparse
import functools
import random
import tempfile
from pathlib import Path

import common

import programs

_COUNT = """
import collections, pathlib, re, sys
counts = collections.Counter()
for path in pathlib.Path(sys.argv[1]).iterdir():
    with path.open(encoding="utf-8") as file:
        for line in file:
            counts.update(re.findall(r"\\w+", line.lower()))
pathlib.Path(sys.argv[2], "counts.txt").write_text(str(counts.most_common(100)))
"""
_COMMON = (
    *("the", "of", "and", "to", "in", "a", "is", "that", "for", "it", "as", "was", "with", "be", "by", "on", "not"),
    *("he", "his", "but", "at", "are", "this", "have", "from", "or", "had", "an", "they"),
)


def text(size: int) -> str:
    """English in its frequencies: half of it are thirty words, the rest are drawn from 30,000 by Zipf's law."""
    drawn = random.Random(1)
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    rare = [
        "".join(drawn.choice(letters[:12] if at % 3 else letters) for at in range(3 + number % 9))
        for number in range(30_000)
    ]
    weights = [1 / (rank + 10) for rank in range(len(rare))]
    parts: list[str] = []
    while size > 0:
        words = [
            drawn.choice(_COMMON) if drawn.random() < 0.5 else word for word in drawn.choices(rare, weights, k=4_000)
        ]
        for at in range(0, len(words), 18):
            words[at] = words[at].capitalize()
            words[at - 1] += ".\n\n" if at % 90 == 0 else "."
        parts.append(" ".join(words))
        size -= len(parts[-1])
    return "".join(parts)


def main(megabytes: int, rounds: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        source, scratch = Path(folder, "source"), Path(folder, "scratch")
        source.mkdir()
        block = text(min(megabytes, 5) * 1_000_000)
        with (source / "a.txt").open("w", encoding="utf-8") as file:
            for _ in range(max(1, megabytes // 5)):
                file.write(block + "\n\n")
        fields = {"processing_type": "text_analysis", "input_data": "a.txt"}
        ways = [
            common.Way(
                "text_analysis", functools.partial(programs.run, scratch, {"a.txt": source / "a.txt"}, 1, **fields)
            ),
            common.Way("Counter and a pattern", functools.partial(programs.script, scratch, _COUNT, source)),
        ]
        programs.compare(f"{megabytes} MB of text ({rounds} rounds, in turn)", ways, rounds, "Counter and a pattern")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    main(chosen.megabytes, chosen.rounds)
