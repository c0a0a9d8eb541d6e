"""Run the checks and the tests on real isolation: installs what is missing, starts an engine where none is.

Usage: python scripts/run_tests.py [--long] [PYTEST ARGUMENTS…]

Without an engine (not root, not Debian, none running) its tests are skipped, and that is said; in CI (CI=true) it fails
the run instead: green must mean that they ran. pytest's summary is the last thing printed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

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
    "docker-registry": "docker-registry",  # what the tests of pulls pull from
}

LONG = {"chromium": "chromium"}  # looks at the window


def main(arguments: list[str]) -> int:
    """0 when checks and tests hold."""
    test_engine.end_on_sigterm()
    long = "--long" in arguments
    chosen = [argument for argument in arguments if argument != "--long"]
    system_packages.install(PROGRAMS | LONG if long else PROGRAMS, "the tests")
    checked = 0 if long else _run([sys.executable, ROOT / "scripts" / "check.py"], dict(os.environ))
    if checked:
        print("!! the checks failed, and so will this run, whatever the tests say", flush=True)
    with test_engine.engine() as engine:
        environment = _environment(engine)
        pytest: list[str | Path] = [sys.executable, "-m", "pytest", "-m", "long" if long else "not long"]
        tested = _run([*pytest, "--durations=25", *chosen], environment)
    return checked or tested


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


def _run(command: list[str | Path], environment: dict[str, str]) -> int:
    return subprocess.run(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
