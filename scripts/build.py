"""Build the package that is released: a wheel and a source archive.

Usage: python scripts/build.py [FOLDER]   (otherwise dist/)
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import uv

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: list[str]) -> int:
    """Build into the folder; 0 when both are there."""
    folder = Path(arguments[0]) if arguments else ROOT / "dist"
    return subprocess.run([uv.find_uv_bin(), "build", "--out-dir", folder, ROOT], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
