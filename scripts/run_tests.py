"""Run the checks and the tests on real isolation: installs what is missing, starts an engine where none is.

Usage: python scripts/run_tests.py [--fast | --long] [PYTEST ARGUMENTS…]

Without an engine (not root, not Debian, none running) its tests are skipped, and that is said; in CI (CI=true) it fails
the run instead: green must mean that they ran. A process that outlives its test fails the run, too. What
mostly waits runs on several processes at once; then what needs the machine to itself, one after the other. Last are
printed the tests that did not hold, and `N passed, N failed` of both.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import memory_disk
import reap
import system_packages
import test_engine
import test_images

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = {
    "bwrap": "bubblewrap",
    "cc": "gcc",  # the one run of hivemind-init under AddressSanitizer
    "/usr/include/stdlib.h": "libc6-dev",
    "qemu-aarch64": "qemu-user",  # the arm64 capsule program, run here
    "git": "git",  # the clean-checkout tests
    "make": "make",
    "/usr/share/unicode/auxiliary/WordBreakTest.txt": "unicode-data",  # what Unicode says of words, to compare with
    "docker-registry": "docker-registry",  # what the tests of pulls pull from
}
LONG = {"chromium": "chromium"}  # looks at the window
# Pure code, the map of it, and the contracts that need neither engine nor sandbox.
FAST = ("tests/architecture", "tests/unit", "tests/contracts")
# Tests wait for a part of their time. Each process collects all of them first, eight seconds: with five or seven on two
# cores the same tests took 5 and 10 % longer than with four. Beyond 16 a large machine gains nothing.
PROCESSES = min(2 * (os.cpu_count() or 1), 16)
SPREAD, SERIAL = "not long and not serial", "not long and serial"
LONG_SPREAD, LONG_SERIAL = "long and not serial", "long and serial"
SLOWEST = 25
# For each property of the code; `make test` draws few (tests/conftest.py).
MANY_EXAMPLES = "1000"
# Half of what there is to compile.
HALF = ["tests/unit", "tests/programs", "tests/architecture"]
# pytest's exit codes: all hold, some do not, none was chosen.
HOLDS, FAILS, NOTHING_CHOSEN = 0, 1, 5
RAN = (HOLDS, FAILS, NOTHING_CHOSEN, reap.LEFT)
BAD = ("failed", "error")


def main(arguments: list[str]) -> int:
    """0 when checks and tests hold."""
    test_engine.end_on_sigterm()
    chosen = [argument for argument in arguments if argument not in ("--fast", "--long")]
    if "--fast" in arguments:
        absent = {**os.environ, "HIVEMIND_TEST_DOCKER": "absent", "HIVEMIND_TEST_SANDBOX": "absent"}
        return _tests([("not long and not serial and not docker and not sandbox", True)], chosen or [*FAST], absent)
    if "--long" in arguments:
        system_packages.install(PROGRAMS | LONG, "the tests")
        with test_engine.engine() as engine:
            environment = {"HIVEMIND_TEST_EXAMPLES": MANY_EXAMPLES, **_environment(engine)}
            phases = [(f"hypothesis and {SPREAD}", True), (LONG_SPREAD, True), (LONG_SERIAL, False)]
            return _tests(phases, chosen, environment)
    system_packages.install(PROGRAMS, "the tests")
    # Beside the checks an engine starts, and its images are made.
    # The folder first: what starts later sees it.
    with (
        memory_disk.folder() as folder,
        _checking() as checks,
        _compiling() as compilers,
        test_engine.engine() as engine,
    ):
        environment = _environment(engine)
        for compiler in compilers:
            compiler.wait()
        return _tests([(SPREAD, True), (SERIAL, False)], chosen, environment, checks, folder)


def _checking() -> subprocess.Popen[bytes]:
    # Types take a processor for half a minute. Tests wait often enough for that to fit in between.
    command: list[str | Path] = [sys.executable, ROOT / "scripts" / "check.py", "--idle"]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL)


@contextlib.contextmanager
def _compiling() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Compile all there is once, where nothing is compiled yet, rather than in each test process at the same time.

    So with the tables of characters that hypothesis makes of Unicode where it finds none. Give the processes that do.
    """
    compiled = next((ROOT / "tests").rglob("__pycache__/*-pytest-*.pyc"), None)
    parts = [["--version"]] if compiled else [HALF, ["tests", *(f"--ignore={folder}" for folder in HALF)]]
    program = (
        "import sys, pytest; pytest.main(sys.argv[1:]); from hypothesis import strategies; strategies.text().validate()"
    )
    quiet = subprocess.DEVNULL
    with contextlib.ExitStack() as stack:
        processes = []
        for part in parts:
            command = [sys.executable, "-c", program, "--collect-only", "-qq", *part]
            process = subprocess.Popen(command, cwd=ROOT, stdin=quiet, stdout=quiet, stderr=quiet)
            processes.append(stack.enter_context(process))
        yield processes


def _tests(
    phases: list[tuple[str, bool]],
    chosen: list[str],
    environment: dict[str, str],
    checks: subprocess.Popen[bytes] | None = None,
    folder: Path | None = None,
) -> int:
    """Run pytest once for each phase (which marks, and whether spread); 0 when tests were run and all hold.

    ``folder``: where tests write; pytest's own choice where it is None.

    The checks run beside the tests that are spread, and must hold as well; those that need the machine to themselves
    wait for them.
    """
    counts: collections.Counter[str] = collections.Counter()
    broken: list[str] = []
    codes = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        for number, (marks, spread) in enumerate(phases):
            if checks is not None and not spread:
                checks.wait()
            tally = Path(scratch) / str(number)
            command = [sys.executable, reap.__file__, sys.executable, "-m", "pytest"]
            command += ["-m", marks, f"--durations={SLOWEST}"]
            if spread:
                command += ["-n", str(PROCESSES), "--dist=loadscope", "--no-loadscope-reorder"]
            elif marks == SERIAL and not chosen:
                command += _bearing("pytest.mark.serial")
            if folder is not None:
                # It is memory: what a test that holds has written goes at its end.
                command += [f"--basetemp={folder / str(number)}", "-o", "tmp_path_retention_policy=failed"]
            ended = subprocess.run(
                [*command, *chosen],
                cwd=ROOT,
                env={**environment, "HIVEMIND_TEST_TALLY": str(tally)},
                stdin=subprocess.DEVNULL,
                check=False,
            )
            codes.append(ended.returncode)
            if tally.exists():
                left = json.loads(tally.read_text(encoding="utf-8"))
            else:
                left = {"counts": {"error": 1}, "broken": [f"pytest itself: exit code {ended.returncode}"]}
            if ended.returncode == reap.LEFT:
                left["counts"]["error"] = left["counts"].get("error", 0) + 1
                left["broken"].append("processes outlived their tests; named above")
            counts.update(left["counts"])
            broken += left["broken"]
            if ended.returncode not in RAN:
                break  # interrupted, or not usable
    checked = 0 if checks is None else checks.wait()
    if checked:
        broken.append("the checks, named above")
    for one in broken:
        print(f"!! {one}", flush=True)
    print(f"== {_minutes(time.monotonic() - began)}, {counts['skipped']} skipped", flush=True)
    print(f"{counts['passed']} passed, {sum(counts[word] for word in BAD)} failed", flush=True)
    return checked or next((code for code in codes if code not in (HOLDS, NOTHING_CHOSEN)), min(codes))


def _bearing(mark: str) -> list[str]:
    """The files with such a mark: to collect all others would take longer than these tests."""
    paths = (ROOT / "tests").rglob("test_*.py")
    return sorted(str(path) for path in paths if mark in path.read_text(encoding="utf-8"))


def _minutes(seconds: float) -> str:
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


def _environment(engine: str | None) -> dict[str, str]:
    environment = dict(os.environ)
    if engine is not None and test_images.fill(engine):
        environment["DOCKER_HOST"] = engine
        environment["HIVEMIND_TEST_DOCKER"] = "required"
    else:
        environment["HIVEMIND_TEST_DOCKER"] = "required" if os.environ.get("CI") else "absent"
    if shutil.which("bwrap"):
        environment["HIVEMIND_TEST_SANDBOX"] = "required" if os.geteuid() == 0 else "probe"
    return environment


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
