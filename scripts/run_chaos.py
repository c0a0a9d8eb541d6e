"""Chaos: 1,000 tasks while workers, pool and engine are killed, stopped, cut off and filled; then what must hold.

Usage: python scripts/run_chaos.py [SEED] [TASKS] [--spin=PROCESSES] [--before=COMMIT] [--kinds=BLOW,BLOW] [--keep]

With a dockerd to start (root) one of the three workers runs containers on an engine of this run's own, which is struck
as well; without one all three run sandboxes, and that is said. A seed's blows and tasks are the same in every run. As
root all of it runs in namespaces of its own, which end with it.

--spin: so many processes keep the cores busy beside it, in a control group of their own for the processor, of twice the
run's weight: on a machine that nobody else uses they get at least two thirds of it while the run has anything to do, as
a crowded slice under systemd does. Where no such group can be made (no root, no cpu controller) they share the run's
own, and leave it one part in so many. The verdict says which, and what both had. --before: pool and workers may begin
as that version of this repository. --kinds: no other blows fall, to reduce what went wrong. --keep: logs stay, whatever
came of it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import system_packages
import test_engine

HOME = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HOME / "tests" / "support"))

import chaos  # noqa: E402  (found by the line before)
import chaos_run  # noqa: E402
import private_engine  # noqa: E402

PROGRAMS = {"bwrap": "bubblewrap", "gcc": "gcc", **test_engine.PROGRAMS}


def main(arguments: list[str]) -> int:
    """0 when no promise was broken."""
    if arguments[:1] == ["--inside"]:
        return chaos_run.inside(Path(arguments[1]))
    numbers = [int(word) for word in arguments if word.isdecimal()]
    seed, tasks = (*numbers, *(1, 1_000)[len(numbers) :])[:2]
    named = dict(word.removeprefix("--").split("=", 1) for word in arguments if "=" in word)
    missing = system_packages.install(PROGRAMS, "chaos")
    if missing:
        print(f"!! these blows and parts are left out, for want of their programs: {', '.join(missing)}", flush=True)
    containers = int(private_engine.possible())
    if not containers:
        print("!! no engine of our own can be started here: all workers run sandboxes, no engine is struck", flush=True)
    terms = chaos.Terms(
        seed,
        tasks,
        sandboxes=3 - containers,
        containers=containers,
        seconds=max(chaos.Terms.seconds, chaos.TASK_SECONDS * tasks),
        spinners=int(named.get("spin", "0")),
        before=named.get("before", _released()),
        kinds=tuple(filter(None, named.get("kinds", "").split(","))),
    )
    return chaos_run.main(terms, keep="--keep" in arguments)


def _released() -> str:
    """The newest release; empty where there is none, or no git: then nothing begins as the version before."""
    words = ["git", "-C", str(HOME), "describe", "--tags", "--abbrev=0"]
    try:
        found = subprocess.run(words, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
