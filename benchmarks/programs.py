"""What benchmarks of data tasks share: a program run as in a capsule but unfenced, and scripts beside it."""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import common

from hivemind_worker import units
from hivemind_worker.tasks import kinds, plan, resources, spec
from hivemind_worker.tasks.kinds import kind

_LIMITS = kind.NodeLimits(
    default_image="python:3.11-slim",
    timeout_seconds=3_600.0,
    grace_seconds=3.0,
    caps=plan.Caps(10_000, 100, 10_000, 10, 5, 60.0),
    most=resources.Resources(2.0, 8 * units.GIB, 8 * units.GIB, 0),
)


def run(folder: Path, files: Mapping[str, Path], cores: int, **fields: object) -> None:
    """Run the program of a data task of 1 GiB in a fresh ``folder``. Raises CalledProcessError where it fails."""
    limits = {"memory_limit": "1g", "cpu_quota": 100_000 * cores}
    task = spec.parse({**fields, **limits, "input_files": dict.fromkeys(files, "")})
    laid_out = kind.make_plan(kinds.of(task), task, "t1", 1, _LIMITS)
    shutil.rmtree(folder, ignore_errors=True)
    for file in laid_out.files:
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if file.path in files:
            path.symlink_to(files[file.path])
        else:
            path.write_bytes(file.content or b"")
    (folder / "tmp").mkdir()
    _python(laid_out.argv[1:], folder)


def script(folder: Path, code: str, source: Path) -> None:
    """Run a few lines of Python in a fresh ``folder``, which is where they write; ``source`` is what they read."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "tmp").mkdir(parents=True)
    _python(["-c", code, str(source), str(folder)], folder)


def compare(title: str, ways: Sequence[common.Way], rounds: int, base: str) -> None:
    """Measure all ways in turn, and print them beside the one named ``base``.

    By the clock, and by the processor time of the processes themselves, which other work on the machine changes less.
    """
    spent: dict[str, list[float]] = {way.name: [] for way in ways}
    timings = common.in_turn([_counted(way, spent[way.name]) for way in ways], rounds, warmup=0)
    rows = [
        [
            name,
            f"{timing.p50:.2f}",
            f"{common.paired_ratio(timing, timings[base]):.2f}",
            f"{statistics.median(spent[name]):.2f}",
            f"{statistics.median(a / b for a, b in zip(spent[name], spent[base], strict=True)):.2f}",
        ]
        for name, timing in timings.items()
    ]
    common.table(title, ["way", "p50 s", f"÷ {base}", "CPU s", f"÷ {base}"], rows)


def _counted(way: common.Way, seconds: list[float]) -> common.Way:
    """The same way, which adds the processor time of its processes to ``seconds``."""

    def once() -> None:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        way.once()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    return common.Way(way.name, once)


def _python(arguments: Sequence[str], folder: Path) -> None:
    # One thread each for what brings its own: the cores are those of the quota.
    environment = {**os.environ, "TMPDIR": str(folder / "tmp"), "OMP_NUM_THREADS": "1", "VIPS_CONCURRENCY": "1"}
    subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=True, timeout=3_600
    )
