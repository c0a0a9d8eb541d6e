"""Put together what is released: the folder HiveMind-Worker-Release with the wheel, its installers, and their sums.

Usage: python scripts/release.py [FOLDER]   (otherwise dist/)
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
NAME = "HiveMind-Worker-Release"
# Where it lies → what it is called in the release.
FILES = {
    DEPLOY / "install.sh": "install.sh",
    DEPLOY / "hivemind-worker.service": "hivemind-worker.service",
    DEPLOY / "start_worker.cmd": "start_worker.cmd",
    DEPLOY / "file.ico": "file.ico",
    DEPLOY / "release.Dockerfile": "Dockerfile",
    DEPLOY / "README.md": "README.md",
    ROOT / "CHANGELOG.md": "CHANGELOG.md",
    ROOT / "LICENSE": "LICENSE",
}


def main(arguments: list[str]) -> int:
    """Make the folder anew; 0 when it is whole."""
    release = (Path(arguments[0]) if arguments else ROOT / "dist") / NAME
    shutil.rmtree(release, ignore_errors=True)
    release.mkdir(parents=True)
    for source, name in FILES.items():
        shutil.copy(source, release / name)
    # The builder of this environment, whose version is locked: nothing is fetched.
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(release.resolve())]
    if (code := subprocess.run(build, cwd=ROOT, check=False, stdout=subprocess.DEVNULL).returncode) != 0:
        return code
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(release.iterdir())]
    (release / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")
    print(release)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
