"""Every check that reads the code and runs none of it: all run, side by side, and what failed is named at the end.

Usage: python scripts/check.py [--idle]

--idle: on what processor time is left over, beside something that somebody waits for.
"""

from __future__ import annotations

import concurrent.futures
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
# The longest first.
CHECKS: dict[str, list[str | Path]] = {
    "types": [BIN / "mypy"],
    "proto": [sys.executable, ROOT / "scripts" / "buf.py"],
    "dependencies": [BIN / "deptry", "src"],
    "layers": [BIN / "lint-imports", "--no-cache"],
    "generated code": [sys.executable, ROOT / "scripts" / "proto.py", "check"],
    "lint": [BIN / "ruff", "check", "--quiet", "."],
    "format": [BIN / "ruff", "format", "--check", "--quiet", "."],
}


def main() -> int:
    """0 when all hold, else 1."""
    if "--idle" in sys.argv[1:] and hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as side_by_side:
        verdicts = side_by_side.map(_holds, CHECKS, CHECKS.values())
        failed = [name for name, holds in zip(CHECKS, verdicts, strict=True) if not holds]
    if failed:
        print(f"!! failed: {', '.join(failed)}", flush=True)
        return 1
    return 0


def _holds(name: str, command: list[str | Path]) -> bool:
    began = time.monotonic()
    # A check that is content has nothing to say: what it prints is shown only when it is not.
    environment = {**os.environ, "NO_COLOR": "1"}
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    lines = [f"{'ok ' if ended.returncode == 0 else 'NO '} {name} ({time.monotonic() - began:.1f} s)"]
    if ended.returncode != 0:
        lines += [ended.stdout + ended.stderr]
    else:
        lines += [line for line in ended.stdout.splitlines() if line.startswith(("!!", "=="))]
    print("\n".join(lines), flush=True)  # at once, so that no two mix
    return ended.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
