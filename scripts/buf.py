"""Check nodepool.proto with buf: its lint rules, and that nothing of the last release was broken.

Usage: python scripts/buf.py

From the first release on, a breaking change fails. Before it, the previous commit is compared with, and what broke is
told.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import system_packages

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".tools" / "buf"
BUF = HOME / "node_modules" / ".bin" / "buf"
BUF_VERSION = "1.75.0"
PROTO = "src/hivemind_worker/wire/nodepool.proto"


def main() -> int:
    """0 when both checks hold; without npm it says that they did not run."""
    if not _make_buf():
        return 0
    lint = subprocess.run([BUF, "lint"], cwd=ROOT, check=False).returncode
    return lint or _breaking()


def _make_buf() -> bool:
    """Fetch the pinned buf, once. False without npm: the rest of the checks shall still run."""
    stamp = HOME / ".made"
    if BUF.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == BUF_VERSION:
        return True
    npm = system_packages.program("npm")
    if npm is None:
        print(
            "!! buf lint and the breaking-change check did NOT run: they need npm (Debian: nodejs and npm)", flush=True
        )
        return False
    HOME.mkdir(parents=True, exist_ok=True)
    # Its install script only links the binary; the platform package brings it whole.
    command = [
        npm,
        "install",
        "--no-save",
        "--no-audit",
        "--no-fund",
        "--loglevel=error",
        f"@bufbuild/buf@{BUF_VERSION}",
    ]
    if (
        subprocess.run(command, cwd=HOME, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False).returncode
        != 0
    ):
        print("!! buf lint and the breaking-change check did NOT run: npm could not fetch @bufbuild/buf", flush=True)
        return False
    stamp.write_text(BUF_VERSION, encoding="utf-8")
    return True


def _breaking() -> int:
    release = _git("describe", "--tags", "--abbrev=0", "--match", "v[0-9]*")
    before = release or "HEAD~1"
    text = _git("show", f"{before}:{PROTO}")
    if text is None:
        print("== no earlier nodepool.proto to compare with", flush=True)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "nodepool.proto").write_text(text, encoding="utf-8")
        (Path(scratch) / "buf.yaml").write_text("version: v2\n", encoding="utf-8")
        changed = subprocess.run([BUF, "breaking", "--against", scratch], cwd=ROOT, check=False).returncode
    if changed and release is None:
        print("== no release yet: the breaking changes above are told, and allowed", flush=True)
        return 0
    if changed:
        print(f"!! nodepool.proto breaks what {release} promised: see above", flush=True)
    return changed


def _git(*arguments: str) -> str | None:
    """What git answers; None where it refuses (no such tag, a copy without history)."""
    answer = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return answer.stdout.strip("\n") + "\n" * (arguments[0] == "show") if answer.returncode == 0 else None


if __name__ == "__main__":
    sys.exit(main())
