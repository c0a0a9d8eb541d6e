"""Fuzz what reads strangers' bytes, each target for some seconds, from a corpus that is kept and grows.

Usage: python scripts/run_fuzz.py [SECONDS] [TARGET…]

The targets are those of tests/support/fuzz_targets.py, driven by atheris (libFuzzer for Python). An input that breaks
one is kept in its corpus, so that `make test` fails until it is mended; so are inputs that reach new code, the
smallest of them. The C program is fuzzed under AddressSanitizer and UBSan by
tests/unit/runtime/capsule/test_init_fuzz.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORPUS = ROOT / "tests" / "fuzz" / "corpus"
sys.path[:0] = [str(ROOT / "tests" / "support")]
SECONDS = 60
MAX_BYTES = 4096
RSS_MB = 2048
INPUT_SECONDS = 20
"""One input may take so long; a slower one is a fault."""
MAX_KEPT_BYTES = 512
"""Longer inputs are not kept: the corpus is read by people too, and runs in each `make test`."""


def main(arguments: list[str]) -> int:
    """0 when no target was broken; 1 when one was; 2 for an unknown target."""
    if arguments[:1] == ["--target"]:
        return _fuzz_here(arguments[1], arguments[2:])
    import fuzz_targets  # noqa: PLC0415 - not instrumented: this process only lists and copies

    seconds = int(arguments.pop(0)) if arguments and arguments[0].isdecimal() else SECONDS
    unknown = set(arguments) - set(fuzz_targets.TARGETS)
    if unknown:
        print(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(fuzz_targets.TARGETS)}")
        return 2
    broken = [name for name in arguments or fuzz_targets.TARGETS if not _fuzz(name, seconds)]
    if broken:
        print(f"!! broken: {', '.join(broken)}; the inputs lie in {CORPUS.relative_to(ROOT)}: mend, then `make test`")
    return 1 if broken else 0


def _fuzz(name: str, seconds: int) -> bool:
    """Run one target in a process of its own, then keep the smallest inputs that reach all that was reached."""
    import fuzz_targets  # noqa: PLC0415 - as above

    kept = CORPUS / name
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch) / "fuzz"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" --target {name} "$0" "$@"\n')
        program.chmod(0o700)
        grown, smallest = Path(scratch) / "grown", Path(scratch) / "smallest"
        for folder in (grown, smallest):
            folder.mkdir()
        for number, seed in enumerate(fuzz_targets.seeds(name)):
            (grown / f"seed-{number}").write_bytes(seed)
        print(f"== {name}: {seconds} s", flush=True)
        options = [f"-max_total_time={seconds}", f"-max_len={MAX_BYTES}", f"-timeout={INPUT_SECONDS}"]
        options += [f"-rss_limit_mb={RSS_MB}", f"-artifact_prefix={kept}/", "-print_final_stats=1", "-verbosity=0"]
        if _run(program, [*options, str(grown), str(kept)]) != 0:
            return False
        merge = ["-merge=1", "-verbosity=0", f"-max_len={MAX_KEPT_BYTES}", str(smallest), str(kept), str(grown)]
        if _run(program, merge) != 0:
            return False
        for path in smallest.iterdir():
            if path.stat().st_size <= MAX_KEPT_BYTES and not (kept / path.name).exists():
                shutil.copy(path, kept / path.name)
        print(f"ok {name}: {sum(1 for _ in kept.iterdir())} inputs kept", flush=True)
    return True


def _run(program: Path, options: list[str]) -> int:
    """Run it; what it prints is shown where it fails, else only how many inputs were tried."""
    ended = subprocess.run(
        [program, *options], check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
    )
    lines = (ended.stdout + ended.stderr).splitlines()
    shown = lines if ended.returncode else [line for line in lines if "number_of_executed_units" in line]
    print("\n".join(shown), flush=True)
    return ended.returncode


def _fuzz_here(name: str, options: list[str]) -> int:
    import atheris  # noqa: PLC0415 - only this process is instrumented

    with atheris.instrument_imports(include=["hivemind_worker"]):
        import fuzz_targets  # noqa: PLC0415 - imported anew, instrumented

    target = fuzz_targets.TARGETS[name]
    # The first word is a program: to merge, libFuzzer starts itself again by it.
    atheris.Setup(options, target, enable_python_coverage=True)
    os.umask(0o077)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
