"""Run the benchmarks beside their peers, each in turn on an otherwise idle machine; ratios are what counts.

Usage: python scripts/run_bench.py [NAME…]   (in .venv with the bench group; NAME: a file in benchmarks/ without .py)
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import system_packages
import test_engine
import test_images

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
PROGRAMS = {
    "bwrap": "bubblewrap",
    "docker": "docker.io",  # `docker run` is one of the peers
    "redis-server": "redis-server",  # Celery's broker
}


def main(chosen: list[str]) -> int:
    """0 when every benchmark ran."""
    # A benchmark is what can be started; the other files are what they share, or what they start (named with a _).
    startable = sorted(path for path in BENCHMARKS.glob("[!_]*.py") if "__main__" in path.read_text(encoding="utf-8"))
    wanted = [path for path in startable if not chosen or path.stem in chosen]
    if not wanted:
        print(f"no such benchmark; there are: {', '.join(path.stem for path in startable)}", file=sys.stderr)
        return 2
    test_engine.end_on_sigterm()
    system_packages.install(PROGRAMS, "the peers to be measured beside")
    failed = []
    with test_engine.engine() as engine:
        environment = dict(os.environ)
        if engine is not None and test_images.fill(engine):
            environment["DOCKER_HOST"] = engine
        for path in wanted:
            print(f"== {path.stem}", flush=True)
            if subprocess.run([sys.executable, path], env=environment, check=False).returncode != 0:
                failed.append(path.stem)
    if failed:
        print(f"!! did not run to the end: {', '.join(failed)}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
