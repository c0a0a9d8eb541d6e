"""Chaos: 1,000 tasks while workers, pool and engine are killed, stopped, cut off and filled; then what must hold.

Usage: python scripts/run_chaos.py [SEED] [TASKS] [--keep]

With a dockerd to start (root) one of the three workers runs containers on an engine of this run's own, which is struck
as well; without one all three run sandboxes, and that is said. A seed's blows and tasks are the same in every run.
"""

from __future__ import annotations

import sys
from pathlib import Path

import system_packages
import test_engine

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

import chaos
import private_engine

PROGRAMS = {"bwrap": "bubblewrap", **test_engine.PROGRAMS}


def main(arguments: list[str]) -> int:
    """0 when no promise was broken."""
    keep = "--keep" in arguments
    numbers = [int(word) for word in arguments if word.isdecimal()]
    seed, tasks = (*numbers, *(1, 1_000)[len(numbers) :])[:2]
    test_engine.end_on_sigterm()
    system_packages.install(PROGRAMS, "chaos")
    containers = int(private_engine.possible())
    if not containers:
        print("!! no engine of our own can be started here: all workers run sandboxes, no engine is struck", flush=True)
    return chaos.main(seed, tasks, containers=containers, keep=keep)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
