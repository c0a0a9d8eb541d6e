"""Writes a table of squares: `hivemind run examples/scripts/squares.py 12`."""

import pathlib
import sys

count = int(sys.argv[1]) if len(sys.argv) > 1 else 10
lines = [f"{number:>4} {number * number:>8}" for number in range(1, count + 1)]
print("\n".join(lines))
pathlib.Path("results/squares.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
