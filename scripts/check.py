"""Every check that reads the code and runs none of it: all of them run, and what failed is named at the end.

Usage: python scripts/check.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
CHECKS: dict[str, list[str | Path]] = {
    "format": [BIN / "ruff", "format", "--check", "--quiet", "."],
    "lint": [BIN / "ruff", "check", "--quiet", "."],
    "types": [BIN / "mypy"],
    "floors": [BIN / "lint-imports", "--no-cache"],
    "dependencies": [BIN / "deptry", "src"],
    "generated code": [sys.executable, ROOT / "scripts" / "proto.py", "check"],
    "proto": [sys.executable, ROOT / "scripts" / "buf.py"],
}


def main() -> int:
    """0 when all hold, else 1."""
    failed = [name for name, command in CHECKS.items() if not _holds(name, command)]
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
    notes = [line for line in ended.stdout.splitlines() if line.startswith(("!!", "=="))]
    print(f"{'ok ' if ended.returncode == 0 else 'NO '} {name} ({time.monotonic() - began:.1f} s)", flush=True)
    if ended.returncode != 0:
        print(ended.stdout + ended.stderr, flush=True)
    elif notes:
        print("\n".join(notes), flush=True)
    return ended.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
